"""Metrics on disk: JSON lines, TensorBoard events and, by flag, W&B.

`metrics.jsonl` and `scores.jsonl` have the form of the authors' public code:
one object per line, `step` counting frames, the other keys being metric names
such as `train/loss/dyn` or `episode/score`. Tools that read those files read
these. What is written when: state.py; on screen: progress.py.
"""

import dataclasses
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamer.config import Config, ConfigError

METRICS = "metrics.jsonl"
SCORES = "scores.jsonl"


class Logger:
    """Writes metrics of one run; an existing logdir is continued.

    Args:
        logdir: the run's folder, made if missing.
        config: the run's settings, which W&B shows.
        outputs: any of `jsonl`, `tensorboard`, `wandb`. Unknown ones are
            refused by `dreamer.config`.

    Raises:
        ConfigError: `wandb` is asked for and not installed.
    """

    def __init__(
        self, logdir: Path, config: Config, outputs: Sequence[str]
    ) -> None:
        self._sinks: list[_JSONLines | _TensorBoard | _WandB] = []
        # First, so that a missing package is noticed before files are made.
        if "wandb" in outputs:
            self._sinks.append(_WandB(logdir, config))
        logdir.mkdir(parents=True, exist_ok=True)
        if "jsonl" in outputs:
            self._sinks.append(_JSONLines(logdir / METRICS))
        if "tensorboard" in outputs:
            self._sinks.append(_TensorBoard(logdir))
        # Scores are the run's result and are kept whatever the outputs.
        self._scores = _JSONLines(logdir / SCORES)

    def scalars(self, frames: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics at a number of frames. Values: anything `float` takes.

        A device array is waited for and copied here.
        """
        if not metrics:
            return
        row = {name: float(value) for name, value in metrics.items()}
        for sink in self._sinks:
            sink.write(frames, row)

    def episode(self, frames: int, score: float, length: int) -> None:
        """Logs an episode that ended: its score, its length in policy steps.

        The score is the sum of rewards as the environment gave them.
        """
        self._scores.write(frames, {"episode/score": float(score)})
        metrics = {"episode/score": score, "episode/length": length}
        self.scalars(frames, metrics)

    def truncate_after(self, frames: int) -> None:
        """Drops what was logged later than `frames`.

        A run that continues from a checkpoint at `frames` logs what follows
        anew; without this, its files would hold those rows twice. Call it
        before anything is logged.
        """
        for sink in (*self._sinks, self._scores):
            sink.truncate_after(frames)

    def flush(self) -> None:
        """Hurries outputs that hold lines back; JSON lines never do."""
        for sink in (*self._sinks, self._scores):
            sink.flush()

    def close(self) -> None:
        """Flushes and closes every output."""
        for sink in (*self._sinks, self._scores):
            sink.close()


class _JSONLines:
    """A file of JSON lines, appended to one whole line at a time.

    Each line is one write to the operating system, so that a killed process
    leaves whole lines; one that a full disk or a power cut tore is removed
    when the file is opened next.

    JSON has no NaN or infinity and strict readers reject a file with them,
    so they are written as null, which pandas reads back as NaN.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        content = path.read_bytes()
        self._file.truncate(content.rfind(b"\n") + 1)

    def write(self, frames: int, row: Mapping[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
        line = json.dumps({"step": int(frames), **finite}, allow_nan=False)
        data = line.encode() + b"\n"
        written = self._file.write(data)
        if written != len(data):
            raise OSError(f"{self._path}: only part of a line was written")

    def truncate_after(self, frames: int) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True)
        try:
            kept = [x for x in lines if json.loads(x)["step"] <= frames]
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self._path}: expected lines of JSON with a step in each"
            ) from None
        if len(kept) == len(lines):
            return
        # Renamed into place: a kill leaves the old file or the new one.
        short = self._path.with_name(self._path.name + ".tmp")
        short.write_bytes(b"".join(kept))
        os.replace(short, self._path)
        self._file.close()
        self._file = self._path.open("ab", buffering=0)

    def flush(self) -> None:
        """Nothing is held back: every line has been written."""

    def close(self) -> None:
        self._file.close()


class _TensorBoard:
    """TensorBoard event files, by tensorboardX."""

    def __init__(self, logdir: Path) -> None:
        self._logdir = logdir
        self._purge_step: int | None = None
        # Made at the first write, when the purge step is known.
        self._lazy: Any = None

    @property
    def _writer(self) -> Any:
        if self._lazy is None:
            # Imported here: half a second that not every run needs.
            from tensorboardX import SummaryWriter

            # A thread writes; the queue is longer than one row of metrics.
            self._lazy = SummaryWriter(
                str(self._logdir),
                purge_step=self._purge_step,
                max_queue=1000,
                flush_secs=10,
            )
        return self._lazy

    def write(self, frames: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, int(frames))

    def truncate_after(self, frames: int) -> None:
        # TensorBoard itself hides earlier files' events from this step on.
        self._purge_step = int(frames) + 1

    def flush(self) -> None:
        if self._lazy is not None:
            self._lazy.flush()

    def close(self) -> None:
        if self._lazy is not None:
            self._lazy.close()


class _WandB:
    """Weights & Biases, one W&B run per logdir."""

    def __init__(self, logdir: Path, config: Config) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigError(
                "logger.outputs: wandb is not installed: pip install wandb"
            ) from None
        logdir.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project="dreamer",
            name=logdir.name,
            id=self._identity(logdir),
            resume="allow",
            dir=str(logdir),
            config=dataclasses.asdict(config),
        )

    @staticmethod
    def _identity(logdir: Path) -> str:
        """The W&B run that this logdir continues, or a new one."""
        path = logdir / "wandb_id.txt"
        if not path.exists():
            path.write_text(secrets.token_hex(4) + "\n")
        return path.read_text().strip()

    def write(self, frames: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=int(frames))

    def truncate_after(self, frames: int) -> None:
        """W&B itself ignores steps that it has already seen."""

    def flush(self) -> None:
        """W&B sends in its own time."""

    def close(self) -> None:
        self._run.finish()
