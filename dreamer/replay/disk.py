"""Replay on disk: immutable chunk files.

The steps of each environment are cut every `CHUNK` steps of its time. A file
holds one chunk of one environment, its arrays in the order of their names
(see files.py). Files are never changed, and every one gets a new name, so
each manifest of the past stays loadable for as long as its files are kept.

A complete chunk of observations is written once. Latents are rewritten when
training refreshed them, if the replay is to be exact, which is why they live
in files of their own. In a large replay that is soon all of them, each time:
82 GB for 5M steps at size200m. Read `manifest.py` next.
"""

import dataclasses
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from dreamer.replay.background import Put, done
from dreamer.replay.files import Damaged, file_size, read_arrays, write_arrays
from dreamer.replay.ring import Arrays, Ring, Spec
from dreamer.whole import TEMPORARY

CHUNK = 1024
KINDS = ("fields", "latents")
_READERS = 4  # files at a time; more gain nothing
_NAME = re.compile(
    rf"({'|'.join(KINDS)})-([0-9]+)-([0-9]+)-([0-9]+)-[0-9a-f]{{32}}\.chunk"
)
Key = tuple[int, int]  # environment, number of the chunk in its time


@dataclasses.dataclass(frozen=True)
class ChunkFile:
    """One file: steps [start, stop) of one environment, and its checksum."""

    name: str
    env: int
    start: int
    stop: int
    crc32: int

    @property
    def key(self) -> Key:
        """Which chunk it holds, or a part of it."""
        return self.env, self.start // CHUNK

    @classmethod
    def parse(cls, kind: str, name: str, crc32: Any) -> Self:
        """Reads a manifest's entry; the name tells the rest.

        Raises:
          Damaged: It names no file that a replay could have written, or one
            in another directory.
        """
        match = _NAME.fullmatch(name) if len(name) < 120 else None
        if match is None or match[1] != kind:
            raise Damaged(f"{name[:120]!r} is not a file of replay {kind}")
        env, start, stop = (int(number) for number in match.groups()[1:])
        if not (start < stop and start // CHUNK == (stop - 1) // CHUNK):
            raise Damaged(f"{name!r} names no steps of one chunk")
        return cls(name, env, start, stop, crc32)


class Chunks:
    """The files of one ring: what is on disk already and what is stale.

    Attributes:
      kind: The word "fields" or "latents", which begins names of files.
      ring: The ring that is saved and loaded.
    """

    def __init__(self, kind: str, ring: Ring) -> None:
        self.kind = kind
        self.ring = ring
        # Files of the newest snapshot. One that could not be written is as
        # good as none, and its chunk part of the next snapshot.
        self._files: dict[Key, Future[ChunkFile]] = {}
        self._stale: set[Key] = set()

    def touch(self, env: int, start: int, stop: int) -> None:
        """Notes that steps [start, stop), maybe saved before, changed."""
        for chunk in range(start // CHUNK, -(-stop // CHUNK)):
            self._stale.add((env, chunk))

    def snapshot(
        self, directory: Path, put: Put, oldest: int, time: int
    ) -> list[Future[ChunkFile]]:
        """Hands over what `directory` lacks of steps [oldest, time).

        Returns:
          Every file that these steps are in, once it is written.
        """
        files = {}
        for key, start, stop in self._spans(oldest, time):
            kept = self._files.get(key)
            if (
                kept is None
                or key in self._stale
                or not self._usable(directory, kept, start, stop)
            ):
                kept = self._hand_over(directory, put, key[0], start, stop)
                self._files[key] = kept
                # Now: a write-back that comes later makes it stale again.
                self._stale.discard(key)
            files[key] = kept
        self._files = files
        self._stale &= files.keys()
        return list(files.values())

    def load(
        self,
        directory: Path,
        files: Iterable[ChunkFile],
        oldest: int,
        time: int,
    ) -> dict[int, Damaged]:
        """Fills the ring with steps [oldest, time) from these files.

        Returns:
          What could not be read: the end of its steps, and why.
        """
        by_key = {file.key: file for file in files}
        read = partial(self._read, directory, by_key)
        damage = {}
        with ThreadPoolExecutor(_READERS) as readers:
            spans = list(self._spans(oldest, time))
            for span, error in zip(
                spans, readers.map(read, spans), strict=True
            ):
                if error is not None:
                    damage[span[2]] = error
        return damage

    def adopt(self, files: Iterable[ChunkFile]) -> None:
        """Lets later snapshots build on files that were just loaded."""
        self._files = {file.key: done(file) for file in files}

    def _spans(self, oldest: int, time: int) -> Iterator[tuple[Key, int, int]]:
        """Yields ((env, chunk), start, stop) of what is to be on disk."""
        for env in range(self.ring.envs):
            for chunk in range(oldest // CHUNK, -(-time // CHUNK)):
                start = max(chunk * CHUNK, oldest)
                stop = min((chunk + 1) * CHUNK, time)
                if start < stop:
                    yield (env, chunk), start, stop

    def _usable(
        self, directory: Path, future: Future[ChunkFile], start: int, stop: int
    ) -> bool:
        """Whether it was written, holds these steps and is still there."""
        if future.exception() is not None:
            return False
        file = future.result()
        if not (file.start <= start and stop <= file.stop):
            return False
        # No two files ever share a name, so that in another directory, or
        # after a clean-up, the name is absent or means the same content.
        try:
            size = (directory / file.name).stat().st_size
        except OSError:
            return False
        return size == file_size(self._spec(file.start, file.stop))

    def _hand_over(
        self, directory: Path, put: Put, env: int, start: int, stop: int
    ) -> Future[ChunkFile]:
        name = f"{self.kind}-{env}-{start}-{stop}-{uuid.uuid4().hex}.chunk"

        def take() -> Arrays:
            taken = self.ring.take(np.int64(env), np.arange(start, stop))
            return {name: taken[name] for name in sorted(taken)}

        def write(values: Arrays) -> ChunkFile:
            crc32 = write_arrays(directory / name, values)
            return ChunkFile(name, env, start, stop, crc32)

        return put(file_size(self._spec(start, stop)), take, write)

    def _read(
        self,
        directory: Path,
        files: Mapping[Key, ChunkFile],
        span: tuple[Key, int, int],
    ) -> Damaged | None:
        key, start, stop = span
        file = files.get(key)
        if file is None or file.start > start or file.stop < stop:
            return Damaged(
                f"{directory}: no {self.kind} file is listed for steps"
                f" {start} to {stop} of environment {key[0]}"
            )
        try:
            spec = self._spec(file.start, file.stop)
            values = read_arrays(directory / file.name, spec, file.crc32)
        except Damaged as error:
            return error
        bits = self.ring.checked(values, (file.stop - file.start,))
        kept = slice(start - file.start, stop - file.start)
        self.ring.write(key[0], start, {k: x[kept] for k, x in bits.items()})
        return None

    def _spec(self, start: int, stop: int) -> Spec:
        """What a file of these steps holds."""
        return {
            name: ((stop - start, *shape), dtype)
            for name, (shape, dtype) in sorted(self.ring.spec.items())
        }


def collect_garbage(directory: Path, names: set[str]) -> None:
    """Removes chunk files, whole or half.

    Args:
      directory: The folder of the chunk files, which nobody may be writing.
        Files of other names than those have are left alone.
      names: Names of the files that are to stay.
    """
    for path in sorted(directory.iterdir()):
        ours = _NAME.fullmatch(path.name.removesuffix(TEMPORARY))
        if ours and path.name not in names:
            path.unlink()
