"""Expands a command line into runs, each with settings and folder of its own.

A key with several values makes a grid: every combination is a run, checked by
`dreamer.settings.load` before anything is started. The folder's name says
task, seed, and of the other keys those that have several values in the
command. Of a command with other such keys the same run has another name. Next:
record.py, which keeps what was planned, and refuses that.
"""

import hashlib
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.config import Config
from dreamer.envs.games import GAMES
from dreamer.options import ConfigError, cut, parse, settings, shown
from dreamer.presets import is_file
from dreamer.scores.published import curves
from dreamer.settings import load

MOST = 10_000  # runs; no array job takes more
# Characters of a name; file systems take 255 bytes with `.log.tmp`.
LONGEST = 200
SUITES = {"all26": lambda: sorted(curves("atari100k")), "all57": lambda: GAMES}


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: Name of the folder in that of the sweep; letters, digits and _.=-
      arguments: Arguments of `dreamer.train`, but for the logdir.
      config: Settings that the arguments stand for, with the logdir.
    """

    name: str
    arguments: tuple[str, ...]
    config: Config

    @property
    def command(self) -> list[str]:
        """What follows `python -m`."""
        logdir = ["--logdir", self.config.logdir]
        return ["dreamer.train", *self.arguments, *logdir]


def expand(
    entries: Sequence[str], flags: Mapping[str, str], folder: Path
) -> list[Run]:
    """All runs, checked; all tasks with one seed come before the next seed.

    Args:
      entries: Words that follow `--configs`.
      flags: Text by key: one value, or several with commas between them.
      folder: Absolute path of the sweep's folder.

    Raises:
      ConfigError: something is unknown, malformed, out of range or doubled,
        or there are too many runs.
    """
    configs = ["--configs", *map(_whole_path, entries)] if entries else []
    plain = load([*configs, "--logdir", str(folder)])
    values = _values(flags, plain.suite)
    count = math.prod(len(x) for x in values.values())
    if count > MOST:
        raise ConfigError(f"{count} runs: expected at most {MOST}")
    values = {"task": [plain.task], "seed": [plain.seed], **values}
    inner = sorted(values.keys() - {"task", "seed"})
    grid = [key for key in inner if len(values[key]) > 1]
    order = ["seed", "task", *inner]
    runs = []
    for combination in itertools.product(*(values[key] for key in order)):
        chosen = dict(zip(order, map(_text, combination), strict=True))
        name = name_of(chosen, grid)
        pairs = [[f"--{key}", value] for key, value in chosen.items()]
        arguments = [*configs, *itertools.chain(*pairs)]
        runs.append(planned_run(folder, name, arguments))
    _check_names(runs)
    return runs


def planned_run(folder: Path, name: str, arguments: Sequence[str]) -> Run:
    """The run of a sweep's folder with these arguments.

    Raises:
      ConfigError: they are not right.
    """
    config = load([*arguments, "--logdir", str(folder / name)])
    return Run(name, tuple(arguments), config)


def _whole_path(entry: str) -> str:
    """Files of settings are found from any folder; presets are names."""
    whole = os.path.abspath(os.path.expanduser(entry))
    return whole if is_file(entry) else entry


def _values(flags: Mapping[str, str], suite: str) -> dict[str, list[Any]]:
    """Of every key, what it is to be in one run after another."""
    known = settings(Config())
    found: dict[str, list[Any]] = {}
    for key, text in flags.items():
        several = key in known and not isinstance(known[key].value, tuple)
        words = text.split(",") if several else [text]
        if several and not all(words):
            raise ConfigError(f"--{key}={cut(text)}: a value is missing")
        if key == "task":
            words = [task for x in words for task in _tasks(x, suite)]
        # `load` refuses what is unknown, and names the nearest key.
        # Values as they are meant: 1e3 and 1000 are the same run.
        if several:
            words = [parse(known[key], x, "--") for x in words]
        found[key] = words
        for value, times in Counter(found[key]).items():
            if times > 1:
                raise ConfigError(f"--{key}: {shown(value)} is given twice")
    return found


def _tasks(word: str, suite: str) -> list[str]:
    if word not in SUITES:
        return [word]
    if suite == "gym":
        raise ConfigError(
            f"--task={word}: expected --configs of Atari with it, as atari100k"
        )
    return [f"{suite}_{game}" for game in SUITES[word]()]


def _text(value: Any) -> str:
    """As `dreamer.train` takes it: 0.0001, true, 64 64."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def name_of(chosen: Mapping[str, str], grid: Sequence[str]) -> str:
    """`{task}[-key=value...]-{seed}`, cut short by a hash where too long."""
    words = [f"{key}={chosen[key]}" for key in grid]
    whole = "-".join([chosen["task"], *words])
    name = re.sub(r"[^\w.=-]", "_", whole, flags=re.ASCII)
    if len(name) > LONGEST:
        digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
        name = f"{name[: LONGEST - 17]}-{digest}"
    return f"{name}-{chosen['seed']}"


def _check_names(runs: Sequence[Run]) -> None:
    """gym_a/b and gym_a_b would share a folder."""
    owners: dict[str, str] = {}
    for run in runs:
        other = owners.setdefault(run.name, run.config.task)
        if other != run.config.task:
            raise ConfigError(
                f"--task: {cut(other)} and {cut(run.config.task)} would both"
                f" be in {run.name}; take two sweeps, with a --logdir each"
            )
