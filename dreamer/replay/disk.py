"""Replay on disk: immutable chunk files with checksums.

The steps of each environment are cut every `CHUNK` steps of its time. A file
holds one chunk of one environment: its arrays one after the other, in the
order of their names, each as `np.save` writes it. Files are never changed,
and every one gets a new name, so each manifest of the past stays loadable
for as long as its files are kept. What a manifest lists exists in full: a
file is written under a temporary name, synced, then renamed.

A complete chunk of observations is written once. Latents are rewritten when
training refreshed them, which is why they live in files of their own.
"""

import dataclasses
import io
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.replay.ring import Arrays, Ring

CHUNK = 1024
_TEMPORARY = ".tmp"
_OURS = re.compile(r"(fields|latents)-\d+-\d+-\d+-[0-9a-f]{32}\.chunk(\.tmp)?")


@dataclasses.dataclass(frozen=True)
class ChunkFile:
    """One file: steps [start, stop) of one environment, and its checksum."""

    name: str
    env: int
    start: int
    stop: int
    bytes: int
    crc32: int


class Chunks:
    """The files of one ring: what is on disk already and what is stale.

    Attributes:
      kind: "fields" or "latents"; begins the names of the files.
      ring: The ring that is saved and loaded.
    """

    def __init__(self, kind: str, ring: Ring) -> None:
        self.kind = kind
        self.ring = ring
        self._files: dict[tuple[int, int], ChunkFile] = {}
        self._stale: set[tuple[int, int]] = set()

    def touch(self, env: int, start: int, stop: int) -> None:
        """Notes that steps [start, stop), maybe saved before, changed."""
        for chunk in range(start // CHUNK, -(-stop // CHUNK)):
            self._stale.add((env, chunk))

    def save(
        self, directory: Path, oldest: int, time: int
    ) -> list[dict[str, Any]]:
        """Writes what `directory` lacks of steps [oldest, time).

        Returns:
          One JSON-able entry for each file that these steps are in.
        """
        files = {}
        for key, start, stop in self._spans(oldest, time):
            file = self._files.get(key)
            if (
                file is None
                or key in self._stale
                or not (file.start <= start and stop <= file.stop)
                or not _present(directory, file)
            ):
                file = self._write(directory, key[0], start, stop)
                # Now, lest an error in a later file forget this one.
                self._files[key] = file
                self._stale.discard(key)
            files[key] = file
        self._files = files
        self._stale &= files.keys()
        return [dataclasses.asdict(file) for file in files.values()]

    def load(
        self,
        directory: Path,
        entries: Iterable[Mapping[str, Any]],
        oldest: int,
        time: int,
    ) -> None:
        """Fills the ring with steps [oldest, time) from the listed files.

        Raises:
          ValueError: A file is missing, truncated or damaged.
        """
        files = _by_chunk(entries)
        for key, start, stop in self._spans(oldest, time):
            file = files.get(key)
            if file is None or file.start > start or file.stop < stop:
                raise ValueError(
                    f"{directory}: no {self.kind} file is listed for steps"
                    f" {start} to {stop} of environment {key[0]}"
                )
            values = self._read(directory / file.name, file)
            kept = slice(start - file.start, stop - file.start)
            kept_values = {name: x[kept] for name, x in values.items()}
            self.ring.write(file.env, start, kept_values)

    def adopt(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Lets later saves build on the files that were just loaded."""
        self._files = _by_chunk(entries)

    def _spans(
        self, oldest: int, time: int
    ) -> Iterable[tuple[tuple[int, int], int, int]]:
        """Yields ((env, chunk), start, stop) of what is to be on disk."""
        for env in range(self.ring.envs):
            for chunk in range(oldest // CHUNK, -(-time // CHUNK)):
                start = max(chunk * CHUNK, oldest)
                stop = min((chunk + 1) * CHUNK, time)
                yield (env, chunk), start, stop

    def _write(
        self, directory: Path, env: int, start: int, stop: int
    ) -> ChunkFile:
        values = self.ring.take(np.int64(env), np.arange(start, stop))
        buffer = io.BytesIO()
        for name in sorted(self.ring.arrays):
            stored = values[name].view(self.ring.arrays[name].dtype)
            np.save(buffer, stored, allow_pickle=False)
        content = buffer.getbuffer()
        name = f"{self.kind}-{env}-{start}-{stop}-{uuid.uuid4().hex}.chunk"
        _write_file(directory / name, content)
        crc32 = zlib.crc32(content)
        return ChunkFile(name, env, start, stop, len(content), crc32)

    def _read(self, path: Path, file: ChunkFile) -> Arrays:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{path}: cannot read replay chunk ({error.strerror})"
            ) from error
        if len(content) != file.bytes:
            raise ValueError(
                f"{path}: replay chunk is truncated or damaged, has"
                f" {len(content)} bytes of {file.bytes}"
            )
        if zlib.crc32(content) != file.crc32:
            raise ValueError(
                f"{path}: replay chunk is damaged, its checksum is"
                f" {zlib.crc32(content):08x} in place of {file.crc32:08x}"
            )
        buffer = io.BytesIO(content)
        return {
            name: np.load(buffer, allow_pickle=False)
            for name in sorted(self.ring.arrays)
        }


def collect_garbage(
    directory: Path, manifests: Iterable[Mapping[str, Any]]
) -> list[Path]:
    """Removes chunk files that no manifest lists, and returns their paths.

    Args:
      directory: Where `Replay.save` wrote. Files of other names than it
        gives are left alone. No save may be running.
      manifests: Everything that is to stay loadable.
    """
    listed = {
        entry["name"]
        for manifest in manifests
        for entries in manifest["files"].values()
        for entry in entries
    }
    removed = []
    for path in sorted(directory.iterdir()):
        if _OURS.fullmatch(path.name) and path.name not in listed:
            path.unlink()
            removed.append(path)
    return removed


def sync_directory(directory: Path) -> None:
    """Makes the renames in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _by_chunk(
    entries: Iterable[Mapping[str, Any]],
) -> dict[tuple[int, int], ChunkFile]:
    files = [ChunkFile(**entry) for entry in entries]
    return {(file.env, file.start // CHUNK): file for file in files}


def _present(directory: Path, file: ChunkFile) -> bool:
    # No two files ever share a name, so that in another directory, or after
    # a clean-up, the name is either absent or means the same content.
    try:
        return (directory / file.name).stat().st_size == file.bytes
    except OSError:
        return False


def _write_file(path: Path, content: memoryview) -> None:
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk is not made fuller
        raise
