"""The command line of a sweep: its own flags, and settings of the runs.

Next: `dreamer/sweep.py`, which reads it.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dreamer.command import Parser, unknown_flag, whole_number
from dreamer.config import Config
from dreamer.options import WORDS, ConfigError, settings, shown
from dreamer.places import home
from dreamer.settings import split_flags

PROGRAM = "dreamer.sweep"
LAUNCHERS = ("local", "slurm", "k8s")
COUNT, COUNT_OR_0 = whole_number(1, 999_999), whole_number(0, 999_999)
GRACE = 120  # seconds before Slurm's time limit at which a run is told to stop
EARLY = 60  # seconds before that at which Slurm may tell it
DESCRIPTION = """\
Trains many agents. Settings of dreamer.train are given as there; one that
takes a single value may have several, with commas between them, and every
combination of all such settings is a run:

  python -m dreamer.sweep --configs atari100k size12m --task all26 --seeds 5 \\
    --logdir ~/sweeps/a100k

--task all26 stands for the games of Atari 100K, all57 for those of Atari
200M; --seeds 5 for --seed 0,1,2,3,4. The same command again leaves out what
is done or going on and goes on with the rest. Other commands may add runs.

  python -m dreamer.sweep status DIR      how the runs in a folder are doing
  python -m dreamer.sweep run DIR NAME    becomes one of them
"""


def _hours(text: str) -> float:
    try:
        if 0 < (number := float(text)) < 1e6:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{shown(text)}: expected a number > 0 and < 1e6"
    )


def _word(text: str) -> str:
    """Goes into scripts and manifests as it is."""
    if not re.fullmatch(r"[\w.,:/@%+=-]+", text, flags=re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{shown(text)}: expected letters, digits and any of .,:/@%+=-"
        )
    return text


def _gpus(text: str) -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them; there, -1 would hide the rest."""
    words = _word(text).split(",")
    named = all(words) and not any(word.startswith("-") for word in words)
    if not named or len(set(words)) < len(words):
        raise argparse.ArgumentTypeError(
            f"{shown(text)}: expected GPUs as in 0,1, each of them once"
        )
    return words


def _line(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{shown(text)}: expected one line")
    return text


def _limit(text: str) -> str:
    """Any of Slurm's ways to write a duration."""
    if _seconds(text) is None and text.upper() != "UNLIMITED":
        raise argparse.ArgumentTypeError(
            f"{shown(text)}: expected minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S"
            " or UNLIMITED"
        )
    return text


def _seconds(text: str) -> int | None:
    """Of a duration as sbatch takes it; None of any other text."""
    number = "([0-9]{1,6})"
    for pattern, units in (
        (number, (60,)),
        (f"{number}:{number}", (60, 1)),
        (f"{number}:{number}:{number}", (3600, 60, 1)),
        (f"{number}-{number}", (86400, 3600)),
        (f"{number}-{number}:{number}", (86400, 3600, 60)),
        (f"{number}-{number}:{number}:{number}", (86400, 3600, 60, 1)),
    ):
        if found := re.fullmatch(pattern, text):
            numbers = map(int, found.groups())
            return sum(n * u for n, u in zip(numbers, units, strict=True))
    return None


@dataclass(frozen=True)
class Flag:
    """A flag that some launchers have a use for; `None` if not given."""

    launchers: str
    type: Callable[[str], Any]
    example: str
    help: str


FLAGS = {
    "jobs": Flag("local", COUNT, "N", "runs at a time (default: as many"
                 " as --gpus times --per-gpu, or one per two cores)"),
    "gpus": Flag("local", _gpus, "0,1", "GPUs to use (default: all)"),
    "per-gpu": Flag("local", COUNT, "K", "runs that share a GPU and its"
                    " memory (default: 1)"),
    "retries": Flag("local k8s", COUNT_OR_0, "N", "starts of a run after it"
                    " failed (default: 1)"),
    "partition": Flag("slurm", _word, "NAME", "as sbatch takes it"),
    "account": Flag("slurm", _word, "NAME", "as sbatch takes it"),
    "time": Flag("slurm", _limit, "LIMIT", "of one start of a run, as sbatch"
                 " takes it; longer runs are requeued"),
    "grace": Flag("slurm", whole_number(60, 65535), "SECONDS", "before the"
                  " time limit, at which a run is told to save (default:"
                  f" {GRACE})"),
    "gres": Flag("slurm", _word, "gpu:1", "as sbatch takes it, for each run"),
    "sbatch": Flag("slurm", _line, "FLAGS", "more flags of sbatch, as in"
                   " --sbatch=--qos=long"),
    "image": Flag("k8s", _word, "IMAGE", "container image of docker/"),
    "pvc": Flag("k8s", _word, "NAME", "volume claim that is mounted at"
                " --logdir"),
    "gpu-count": Flag("k8s", COUNT_OR_0, "N", "GPUs of each run (default: 1)"),
    "cpus": Flag("slurm k8s", COUNT, "N", "cores of each run"),
    "mem": Flag("slurm k8s", _word, "16G", "RAM of each run, as the cluster"
                " takes it: 16G for Slurm, 16Gi for Kubernetes"),
    "concurrent": Flag("slurm k8s", COUNT, "N", "runs at a time, at most"),
}  # fmt: skip


def _parser() -> Parser:
    parser = Parser(f"python -m {PROGRAM}", DESCRIPTION)
    add = parser.add_argument
    about = "folder of the sweep; each run has one in it"
    add("--logdir", metavar="DIR", type=home, required=True, help=about)
    about = "where runs are started (default: local)"
    add("--launcher", choices=LAUNCHERS, default="local", help=about)
    about = "seeds 0 to N - 1"
    add("--seeds", metavar="N", type=COUNT, help=about)
    about = "hours of a whole run, if they are known, for the plan"
    add("--hours", metavar="H", type=_hours, help=about)
    about = "print the plan, and do nothing"
    add("--dry-run", action="store_true", help=about)
    for name, flag in FLAGS.items():
        only = ", ".join(flag.launchers.split())
        add(
            f"--{name}",
            metavar=flag.example,
            type=flag.type,
            help=f"{only}: {flag.help}".replace("%", "%%"),
        )
    return parser


def parse(
    argv: Sequence[str],
) -> tuple[argparse.Namespace, list[str], dict[str, str]]:
    """Flags of the sweep, entries of --configs, and settings by key.

    Raises:
      ConfigError: something is unknown, malformed or without effect.
    """
    parser = _parser()
    flags, rest = parser.parse_known_args(argv)
    known = settings(Config())
    entries, changes = split_flags(rest, known)
    for key in changes:
        if key not in known and "." not in key:
            names = [*known, *parser.names(), *WORDS]
            unknown_flag(key, names, "flag or setting")
    for name, flag in FLAGS.items():
        given = getattr(flags, name.replace("-", "_")) is not None
        if given and flags.launcher not in flag.launchers.split():
            only = " or ".join(flag.launchers.split())
            raise ConfigError(f"--{name}: only with --launcher {only}")
    limit = _seconds(flags.time or "")
    least = (flags.grace or GRACE) + EARLY
    if limit and limit <= least:  # to Slurm, 0 is none
        raise ConfigError(
            f"--time={flags.time}: expected more than {least} seconds, of"
            " --grace and Slurm's clock, or runs are told to save at once"
        )
    if set("{}") & set(str(flags.logdir)):
        raise ConfigError(
            f"--logdir={flags.logdir}: expected a folder without {{ }}, which"
            " the same command finds again"
        )
    if flags.seeds is not None:
        if "seed" in changes:
            raise ConfigError("--seeds: expected without --seed")
        changes["seed"] = ",".join(map(str, range(flags.seeds)))
    return flags, entries, changes
