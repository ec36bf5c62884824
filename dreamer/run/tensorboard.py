"""Rows and films as events that TensorBoard shows.

Next: append.py, which brings them to disk; logger.py, which writes here.
"""

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamer.run.append import AppendedFile

EVENTS = "events.out.tfevents"  # what TensorBoard looks for


class TensorBoard:
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
        """What an earlier start logged after `frames` is to be forgotten."""
        self._after = frames

    def write(self, frames: int, row: Mapping[str, float]) -> None:
        """A row of metrics."""
        values = [dict(tag=k, simple_value=v) for k, v in row.items()]
        self._write(frames, values)

    def image(self, frames: int, tag: str, gif: bytes) -> None:
        """A film, as a GIF."""
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


def end_of_events(path: Path, frames: int) -> int:
    """Bytes of an event file before the first row that is after `frames`.

    TensorBoard's own ways to hide such rows differ: one reader goes by the
    start of a session, another hides what is not before the next new row.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    start, size = 0, path.stat().st_size
    with path.open("rb") as stream:  # films make it too large for memory
        while length := int.from_bytes(stream.read(8), "little"):
            end = start + 8 + 4 + length + 4  # checksums after each
            if end > size:
                break  # torn: readers go no further either
            stream.seek(start + 12)
            try:
                event = Event.FromString(stream.read(length))
            except DecodeError:
                break
            if event.HasField("summary") and event.step > frames:
                return start
            start = stream.seek(end)
    return size
