"""Gradient updates on replayed batches that are prepared in advance.

While the device computes update n, a thread gathers batch n + 1 and copies
it over, and the latents of update n - 1 travel back into the replay.  Nothing
here waits for the update that was just dispatched.  The order of draws and
write-backs is fixed by the order of calls, never by which thread is faster,
so that one seed gives one run, interrupted or not.  Next: agent/agent.py,
what an update computes; nonfinite.py, when it was not applied.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer.agent.agent import Agent, TrainState
from dreamer.agent.layout import on_host
from dreamer.agent.types import Batch, Metrics, Params
from dreamer.options import ConfigError
from dreamer.replay import Positions, Replay
from dreamer.replay.background import done
from dreamer.run import threads
from dreamer.run.nonfinite import NonFinite


class PendingUpdate(NamedTuple):
    """An update that was dispatched; whether it was applied is not known.

    `nonfinite: () float32`, 1 if it was not.
    """

    number: int
    positions: Positions
    batch: Batch
    latents: Batch
    nonfinite: jax.Array


class Learner:
    """Owns the train state and feeds it from the replay.

    An update that is not applied, because its numbers are not finite, counts
    as an update; its latents do not go back into the replay, its batch is
    saved (nonfinite.py), and too many of them in a row end the run.

    Args:
      agent: maker of the updates.
      state: train state to start from; donated to the first update.
      replay: source of batches, to which latents go back.
      batch_size: B; of several processes, what each of them contributes.
      key: PRNG key of all updates.
      logdir: folder for batches of updates that were not applied.
      nonfinite_limit: number of such updates in a row that ends the run.

    Attributes:
      updates: gradient updates so far.
      waited: seconds spent so far on batches that were not ready yet.
    """

    def __init__(
        self,
        agent: Agent,
        state: TrainState,
        replay: Replay,
        batch_size: int,
        key: jax.Array,
        logdir: Path,
        nonfinite_limit: int,
    ) -> None:
        self.agent = agent
        self.state = state
        self.replay = replay
        self.batch_size = batch_size
        self._layout = agent.layout
        self._key = self._layout.replicate_key(key)
        self._params: Params | None = None
        self.updates = int(state.updates)
        self.waited = 0.0
        self._nonfinite = NonFinite(logdir, nonfinite_limit)
        self._next: tuple[Positions, Future[Batch]] | None = None
        self._pending: PendingUpdate | None = None
        self._names: list[str] = []  # of metrics, in the order of their sums
        self._sums: jax.Array | None = None
        self._summed = 0
        self._add = jax.jit(_add_finite, donate_argnums=0)
        self._program: Future[Callable] = done(agent.update)

    @property
    def reports(self) -> list[str]:
        """A line for each update that was not applied; the caller clears."""
        return self._nonfinite.reports

    @property
    def params(self) -> Params:
        """Whole, on one device; invalid after the next update (donated)."""
        if self._params is None:
            self._params = self._layout.to_one_device(self.state.params)
        return self._params

    def whole_state(self) -> TrainState | None:
        """The train state, which process 0 can read; all ask together.

        The others get none.
        """
        leads = jax.process_index() == 0
        return self._layout.gather_to_host(self.state, keep=leads)

    def compile(self) -> None:
        """Compiles the update while the caller goes on with other things."""
        rows = self.batch_size * jax.process_count()
        spec = self.replay.batch_spec(rows)
        batch = {k: jax.ShapeDtypeStruct(*v) for k, v in spec.items()}
        # Shapes, because the state itself may be donated meanwhile.
        state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.state
        )
        self._program = threads.start_compiling(
            self.agent.update, state, batch, self._key
        )

    def ready(self, timeout: float) -> bool:
        """Whether `update` need not wait for a compiler.

        Waits for it, at most `timeout` seconds.  True as well if compiling
        has failed, which `update` tells.
        """
        return not wait([self._program], timeout).not_done

    def update(self) -> None:
        """Dispatches one update and prepares the next batch.

        Raises:
          Diverged: too many updates in a row, up to the one before this, were
            not applied.
          Exception: whatever went wrong in compiling or gathering, such as
            memory that is not there.
        """
        program = self._program.result()
        if self._next is None:
            self._prepare()
        positions, prepared = self._next
        before = time.perf_counter()
        batch = prepared.result()
        self.waited += time.perf_counter() - before
        self._params = None
        self.state, latents, metrics = program(self.state, batch, self._key)
        self.updates += 1
        self._remember(metrics)
        self._write_back()
        nonfinite = metrics["opt/nonfinite"]
        for result in (nonfinite, *latents.values()):
            result.copy_to_host_async()
        self._pending = PendingUpdate(
            self.updates, positions, batch, latents, nonfinite
        )
        self._prepare()
        # Checked only here, so that a checkpoint in between cannot change when
        # a run ends.
        self._nonfinite.check(self.updates - 1)

    def metrics(self) -> dict[str, float]:
        """Mean of every metric over the updates since the last call.

        Updates that were not applied are left out; `opt/nonfinite` is their
        number.  Waits for the device.  Empty if there was no update.
        """
        if not self._summed:
            return {}
        values = np.asarray(self._sums).tolist()
        sums = dict(zip(self._names, values, strict=True))
        nonfinite = sums["opt/nonfinite"]
        applied = self._summed - nonfinite
        means = {k: v / applied for k, v in sums.items()} if applied else {}
        means["opt/updates"] = self.updates  # counts, not means
        means["opt/nonfinite"] = nonfinite
        self._sums, self._summed = None, 0
        return means

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` needs beside the train state and the replay.

        The batch that is drawn and not used yet, where it came from, the
        number of updates in a row that were not applied, and the sums that
        `metrics` would turn into means.

        Also brings the replay's latents up to date, so call it before the
        replay is saved.  After a batch has been gathered nothing reads
        latents until they would have been written anyway, so doing it now
        changes nothing for the run.
        """
        arrays = {}
        if self._next is not None:
            positions, prepared = self._next
            arrays = _flat(prepared.result(), positions)
            self._write_back()
        arrays["nonfinite"] = np.asarray(self._nonfinite.in_row)
        if self._sums is not None:
            arrays["summed"] = np.asarray(self._summed)
            # A copy, because the next update takes the memory of the sums.
            names = (f"sums/{name}" for name in self._names)
            arrays |= zip(names, np.array(self._sums), strict=True)
        return {k: np.asarray(v) for k, v in arrays.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes on where another learner stood when `arrays` was called.

        Args:
          arrays: dict that `arrays()` of that learner returned, whose state
            and replay of that time this one was given; empty if there is
            nothing to restore.

        Raises:
          ConfigError: the batch is not of the shape that this run needs.
        """
        self._nonfinite.in_row = int(arrays.get("nonfinite", 0))
        if "summed" in arrays:
            self._summed = int(arrays["summed"])
            sums = _under("sums/", arrays)
            self._names = sorted(sums)
            values = np.array([sums[name] for name in self._names], np.float32)
            self._sums = self._layout.replicate(values)
        batch = _under("batch/", arrays)
        if not batch:
            return
        spec = self.replay.batch_spec(self.batch_size)
        saved = {k: (v.shape, v.dtype) for k, v in batch.items()}
        places = {np.shape(arrays.get(k)) for k in ("env", "start")}
        if saved != spec or places != {(self.batch_size,)}:
            raise ConfigError(
                f"the batch in the checkpoint has {saved}, expected {spec}"
            )
        positions = Positions(arrays["env"], arrays["start"])
        self._next = (positions, done(self._layout.shard_batch(batch)))

    def close(self) -> None:
        """Waits for the batch that is being gathered; not for a compiler."""
        if self._next is not None:
            wait([self._next[1]])

    def _prepare(self) -> None:
        positions = self.replay.draw(self.batch_size)
        batch = threads.start("batch", self._gather, positions)
        self._next = (positions, batch)

    def _gather(self, positions: Positions) -> Batch:
        return self._layout.shard_batch(self.replay.gather(positions))

    def _write_back(self) -> None:
        """Settles the update before: latents into the replay, if applied."""
        if self._pending is None:
            return
        update, self._pending = self._pending, None
        applied = not np.asarray(update.nonfinite)
        batch = {} if applied else _flat(update.batch, update.positions)
        self._nonfinite.note(update.number, applied, batch)
        if applied:
            host = {k: on_host(v) for k, v in update.latents.items()}
            self.replay.write_back(update.positions, host)

    def _remember(self, metrics: Metrics) -> None:
        """Sums metrics up on the device; they leave it when logged."""
        self._names = sorted(metrics)
        self._sums = self._add(self._sums, metrics)
        self._summed += 1


def _add_finite(sums: jax.Array | None, metrics: Metrics) -> jax.Array:
    """Adds the metrics of an update that was applied, or else only counts.

    Args:
      sums: totals so far, (M,) float32, or None at first.
      metrics: M numbers () by name.

    Returns:
      The sums, (M,) float32, in the order of the sorted names: one array,
      because each one costs a GPU a kernel of its own.
    """
    names = sorted(metrics)
    new = jnp.stack([metrics[name].astype(jnp.float32) for name in names])
    counts = np.array([name == "opt/nonfinite" for name in names])
    applied = metrics["opt/nonfinite"] == 0
    new = jnp.where(applied | counts, new, 0)
    return new if sums is None else sums + new


def _flat(batch: Batch, positions: Positions) -> dict[str, np.ndarray]:
    """This process's rows of a batch and where they came from."""
    flat = {f"batch/{name}": on_host(x) for name, x in batch.items()}
    return {**flat, "env": positions.env, "start": positions.start}


def _under(
    prefix: str, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Those whose name begins with `prefix`, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
