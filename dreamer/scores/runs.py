"""Finds runs and reads the scores of their episodes.

A run is a folder with `scores.jsonl` and `config.yaml`, of this program or of
another one that writes them in the same form, or a record in a file of the
authors, see `files.py`. Read next: `curves.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.options import ConfigError, cut, one_line, shown
from dreamer.places import walk
from dreamer.presets import layers, presets
from dreamer.scores.evaluation_file import Evaluated, read_evaluation
from dreamer.scores.files import read_lines, read_records
from dreamer.scores.published import BENCHMARKS, game_name

SCORES, CONFIG = "scores.jsonl", "config.yaml"
# Of a benchmark's preset; another one makes another method.
TRAIN_RATIOS = {"atari100k": 256, "atari200m": 32}
SHORT = 1e6  # frames; longer files of atari_<game> are of Atari 200M
NO_EPISODES = np.empty(0)


@dataclass(frozen=True)
class Run:
    """The episodes of one seed, in the order of frames.

    Attributes:
      name: Place of the run, without links; no other run has it.
      benchmark: Key of `BENCHMARKS`.
      game: Name of the game, as in `dreamer.envs.games`.
      method: Name of the method, whose runs are averaged.
      seed: Seed that the run names; nothing depends on it.
      frames: Array (episodes,) float, frames at which training episodes
        ended.
      scores: Array (episodes,) float, sums of rewards of training episodes.
      evaluation: Array (evaluation episodes,) float, sums of rewards.
      checkpoint: Policy steps of the agent that was evaluated.
      broken: Number of lines that could not be read.
      settings: Values by dotted key, of a run that is a folder.
    """

    name: str
    benchmark: str
    game: str
    method: str
    seed: int
    frames: np.ndarray
    scores: np.ndarray
    evaluation: np.ndarray = field(default_factory=lambda: NO_EPISODES)
    checkpoint: int = 0
    broken: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


def read(
    path: Path, label: str = "", left_out: list[str] | None = None
) -> list[Run]:
    """All runs of a file or below a folder, in the order of their paths.

    One run below a folder that is not as expected hides no other.

    Args:
      path: Folder, or file of the authors' form.
      label: Method of all runs, instead of what they say.
      left_out: List that gets a line, with the reason, for each run and each
        file of an evaluation that is left out, and each folder that cannot be
        looked into.

    Raises:
      ConfigError: There is none, or none that is as expected.
      OSError: The file that was named cannot be read.
    """
    if path.is_file():
        return read_file(path, label)
    if not path.exists():
        raise ConfigError(f"{path}: no such folder or file")
    folders, files, reasons = _find(path)
    name = path.resolve().name

    def folder(place: Path) -> list[Run]:
        return [read_folder(place, label, name, reasons)]

    jobs = [(x, folder) for x in folders]
    jobs += [(x, lambda x: read_file(x, label)) for x in files]
    runs: list[Run] = []
    for place, job in jobs:
        try:
            runs += job(place)
        except (ValueError, OSError) as error:
            reasons.append(_reason(place, error))
    if not runs:
        raise ConfigError(_none(path, reasons))
    if left_out is not None:
        left_out += reasons
    return runs


def _reason(place: Path, error: ValueError | OSError) -> str:
    """Why a folder or file is left out."""
    if isinstance(error, ValueError):
        return one_line(str(error))  # which names the place
    return one_line(f"{place}: {error.strerror or error}")


def _none(path: Path, reasons: Sequence[str]) -> str:
    """Why there is no run at all."""
    if len(reasons) > 1:
        return f"{path}: none of {len(reasons)} runs can be read: {reasons[0]}"
    if reasons:
        return reasons[0]
    return (
        f"{path}: holds no run, expected folders with {SCORES} and {CONFIG},"
        " or .json.gz files"
    )


def _find(top: Path) -> tuple[list[Path], list[Path], list[str]]:
    """Folders of runs, and files of records, below a folder.

    The third: why folders cannot be looked into.
    """
    folders, files, closed = [], [], {}
    for place, names in walk(top, SCORES, closed):
        if SCORES in names:
            folders.append(place)
        else:
            files += [place / x for x in names if x.endswith(".json.gz")]
    return folders, sorted(files), list(closed.values())


def read_folder(
    folder: Path, label: str, other: str, left_out: list[str]
) -> Run:
    """The run in a folder.

    Args:
      folder: Folder with scores.jsonl.
      label: Method of the run; if empty, the size of its model, if it is
        that of a preset, with the train_ratio if it is not the benchmark's.
      other: Method of a run without such a size.
      left_out: List that gets a line, with the reason, for each file of an
        evaluation that is left out.

    Raises:
      ConfigError: Something in it is not as expected.
      OSError: Something cannot be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"{folder}: has {SCORES} and no {CONFIG}")
    settings = dict(layers([str(path)])[-1].values)
    seed = settings.get("seed", 0)
    benchmark, game = _task(settings.get("task"), path)
    episodes = read_lines(folder / SCORES)
    return Run(
        one_line(str(folder.resolve())),
        benchmark,
        game,
        _name(label or _method(settings, benchmark) or other),
        seed if isinstance(seed, int) else 0,
        episodes.frames,
        episodes.scores,
        *_evaluation(folder, left_out),
        episodes.broken,
        settings,
    )


def _evaluation(folder: Path, left_out: list[str]) -> tuple[np.ndarray, int]:
    """Scores of a run's evaluation episodes, and policy steps of the agent.

    Those of the newest checkpoint that has any, of all seeds together; of
    files with the same seed, which hold the same episodes, the longest.
    Episodes count that were played to their end in the run's own environment
    with sampled actions.
    """
    usual: list[Evaluated] = []
    for path in sorted(folder.glob("eval*.json")):
        try:
            found = read_evaluation(path)
        except (ValueError, OSError) as error:
            left_out.append(_reason(path, error))
        else:
            if found.usual and len(found.scores):
                usual.append(found)
    newest = max([x.checkpoint for x in usual], default=0)
    seeds: dict[str, np.ndarray] = {}
    for found in usual:
        if found.checkpoint == newest:
            seed = str(found.about.get("seed", found.path))
            known = seeds.get(seed, NO_EPISODES)
            seeds[seed] = max(known, found.scores, key=len)
    return np.concatenate([NO_EPISODES, *seeds.values()]), newest


def _task(task: Any, path: Path) -> tuple[str, str]:
    """Benchmark and game of a task such as atari100k_pong."""
    prefix, _, game = str(task).partition("_")
    for benchmark in BENCHMARKS.values():
        if prefix == benchmark.prefix:
            return benchmark.name, _game(game, path)
    names = " or ".join(f"{x.prefix}_<game>" for x in BENCHMARKS.values())
    raise ConfigError(f"{path}: task {shown(task)}: expected {names}")


def _game(text: str, path: Path) -> str:
    try:
        return game_name(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _method(settings: dict[str, Any], benchmark: str) -> str:
    """The size of a model, and the train_ratio if unusual; '' without one."""
    name, ratio = model(settings), settings.get("run.train_ratio")
    if not name or ratio in (None, TRAIN_RATIOS[benchmark]):
        return name
    return f"{name} ratio {shown(ratio).removesuffix('.0')}"


def model(settings: Mapping[str, Any]) -> str:
    """The preset with the size of a model, '' if there is none.

    Args:
      settings: Values by dotted key.
    """
    for name, preset in presets().items():
        if name.startswith("size") and all(
            settings.get(key) == value for key, value in preset.values.items()
        ):
            return name
    return ""


def _name(text: str) -> str:
    """A method's name as figures and tables can show it."""
    return cut(one_line(text)) or "unnamed"


def read_file(path: Path, label: str = "") -> list[Run]:
    """The runs in a file of the authors' form.

    As atari_<game> names both benchmarks, it is Atari 100K if no run goes
    beyond a million frames.

    Args:
      path: File of the authors' form.
      label: Method of the runs, instead of what they say.

    Raises:
      ConfigError: It is not as expected.
      OSError: It cannot be read.
    """
    records = read_records(path)
    last = max((x.frames[-1] for x in records if len(x.frames)), default=0)
    runs = []
    for number, record in enumerate(records, 1):
        benchmark, game = _task(record.task, path)
        if benchmark == "atari200m" and last <= SHORT:
            benchmark = "atari100k"
        runs.append(
            Run(
                one_line(
                    f"{path.resolve()}, record {number}: {record.task} seed"
                    f" {record.seed}"
                ),
                benchmark,
                game,
                _name(label or record.method),
                record.seed,
                record.frames,
                record.scores,
            )
        )
    return runs
