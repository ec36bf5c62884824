"""Replay: draws windows of past steps, gathers batches, refreshes latents.

Paper: "Mastering diverse control tasks through world models"
(arXiv 2301.04104v2). Batches mix an online queue, so that all new steps are
trained on soon, but for the context of each window, with uniform draws. The
latent states (`deter`, `stoch`) of acting are stored with the steps; a batch
starts from a stored latent, and training writes fresh ones back.

Shapes: N environments, K context steps, T trained steps, B windows a batch.
A window is K + T consecutive steps of one environment and may cross episode
borders. Read `ring.py`, `guard.py` and `online.py` before, `disk.py` after
this file.

Threads: one thread calls `add`, `draw`, `look`, `snapshot`, `load`, `forget`
and `clear`; `gather` and `write_back` may run in others. Steps that were drawn
are not overwritten before their `gather` is over: `add` waits for it.
"""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.options import ConfigError
from dreamer.replay import memory
from dreamer.replay.background import Put
from dreamer.replay.disk import KINDS, Chunks
from dreamer.replay.files import Damaged, sync_directory
from dreamer.replay.guard import Guard, Positions
from dreamer.replay.manifest import Manifest, check_identity, identity
from dreamer.replay.online import OnlineQueue
from dreamer.replay.ring import Arrays, Ring, Spec, check_specs


class Replay:
    """The newest steps of N environments that step together.

    Args:
      fields: Shape and dtype of each thing that never changes once added;
        `is_first` and `is_last` (scalar bool) must be among them.
      latents: Shape and dtype, maybe bfloat16, of what `write_back`
        refreshes.
      envs: Number of environments N.
      capacity: Steps over all environments; oldest first out.
      context: Number of context steps K, at least 1.
      length: Number of trained steps T, at least 1.
      seed: Seed of the uniform draws.
      online: Whether each environment's stream, cut into consecutive windows
        that do not overlap, is served window by window before uniform draws.
      exact: Whether a snapshot saves latents again that were refreshed since
        the last one. If not, a complete chunk keeps those of its first save:
        older ones, from which windows start all the same.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        fields: Spec,
        latents: Spec,
        envs: int,
        capacity: int,
        context: int,
        length: int,
        seed: int,
        online: bool = True,
        exact: bool = True,
    ) -> None:
        self.envs = envs
        self.context = context
        self.length = length
        self.online = online
        self.exact = exact
        self._check_arguments(fields, latents, capacity)
        self.bytes_per_step = memory.bytes_per_step({**fields, **latents})
        self._window = context + length
        self._capacity = capacity // envs
        self._fields = Ring(fields, envs, self._capacity)
        self._latents = Ring(latents, envs, self._capacity)
        rings = (self._fields, self._latents)
        self._chunks = {
            kind: Chunks(kind, ring)
            for kind, ring in zip(KINDS, rings, strict=True)
        }
        self._time = 0  # of the next step to add
        self._first = 0  # of the first step ever held
        self._queue = OnlineQueue(envs, self._window)
        self._rng = np.random.Generator(np.random.PCG64(seed))
        # Its lock is held while counters, queue or latents change.
        self._guard = Guard()

    def __len__(self) -> int:
        """Steps held, over all environments."""
        return self.envs * (self._time - self._oldest)

    @property
    def capacity(self) -> int:
        """Steps held when full, over all environments."""
        return self.envs * self._capacity

    @property
    def latent_bytes(self) -> int:
        """Bytes that all latents take when it is full."""
        return self.capacity * memory.bytes_per_step(self._latents.spec)

    @property
    def windows(self) -> int:
        """Complete windows held, that is, start positions to draw from."""
        return self.envs * self._starts

    def add(self, step: Mapping[str, np.ndarray]) -> None:
        """Adds one step of every environment.

        Args:
          step: Fields and latents, all of them, each (N, ...) of its dtype.

        Raises:
          ValueError: A name is missing or unknown, or a shape or dtype is
            not the declared one. Nothing was added.
          RuntimeError: Windows that this step would overwrite were drawn
            and then not gathered.
        """
        fields = self._fields.checked(step, (self.envs,))
        latents = self._latents.checked(step, (self.envs,))
        if len(step) != len(fields) + len(latents):
            unknown = sorted(step.keys() - fields.keys() - latents.keys())
            raise ValueError(f"replay has no field {unknown[0]}")
        with self._guard.lock:
            if self._time >= self._capacity:
                self._guard.wait(self._time - self._capacity)
            self._fields.put(self._time, fields)
            self._latents.put(self._time, latents)
            self._time += 1
            if self.online:
                self._queue.step(self._time)
            self._queue.drop_before(self._oldest)

    def batch_spec(self, batch_size: int) -> Spec:
        """Shape and dtype of everything that `gather` returns."""
        window = (batch_size, self._window)
        fields = {
            name: ((*window, *shape), dtype)
            for name, (shape, dtype) in self._fields.spec.items()
        }
        latents = {
            name: ((batch_size, *shape), dtype)
            for name, (shape, dtype) in self._latents.spec.items()
        }
        return fields | latents

    def draw(self, batch_size: int) -> Positions:
        """Chooses windows: queued ones first, then uniformly with repeats.

        The windows stay intact until `gather` returns them, which it must:
        `add` waits for it.

        Raises:
          ValueError: No complete window is held.
        """
        with self._guard.lock:
            if not self._starts:
                raise ValueError(
                    f"replay holds {len(self) // self.envs} steps per"
                    f" environment; a batch needs {self._window}"
                )
            queued = self._queue.take(batch_size)
            online = np.array(queued, np.int64).reshape(-1, 2)
            uniform = self._uniform(batch_size - len(queued), self._rng)
            positions = Positions(
                np.concatenate([online[:, 0], uniform.env]),
                np.concatenate([online[:, 1], uniform.start]),
            )
            self._guard.reserve(positions)
        return positions

    def look(self, count: int, rng: np.random.Generator) -> Arrays:
        """Uniform windows by the caller's random numbers, as `gather` does.

        Leaves no trace: what is drawn later is the same without it. For the
        thread that adds, which must hold a complete window.
        """
        return self.gather(self._uniform(count, rng))

    def gather(self, positions: Positions) -> Arrays:
        """Copies windows into a batch; safe beside `add` in other threads.

        `is_first` is true at the first step of every window. Where the next
        step of the window begins an episode, `is_last` is true, even if the
        episode was abandoned without one.

        Returns:
          Every field as (B, K + T, ...) and every latent, as it stands now,
          of context step K - 1 as (B, ...), in newly allocated arrays.

        Raises:
          ValueError: The windows were gathered before, and have been
            overwritten since.
        """
        with self._guard.lock:
            self._guard.begin(positions, self._oldest)
        try:
            times = positions.start[:, None] + np.arange(self._window)
            batch = self._fields.take(positions.env[:, None], times)
            carry = positions.start + self.context - 1
            with self._guard.lock:  # a write-back may not come between
                batch |= self._latents.take(positions.env, carry)
        finally:
            self._guard.end(positions)
        batch["is_first"][:, 0] = True
        batch["is_last"][:, :-1] |= batch["is_first"][:, 1:]
        return batch

    def write_back(
        self, positions: Positions, latents: Mapping[str, np.ndarray]
    ) -> None:
        """Replaces the latents of the T trained steps of each window.

        Steps that have been overwritten by newer ones are skipped.

        Args:
          positions: Windows that `draw` returned.
          latents: Arrays (B, T, ...) of every latent.

        Raises:
          ValueError: A latent is missing or of another shape or dtype.
        """
        lead = (len(positions.env), self.length)
        values = self._latents.checked(latents, lead)
        with self._guard.lock:
            for row, (env, start) in enumerate(
                zip(positions.env, positions.start, strict=True)
            ):
                first = int(start) + self.context
                stop = first + self.length
                kept = max(first, self._oldest)
                if kept >= stop:
                    continue
                fresh = {k: v[row, kept - first :] for k, v in values.items()}
                self._latents.write(int(env), kept, fresh)
                if self.exact:
                    self._chunks["latents"].touch(int(env), kept, stop)

    def snapshot(
        self, directory: Path, put: Put
    ) -> Callable[[], dict[str, Any]]:
        """Copies what changed since the last snapshot.

        The replay may go on at once. What could not be written is part of
        the next snapshot again.

        Args:
          directory: Folder that gets the files; it must exist.
          put: Function that takes one part after the other and writes it,
            maybe later.

        Returns:
          A function that gives the manifest, JSON-able: everything that
          `load` needs to continue from here, exactly if the replay is
          `exact`. It waits for the files and raises what writing them raised
          (OSError). Draws that are not gathered yet are not part of it.
        """
        with self._guard.lock:
            span = (self._oldest, self._time)
            queue, rng = list(self._queue), copy.deepcopy(self._rng)
            files = {
                kind: chunks.snapshot(directory, put, *span)
                for kind, chunks in self._chunks.items()
            }

        def manifest() -> dict[str, Any]:
            written = {
                kind: [future.result() for future in futures]
                for kind, futures in files.items()
            }
            sync_directory(directory)
            saved = Manifest(*span, queue, rng, written)
            return self._identity() | saved.to_json()

        return manifest

    def load(
        self,
        directory: Path,
        manifest: Mapping[str, Any],
        salvage: bool = False,
    ) -> int:
        """Continues exactly where the replay that was saved stood.

        The capacity may differ as long as the saved steps fit.

        Args:
          directory: Folder of the files.
          manifest: Manifest of the saved replay; any JSON is safe.
          salvage: Whether to go on where files are damaged, with the steps
            after them and without what is older, of all environments.

        Returns:
          How many steps are lost.

        Raises:
          ConfigError: The saved replay is of another make, or does not fit.
          ValueError: This replay is not empty.
          Damaged: A file or the manifest is. The replay is still empty.
        """
        if self._time:
            raise ValueError("replay must be empty to load into it")
        check_identity(manifest, self._identity())
        saved = Manifest.parse(manifest, self.envs, self._window)
        steps = (saved.time - saved.oldest) * self.envs
        if steps > self.capacity:
            raise ConfigError(
                f"replay capacity {self.capacity} is less than the {steps}"
                " steps saved"
            )
        with self._guard.lock:
            damage: dict[int, Damaged] = {}
            for kind, chunks in self._chunks.items():
                span = (saved.oldest, saved.time)
                damage |= chunks.load(directory, saved.files[kind], *span)
            if damage and not salvage:
                raise damage[max(damage)]
            first = max(damage, default=saved.oldest)
            for kind, chunks in self._chunks.items():
                chunks.adopt(saved.files[kind])
            self._first, self._time = first, saved.time
            self._queue.restore(x for x in saved.queue if x[1] >= first)
            self._rng = saved.rng
        return (first - saved.oldest) * self.envs

    def forget(self, steps: int) -> None:
        """Drops the oldest steps, of all environments together."""
        with self._guard.lock:
            first = self._oldest + steps // self.envs
            self._first = min(first, self._time)
            self._queue.drop_before(self._first)

    def clear(self) -> None:
        """Empties it, for another `load`; no window may be drawn."""
        with self._guard.lock:
            self._first = self._time = 0
            self._queue.clear()
            for chunks in self._chunks.values():
                chunks.adopt([])

    @property
    def _oldest(self) -> int:
        """Time of the oldest step held."""
        return max(self._first, self._time - self._capacity)

    @property
    def _starts(self) -> int:
        """Complete windows held of one environment."""
        return max(0, self._time - self._oldest - self._window + 1)

    def _uniform(self, count: int, rng: np.random.Generator) -> Positions:
        """Any of the windows, with repeats."""
        env, start = np.divmod(
            rng.integers(0, self.windows, count), self._starts
        )
        return Positions(env, start + self._oldest)

    def _identity(self) -> dict[str, Any]:
        """What a saved replay must have in common with one that loads it."""
        keys = ("envs", "context", "length", "online")
        arguments = {key: getattr(self, key) for key in keys}
        return identity(arguments, self._fields.spec, self._latents.spec)

    def _check_arguments(
        self, fields: Spec, latents: Spec, capacity: int
    ) -> None:
        least = {"envs": 1, "context": 1, "length": 1}
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ValueError(
                    f"replay {key}={getattr(self, key)} must be >= {value}"
                )
        needed = self.envs * (self.context + self.length)
        if capacity < needed:
            raise ValueError(
                f"replay capacity={capacity} must be >= {needed}, one window"
                f" for each of {self.envs} environments"
            )
        check_specs(fields, latents)
