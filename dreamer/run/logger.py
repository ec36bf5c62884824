"""Metrics on disk: JSON lines, TensorBoard events and, by flag, W&B.

`metrics.jsonl` and `scores.jsonl` have the form of the authors' public code:
one object per line, `step` counting frames, the other keys being metric names
such as `train/loss/dyn` or `episode/score`. Tools that read those files read
these. What is written when: state.py; on screen: progress.py.
"""

import contextlib
import dataclasses
import json
import math
import os
import secrets
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamer.config import Config, ConfigError
from dreamer.options import one_line
from dreamer.run.append import AppendedFile
from dreamer.whole import write_whole

METRICS = "metrics.jsonl"
SCORES = "scores.jsonl"
EVENTS = "events.out.tfevents"  # what TensorBoard looks for


def check_outputs(outputs: Sequence[str]) -> None:
    """Sees, before any file is made, that the packages are there.

    Raises:
        ConfigError: `wandb` is asked for and not installed.
    """
    if "wandb" in outputs:
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise ConfigError(
                "logger.outputs: wandb is not installed: pip install wandb"
            ) from None


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
        ConfigError: `wandb` is asked for and not installed.
        OSError: the logdir cannot be made.
    """

    def __init__(
        self, logdir: Path, config: Config, outputs: Sequence[str]
    ) -> None:
        self._logdir = logdir
        # First, so that a missing package is noticed before files are made.
        self._wandb = _WandB(logdir, config) if "wandb" in outputs else None
        logdir.mkdir(parents=True, exist_ok=True)
        # Scores are the run's result and are kept whatever the outputs.
        self._scores = _JSONLines(logdir / SCORES)
        self._metrics: list[_JSONLines | _TensorBoard] = []
        if "jsonl" in outputs:
            self._metrics.append(_JSONLines(logdir / METRICS))
        if "tensorboard" in outputs:
            self._metrics.append(_TensorBoard(logdir))
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
            if isinstance(output, _TensorBoard):
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
            ValueError: see `kept_bytes`; nothing has been changed.
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


class _TensorBoard:
    """An event file for TensorBoard, a new one at every start of a run.

    Only the format is taken from tensorboardX. Its writer has a thread that
    dies on a full disk; what is logged then blocks sooner or later.
    """

    def __init__(self, logdir: Path) -> None:
        # Readers go by the order of the names, whatever the clocks say.
        parts = [path.name.split(".") for path in logdir.glob(f"{EVENTS}.*")]
        old = [int(part[3]) for part in parts if part[3].isdecimal()]
        seconds = max(int(time.time()), 1 + max(old, default=0))
        name = f"{EVENTS}.{seconds:010d}.{socket.gethostname()}"
        self.file = AppendedFile(logdir / name)
        self._after: int | None = None
        self._begun = False

    def begin(self, frames: int) -> None:
        self._after = frames

    def write(self, frames: int, row: Mapping[str, float]) -> None:
        values = [dict(tag=k, simple_value=v) for k, v in row.items()]
        self._write(frames, values)

    def image(self, frames: int, tag: str, gif: bytes) -> None:
        width, height = struct.unpack_from("<HH", gif, 6)
        image = dict(
            height=height,
            width=width,
            colorspace=3,  # RGB
            encoded_image_string=gif,
        )
        self._write(frames, [dict(tag=tag, image=image)])

    def _write(self, frames: int, values: list[dict[str, Any]]) -> None:
        # Imported here: half a second that not every run needs.
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        if not self._begun:
            self._begun = True
            self._append(file_version="brain.Event:2")
            if self._after is not None:
                # A TensorBoard that is open forgets what was cut off.
                start = SessionLog(status=SessionLog.START)
                self._append(step=self._after + 1, session_log=start)
        self._append(step=int(frames), summary=Summary(value=values))

    def _append(self, **what: Any) -> None:
        """Appends an event, framed as TensorFlow's records are."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        data = Event(wall_time=time.time(), **what).SerializeToString()
        length = struct.pack("<Q", len(data))
        checks = [struct.pack("<I", masked_crc32c(x)) for x in (length, data)]
        self.file.append(length + checks[0] + data + checks[1])


def kept_bytes(logdir: Path, frames: int) -> dict[Path, int]:
    """How much of each log a run keeps that goes on at `frames`.

    Looks and changes nothing. All logs are meant, those too that this run
    does not write: a later one may go on with them.

    Raises:
        ValueError: a file holds something else than rows like ours.
        OSError: a file cannot be read.
    """
    rows = [logdir / name for name in (METRICS, SCORES)]
    kept = {x: _end_of_rows(x, frames) for x in rows if x.exists()}
    for path in logdir.glob(f"{EVENTS}.*"):
        kept[path] = _end_of_events(path, frames)
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
                raise ValueError(
                    f"{path}: line {number} is damaged, expected JSON with a"
                    " step in it"
                ) from None
            if not later:
                break
        end = start
    return end


def _end_of_events(path: Path, frames: int) -> int:
    """Bytes of an event file before the first row that is after `frames`.

    TensorBoard's own ways to hide such rows differ: one reader goes by the
    start of a session, another hides what is not before the next new row.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    content = path.read_bytes()
    start = 0
    while length := int.from_bytes(content[start : start + 8], "little"):
        end = start + 8 + 4 + length + 4  # checksums after length and data
        if end > len(content):
            break  # torn: readers go no further either
        try:
            event = Event.FromString(content[start + 12 : end - 4])
        except DecodeError:
            break
        if event.HasField("summary") and event.step > frames:
            return start
        start = end
    return len(content)


class _WandB:
    """Weights & Biases, one W&B run per logdir."""

    def __init__(self, logdir: Path, config: Config) -> None:
        check_outputs(["wandb"])
        import wandb

        self._failed = False
        self._newest = 0
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
            write_whole(path, secrets.token_hex(4) + "\n")
        return path.read_text().strip()

    def write(self, frames: int, row: Mapping[str, float]) -> None:
        if self._failed:
            return
        # Steps that it has seen before are ignored by W&B itself.
        with self._unless_it_fails():
            self._run.log(dict(row), step=int(frames))
            self._newest = int(frames)

    def video(self, frames: int, tag: str, path: Path) -> None:
        if self._failed:
            return
        import wandb

        with self._unless_it_fails():
            film = wandb.Video(str(path), format=path.suffix[1:])
            # A film took time to make; it comes with the newest row.
            self._newest = max(int(frames), self._newest)
            self._run.log({tag: film}, step=self._newest)

    def close(self) -> None:
        told = contextlib.suppress(Exception)
        with told if self._failed else self._unless_it_fails():
            self._run.finish()

    @contextlib.contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        """Says that rows are missing in W&B, whatever it raises.

        The run goes on, and sends no more.
        """
        try:
            yield
        except Exception as error:
            self._failed = True
            reason = " ".join(str(error).split()) or repr(error)
            line = one_line(f"W&B lacks rows from now on: {reason}")
            print(line, file=sys.stderr)
