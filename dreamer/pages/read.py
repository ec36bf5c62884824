"""What a logdir holds, read for its page.

Files may come from a run that goes on, was killed, or belongs to somebody
else: what cannot be read is left out, counted and said on the page; only a
folder without readable settings is no run. Read next: `page.py`.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.checks import check
from dreamer.config import Config
from dreamer.options import ConfigError, apply, settings
from dreamer.pages import state as status
from dreamer.presets import layers, presets
from dreamer.scores.evaluation_file import (
    Evaluated,
    newest,
    read_evaluation,
)
from dreamer.scores.files import (
    LARGEST,
    MOST,
    MOST_FRAMES,
    ODD,
    read_lines,
)
from dreamer.settings import differences

CONFIG = "config.yaml"
DREAM = re.compile(r"(open_loop|imagined)(-\w+)*-(\d{1,18})\.mp4")
Row = dict[str, Any]
NONE = np.empty(0)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its policy steps, bytes, and when it was made."""

    policy_steps: int
    bytes: int
    time: str


@dataclass
class Logdir:
    """Everything that a page speaks of.

    Attributes:
      path: Folder of the run.
      config: Settings of the run.
      state: Contents of status.json, None without one.
      presets: Presets of the run's start; none if that is not known.
      changed: Values by key, of the presets, or the defaults, and of the run.
      starts: Rows of `starts.jsonl`.
      metrics: Rows of `metrics.jsonl`, each with a valid `step`.
      frames: Array (episodes,) float, frames at which training episodes
        ended.
      scores: Array (episodes,) float, sums of rewards of training episodes.
      unscored: Number of other episodes, whose score was not finite.
      evaluations: Files of evaluations, the newest last.
      dreams: Newest videos of each kind, with their frames.
      older: Number of all other videos.
      checkpoints: Checkpoints, the newest last.
      nonfinite: Names of the batches that were kept.
      notes: Sentences on what could not be read.
    """

    path: Path
    config: Config
    state: status.State | None = None
    presets: tuple[str, ...] = ()
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    starts: list[Row] = field(default_factory=list)
    metrics: list[Row] = field(default_factory=list)
    frames: np.ndarray = field(default_factory=lambda: NONE)
    scores: np.ndarray = field(default_factory=lambda: NONE)
    unscored: int = 0
    evaluations: list[Evaluated] = field(default_factory=list)
    dreams: dict[Path, int] = field(default_factory=dict)
    older: int = 0
    checkpoints: list[Checkpoint] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Frames and values of a metric, without those not finite."""
        known = [x for x in self.metrics if is_number(x.get(name))]
        columns = ([x["step"] for x in known], [x[name] for x in known])
        return np.array(columns[0], float), np.array(columns[1], float)

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        values = self.series(name)[1]
        return float(values[-1]) if len(values) else None

    @property
    def evaluation(self) -> Evaluated | None:
        """The newest under the conditions of training; None if none is."""
        return newest(self.evaluations)


def is_number(value: Any) -> bool:
    """Whether it is one that can be computed with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= MOST


def read(path: Path) -> Logdir:
    """Everything in the folder of a run.

    Raises:
      ConfigError: It holds no run, or one whose settings cannot be read.
      OSError: A file cannot be read.
    """
    if not (path / CONFIG).is_file():
        raise ConfigError(f"{path}: holds no run, expected {CONFIG} in it")
    config, unknown = _settings(path / CONFIG)
    found = Logdir(path, config, status.read(path))
    if unknown:
        found.notes.append(
            f"{CONFIG}: settings that this version does not have:"
            f" {', '.join(unknown)}."
        )
    found.starts = _rows(path / "starts.jsonl", found.notes)
    rows = _rows(path / "metrics.jsonl", found.notes, "step")
    found.metrics = sorted(rows, key=lambda x: x["step"])
    _read_scores(path / "scores.jsonl", found)
    found.presets = _presets(found.starts)
    base = Config()
    for layer in layers(found.presets):
        base = apply(base, layer.values, layer.where)
    found.changed = differences(base, config)
    found.evaluations = _evaluations(path, found.notes)
    _find_dreams(path / "videos", found)
    found.checkpoints = sorted(
        _checkpoints(path / "ckpt"), key=lambda x: x.policy_steps
    )
    batches = (path / "nonfinite").glob("update-*.npz")
    found.nonfinite = sorted(x.name for x in batches)
    return found


def _settings(path: Path) -> tuple[Config, list[str]]:
    """A run's settings, and keys that another version wrote."""
    values = dict(layers([str(path)])[-1].values)
    # It is where the run was written, maybe on another machine.
    values.pop("logdir", None)
    known = settings(Config())
    unknown = sorted(set(values) - set(known))
    config = apply(
        Config(), {k: x for k, x in values.items() if k in known}, f"{path}: "
    )
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config, unknown


def _rows(path: Path, notes: list[str], number: str = "") -> list[Row]:
    """Objects of a file of JSON lines; broken lines become a note.

    Args:
      path: File of rows; one that is not there has none.
      notes: List that gets a sentence on what could not be read.
      number: Key that every row must have, with frames.
    """
    if not path.is_file():
        return []
    if path.stat().st_size > LARGEST:
        notes.append(f"{path.name}: left out, as it is too large.")
        return []
    rows, broken = [], 0
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError
            if number and not 0 <= row[number] + 0.0 <= MOST_FRAMES:
                raise ValueError
            rows.append(row)
        except ODD:
            broken += bool(line.strip())
    _note_broken(path, broken, notes)
    return rows


def _note_broken(path: Path, broken: int, notes: list[str]) -> None:
    if broken:
        lines = "1 broken line" if broken == 1 else f"{broken} broken lines"
        notes.append(f"{path.name}: {lines} left out.")


def _read_scores(path: Path, found: Logdir) -> None:
    if not path.is_file():
        return
    try:
        lines = read_lines(path)
    except ValueError as error:
        found.notes.append(f"{str(error).removeprefix(f'{path.parent}/')}.")
    else:
        found.frames, found.scores = lines.frames, lines.scores
        found.unscored = lines.unscored
        _note_broken(path, lines.broken, found.notes)


def _presets(starts: Iterable[Row]) -> tuple[str, ...]:
    """Those in the command that began a run, if all of them are known."""
    command = next((x.get("command") for x in starts), None)
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return ()
    named: list[str] = []
    taking = False
    for word in words:
        if word.startswith("--"):
            key, _, value = word.partition("=")
            taking = key == "--configs"
            named += [value] if taking and value else []
        elif taking:
            named.append(word)
    return tuple(named) if set(named) <= set(presets()) else ()


def _evaluations(path: Path, notes: list[str]) -> list[Evaluated]:
    """By the checkpoints that were evaluated, the newest last."""
    found = []
    for file in path.glob("eval*.json"):
        try:
            found.append(read_evaluation(file))
        except (*ODD, OSError):
            notes.append(f"{file.name}: left out, as it cannot be read.")
    return sorted(found, key=lambda x: (x.checkpoint, x.path.name))


def _find_dreams(folder: Path, found: Logdir) -> None:
    newest: dict[str, tuple[int, Path]] = {}
    count = 0
    for path in sorted(folder.glob("*.mp4")):
        match = DREAM.fullmatch(path.name)
        if match and path.is_file():
            count += 1
            kind = path.name[: match.start(3)]
            now = int(match[3]), path
            newest[kind] = max(now, newest.get(kind, now))
    # What happened is to be seen before what never did.
    kinds = sorted(newest, reverse=True)
    found.dreams = {newest[x][1]: newest[x][0] for x in kinds}
    found.older = count - len(newest)


def _checkpoints(folder: Path) -> Iterator[Checkpoint]:
    for path in folder.glob("*"):
        if re.fullmatch(r"\d{1,18}", path.name) and path.is_dir():
            try:
                files = [x.stat() for x in path.iterdir() if x.is_file()]
                made = path.stat().st_mtime
            except FileNotFoundError:
                continue  # a training run has replaced it just now
            yield Checkpoint(
                int(path.name),
                sum(x.st_size for x in files),
                status.time_text(made),
            )
