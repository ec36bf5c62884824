"""What a container runs: a training in the mounted folder.

    IMAGE --configs atari100k --task atari100k_pong
    IMAGE python -m dreamer.evaluate --logdir /logdir/atari100k_pong-0

Flags are those of `dreamer.train`. Unless --logdir is among them, a run has
the folder /logdir/{task}-{seed}: the same command goes on with it, whichever
container it is in. Other words are a command, run in place of this one.

Training happens in this very process, which is the first of its container
and is the one that `docker stop` signals. Next: ../dreamer/train.py.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

VOLUME = Path("/logdir")
REFUSED = 2  # exit codes of dreamer.train
INTERRUPTED = 75


def main(argv: Sequence[str]) -> NoReturn:
    """Runs what the words after the image's name ask for."""
    # The kernel keeps signals without a handler from a container's first
    # process, and JAX takes seconds to import: a stop would go unheard.
    signal.signal(signal.SIGTERM, _stop)
    if argv and not argv[0].startswith("-"):
        execute(argv)
    sys.argv[1:] = arguments(argv)
    keep_caches()
    from dreamer import train

    train.program()


def execute(command: Sequence[str]) -> NoReturn:
    """Becomes another program."""
    try:
        os.execvp(command[0], command)
    except OSError as error:
        refuse(
            f"{command[0]!r}: {error.strerror}; expected flags of"
            " dreamer.train, or a program of the image"
        )


def arguments(argv: Sequence[str]) -> list[str]:
    """Those of dreamer.train, with a logdir."""
    names = {word.partition("=")[0] for word in argv}
    if names & {"--help", "-h", "--logdir"}:
        return list(argv)
    if not os.access(VOLUME, os.W_OK | os.X_OK):
        user = f"{os.geteuid()}:{os.getegid()}"
        refuse(
            f"{VOLUME} is not writable for user {user}: on the host, make"
            f" the mounted folder first and chown it to {user}, or run the"
            ' container as its owner: --user "$(id -u):$(id -g)"'
        )
    if not _mounted(VOLUME):
        say(
            f"no folder is mounted on {VOLUME}: what this run writes is lost"
            f" with the container; -v FOLDER:{VOLUME} keeps it"
        )
    return [*argv, "--logdir", f"{VOLUME}/{{task}}-{{seed}}"]


def keep_caches() -> None:
    """Sees that compiled programs and fonts can be kept somewhere."""
    cache = Path(os.environ.get("HOME", "/"), ".cache", "dreamer", "jax")
    folder = next(x for x in (cache, *cache.parents) if x.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        lost = tempfile.mkdtemp()  # with the container
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{lost}/jax")
        os.environ.setdefault("MPLCONFIGDIR", f"{lost}/matplotlib")


def refuse(message: str) -> NoReturn:
    """Ends with one line."""
    say(message)
    sys.exit(REFUSED)


def say(message: str) -> None:
    """Prints a line, whatever is in it."""
    line = "".join(x if x.isprintable() else "?" for x in message)
    print(f"dreamer: {line}", file=sys.stderr)


def _mounted(path: Path) -> bool:
    """Also where folder and mount are on one disk, unlike os.path.ismount."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return str(path) in {line.split()[4] for line in lines}


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Before the run has begun; from then on it notes signals itself."""
    os.write(2, b"dreamer: stopped before the run began\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1:])
