"""Metrics on disk: JSON lines, TensorBoard events and, by flag, W&B.

`metrics.jsonl` and `scores.jsonl` have the form of the authors' public code:
one object per line, `step` counting frames, the other keys being metric names
such as `train/loss/dyn` or `episode/score`. Tools that read those files read
these. What is written when: state.py; on screen: progress.py. Next:
tensorboard.py and wandb_run.py.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dreamer.config import Config
from dreamer.options import ConfigError
from dreamer.run.append import AppendedFile
from dreamer.run.tensorboard import EVENTS, TensorBoard, end_of_events
from dreamer.run.wandb_run import WandB

METRICS = "metrics.jsonl"
SCORES = "scores.jsonl"


class Logger:
    """Writes metrics of one run; an existing logdir is continued.

    Once built, it raises OSError in `truncate_after` alone: a run outlives a
    full disk. Rows that cannot be written wait in memory, and are written in
    their order when a later call finds the disk working again.

    Args:
        logdir: the run's folder, made if missing.
        config: the run's settings, which W&B shows.
        outputs: any of `jsonl`, `tensorboard`, `wandb`. Unknown ones are
            refused by `dreamer.config`.

    Raises:
        OSError: the logdir cannot be made.
    """

    def __init__(
        self, logdir: Path, config: Config, outputs: Sequence[str]
    ) -> None:
        self._logdir = logdir
        logdir.mkdir(parents=True, exist_ok=True)
        self._wandb = WandB(logdir, config) if "wandb" in outputs else None
        # Scores are the run's result and are kept whatever the outputs.
        self._scores = _JSONLines(logdir / SCORES)
        self._metrics: list[_JSONLines | TensorBoard] = []
        if "jsonl" in outputs:
            self._metrics.append(_JSONLines(logdir / METRICS))
        if "tensorboard" in outputs:
            self._metrics.append(TensorBoard(logdir))
        self._files = [x.file for x in (*self._metrics, self._scores)]

    @property
    def error(self) -> OSError | None:
        """Why rows are waiting to be written; None if none is."""
        return next((x.error for x in self._files if x.error), None)

    def scalars(self, frames: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics at a number of frames. Values: anything `float` takes.

        A device array is waited for and copied here.
        """
        if not metrics:
            return
        row = {name: float(value) for name, value in metrics.items()}
        for output in self._metrics:
            output.write(frames, row)
        if self._wandb is not None:
            self._wandb.write(frames, row)

    def episode(self, frames: int, score: float, length: int) -> None:
        """Logs an episode that ended: its score, its length in policy steps.

        The score is the sum of rewards as the environment gave them.
        """
        self._scores.write(frames, {"episode/score": float(score)})
        metrics = {"episode/score": score, "episode/length": length}
        self.scalars(frames, metrics)

    def video(self, frames: int, tag: str, path: Path, gif: bytes) -> None:
        """Logs a film that is in the logdir.

        Args:
            frames: when it was made; may be earlier than the newest row.
            tag: its name, such as `report/openloop/image`.
            path: of the file, which W&B takes a copy of.
            gif: the same or a part of it, which TensorBoard shows.
        """
        for output in self._metrics:
            if isinstance(output, TensorBoard):
                output.image(frames, tag, gif)
        if self._wandb is not None:
            self._wandb.video(frames, tag, path)

    def truncate_after(self, frames: int) -> None:
        """Drops what was logged later than `frames`, and makes the files.

        A run that continues from a checkpoint at `frames` logs what follows
        anew; without this, its files would hold those rows twice. Call it
        before anything is logged. Files are shortened where they are: that
        needs no space, and a kill leaves each of them as it was or done.

        Raises:
            ConfigError: see `kept_bytes`; nothing has been changed.
            OSError: a file cannot be written.
        """
        for path, size in kept_bytes(self._logdir, frames).items():
            if path.stat().st_size > size:
                with path.open("r+b") as file:
                    file.truncate(size)
                    os.fsync(file.fileno())
        for output in (*self._metrics, self._scores):
            output.begin(frames)

    def flush(self) -> None:
        """Tries again to write what waits; other rows are written already."""
        for file in self._files:
            file.flush()

    def sync(self) -> None:
        """Makes what was logged outlast a power cut, if the disk works.

        Called before a checkpoint, so that none counts on a missing row.
        """
        for file in self._files:
            file.sync()

    def close(self) -> None:
        """Syncs and closes every output. `error` says why rows are lost."""
        for file in self._files:
            file.close()
        if self._wandb is not None:
            self._wandb.close()


class _JSONLines:
    """A file of JSON lines.

    JSON has no NaN or infinity and strict readers reject a file with them,
    so they are written as null, which pandas reads back as NaN.
    """

    def __init__(self, path: Path) -> None:
        self.file = AppendedFile(path)

    def begin(self, frames: int) -> None:
        self.file.open()  # whoever may not write here hears of it now

    def write(self, frames: int, row: Mapping[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
        line = json.dumps({"step": int(frames), **finite}, allow_nan=False)
        self.file.append(line.encode() + b"\n")


def kept_bytes(logdir: Path, frames: int) -> dict[Path, int]:
    """How much of each log a run keeps that goes on at `frames`.

    Looks and changes nothing. All logs are meant, those too that this run
    does not write: a later one may go on with them.

    Raises:
        ConfigError: a file holds something else than rows like ours.
        OSError: a file cannot be read.
    """
    rows = [logdir / name for name in (METRICS, SCORES)]
    kept = {x: _end_of_rows(x, frames) for x in rows if x.exists()}
    for path in logdir.glob(f"{EVENTS}.*"):
        kept[path] = end_of_events(path, frames)
    return kept


def _end_of_rows(path: Path, frames: int) -> int:
    """Bytes of JSON lines up to the last row that is not after `frames`."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        line = content[start:end]
        if b"\0" not in line:  # as a power cut leaves what was not synced
            try:
                later = json.loads(line)["step"] > frames
            except (ValueError, KeyError, TypeError, RecursionError):
                number = content.count(b"\n", 0, start) + 1
                raise ConfigError(
                    f"{path}: line {number} is damaged, expected JSON with a"
                    " step in it"
                ) from None
            if not later:
                break
        end = start
    return end
