"""A file that whole records are appended to, whatever the disk does.

Metrics (logger.py) and the history of starts (record.py) are written with
it: a full or read-only disk must neither end a run nor leave holes in them.
"""

import contextlib
import os
from io import FileIO
from pathlib import Path

from dreamer.replay.files import sync_directory

KEPT = 1000  # records in memory, above which the file is synced unasked


class AppendedFile:
    """Appends records in order, each of them whole or not at all.

    Each record is one write to the operating system, so that a killed
    process leaves whole ones. What the disk refuses stays in memory until
    the next call that writes; a part of a record that it took is cut off.
    Records are kept until `sync` has put them on disk, for some file systems
    (a quota over NFS) take records and say only then that they lost them.

    Only `open` raises OSError. Nothing touches the disk before it or the
    first record.

    Args:
        path: a file that is made when need be, in a folder that exists. One
            that is there goes on after its last whole line.

    Attributes:
        error: why records are waiting, or why a sync failed; None when the
            disk works.
    """

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._path = path
        self._file: FileIO | None = None
        self._safe: int | None = None  # bytes that are on disk to stay
        self._kept: list[bytes] = []  # records after these bytes
        self._written = 0  # how many of the kept ones are in the file

    def open(self) -> None:
        """Makes the file if need be and cuts off what a killed process tore.

        Raises:
            OSError: it cannot be written.
        """
        if self._safe is None:
            content = self._path.read_bytes() if self._path.exists() else b""
            self._safe = content.rfind(b"\n") + 1
        if self._file is None:
            self._file = FileIO(self._path, "a")
        size = os.fstat(self._file.fileno()).st_size
        if size < self._end:  # somebody removed it: what is kept goes on
            self._safe, self._written = min(size, self._safe), 0
        if size > self._end:
            self._file.truncate(self._end)

    def append(self, record: bytes) -> None:
        """Writes a record, after those that wait."""
        self._kept.append(record)
        self._try(sync=len(self._kept) > KEPT)

    def flush(self) -> None:
        """Tries again to write what waits."""
        self._try(sync=False)

    def sync(self) -> None:
        """Tries again, and has the disk keep it through a power cut."""
        self._try(sync=True)

    def close(self) -> None:
        """Syncs and closes. What still waits is lost; `error` says why."""
        self.sync()
        self._close()

    def _try(self, sync: bool) -> None:
        if not self._kept:
            return
        try:
            self._write()
            # After a failure only a sync shows that the disk works again.
            if sync or self.error is not None:
                self._sync()
            self.error = None
        except OSError as error:
            self.error = error

    def _write(self) -> None:
        try:
            self.open()
            while self._written < len(self._kept):
                rest = memoryview(self._kept[self._written])
                while rest:  # a full disk takes a part and then says so
                    rest = rest[self._file.write(rest) :]
                self._written += 1
        except OSError:
            self._close()
            raise

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
            if self._safe == 0:
                sync_directory(self._path.parent)  # the file may be new
        except OSError:
            self._close()
            self._written = 0  # nobody knows which of them are on disk
            raise
        self._safe = self._end
        self._kept.clear()
        self._written = 0

    def _close(self) -> None:
        """Closes the file, of whole records; the next try opens it anew."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_size > self._end:
                file.truncate(self._end)
        with contextlib.suppress(OSError):
            file.close()

    @property
    def _end(self) -> int:
        """Bytes of the file that are known to be whole records."""
        written = self._kept[: self._written]
        return self._safe + sum(len(record) for record in written)
