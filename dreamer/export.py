"""Makes an agent small enough to give away: `python -m dreamer.export`.

Of a checkpoint it keeps what acting needs, the parameters and the run's
settings; optimiser, replay and the state of environments stay behind. What it
writes is a checkpoint like any other to whatever plays one: run/policy.py,
which is what to read next.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dreamer.command import Parser, say, whole_number
from dreamer.config import Config
from dreamer.options import ConfigError
from dreamer.places import home
from dreamer.replay import files
from dreamer.run import archive
from dreamer.run.policy import NEEDED
from dreamer.run.snapshot import Snapshot, look_at
from dreamer.settings import from_yaml, to_yaml

PROGRAM = "dreamer.export"
DESCRIPTION = """\
Writes the agent of a checkpoint to a new folder: its parameters and settings,
without what only training needs, and without any path of this machine. The
folder can be copied anywhere and played:

    python -m dreamer.export --logdir ~/logdir/pong --out pong-agent
    python -m dreamer.evaluate --logdir pong-agent --video 1

The run itself is left alone and may go on meanwhile.
"""
FAILED, REFUSED, INTERRUPTED = 1, 2, 130  # exit codes, beside 0
UNFINISHED = ".export.tmp"  # after the name of a folder being written


def main(argv: Sequence[str]) -> int:
    """Runs the command line and returns the exit code."""
    try:
        flags = parse(argv)
        size = export(flags.logdir, flags.out, flags.checkpoint)
    except ConfigError as error:
        say(PROGRAM, error)
        return REFUSED
    except OSError as error:
        say(PROGRAM, error)
        return FAILED
    except KeyboardInterrupt:
        say(PROGRAM, "interrupted; nothing is written")
        return INTERRUPTED
    print(f"Written: {flags.out} ({size / 1e6:.1f} MB)")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags.

    Raises:
      ConfigError: one is wrong.
    """
    parser = Parser(f"python -m {PROGRAM}", DESCRIPTION)
    add = parser.add_argument
    about = "a run's folder, or that of one checkpoint"
    add("--logdir", metavar="DIR", type=home, required=True, help=about)
    about = "folder for the agent, which must not be there yet"
    add("--out", metavar="FOLDER", type=home, required=True, help=about)
    about = "its policy steps (default: newest)"
    number = whole_number(0, 10**18)
    add("--checkpoint", metavar="N", type=number, help=about)
    return parser.parse_args(argv)


def size_of(logdir: Path) -> int:
    """Bytes of the parameters that `export` would write, about.

    Raises:
      ConfigError: there is no checkpoint.
    """
    return look_at(
        logdir, None, {}, lambda x, _: archive.bytes_of(x.path, x.meta, NEEDED)
    )


def export(logdir: Path, out: Path, checkpoint: int | None = None) -> int:
    """Writes the agent of a checkpoint to a folder, as a whole or not at all.

    Args:
      logdir: of a run, which may be in use, or the folder of a checkpoint.
      out: folder that is not there yet.
      checkpoint: policy steps of the one wanted; the newest by default.

    Returns:
      Bytes written.

    Raises:
      ConfigError: one line. There is no such checkpoint, or something is
        where the folder is to be.
      OSError: it cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(
            f"--out {out}: is there already, expected a new name"
        )
    return look_at(logdir, checkpoint, {}, partial(_write, out=out))


def _write(snapshot: Snapshot, home: Path, out: Path) -> int:
    arrays = archive.read_fields(snapshot.path, snapshot.meta, NEEDED)
    spec = files.spec_of(arrays)
    changes = {"logdir": Config().logdir}  # theirs may not be reachable here
    config = from_yaml(snapshot.settings, str(snapshot.path), changes)
    unfinished = out.with_name(out.name + UNFINISHED)
    if unfinished.exists():
        shutil.rmtree(unfinished)  # of one that was killed
    unfinished.mkdir(parents=True)
    try:
        file = archive.file_of(unfinished, "state")
        crc32 = files.write_arrays(file, arrays)
        meta = {
            "counters": {"policy_steps": snapshot.policy_steps},
            "config": to_yaml(without_place(config)),
            "replay": {},
            "files": {"state": archive.entry(spec, crc32)},
        }
        archive.write_meta(unfinished, meta)
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return sum(x.stat().st_size for x in out.iterdir())


def without_place(config: Config) -> Config:
    """The settings without where a run was, which is nobody's business."""
    usual = Config()
    names = ("coordinator", "processes", "process")
    kept = {name: getattr(usual.jax, name) for name in names}
    jax = replace(config.jax, **kept)
    return replace(config, logdir=usual.logdir, jax=jax)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
