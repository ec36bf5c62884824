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

from dreamer.agent.agent import Agent, Batch, Metrics, Params, TrainState
from dreamer.agent.layout import on_host, on_one_device
from dreamer.replay import Positions, Replay
from dreamer.replay.background import done
from dreamer.run import threads
from dreamer.run.nonfinite import NonFinite


class Made(NamedTuple):
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
      agent: for its update.
      state: to start from; donated to the first update.
      replay: batches come from here, latents go back.
      batch_size: B; of several processes, what each of them contributes.
      key: PRNG key of all updates.
      logdir: for batches of updates that were not applied.
      nonfinite_limit: such updates in a row that end the run.

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
        self._key = key
        self._params: Params | None = None
        self.updates = int(state.updates)
        self.waited = 0.0
        self._nonfinite = NonFinite(logdir, nonfinite_limit)
        self._next: tuple[Positions, Future[Batch]] | None = None
        self._fresh: Made | None = None
        self._names: list[str] = []  # of metrics, in the order of their sums
        self._sums: jax.Array | None = None
        self._summed = 0
        self._add = jax.jit(_add_finite, donate_argnums=0)
        self._program: Future[Callable] = done(agent.update)
        layout = agent.layout
        if layout is None:
            self._load, self._everywhere = jax.device_put, jax.device_put
            self._rows = batch_size
        else:
            self._load, self._everywhere = layout.load, layout.everywhere
            self._key = layout.key(key)
            self._rows = batch_size * jax.process_count()

    @property
    def reports(self) -> list[str]:
        """A line for each update that was not applied; the caller clears."""
        return self._nonfinite.reports

    @property
    def params(self) -> Params:
        """To act with: whole, on one device, gone after the next update."""
        layout = self.agent.layout
        if layout is None:
            return self.state.params
        if self._params is None:
            whole = layout.unite(self.state.params)
            self._params = on_one_device(whole)
        return self._params

    def whole_state(self) -> TrainState:
        """The train state, as a process can read it; all ask together."""
        layout = self.agent.layout
        if layout is None or jax.process_count() == 1:
            return self.state
        return layout.unite(self.state)

    def compile(self) -> None:
        """Compiles the update while the caller goes on with other things."""
        spec = self.replay.batch_spec(self._rows)
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
        made = Made(self.updates, positions, batch, latents, nonfinite)
        self._fresh = made
        self._prepare()
        # Here alone, where it does not matter whether `arrays` came between.
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
          arrays: of that learner, with the state and replay of that time
            given to this one; nothing if there is nothing to restore.

        Raises:
          ValueError: the batch is not of the shape that this run needs.
        """
        self._nonfinite.in_row = int(arrays.get("nonfinite", 0))
        if "summed" in arrays:
            self._summed = int(arrays["summed"])
            sums = _under("sums/", arrays)
            self._names = sorted(sums)
            values = np.array([sums[name] for name in self._names], np.float32)
            self._sums = self._everywhere(values)
        batch = _under("batch/", arrays)
        if not batch:
            return
        spec = self.replay.batch_spec(self.batch_size)
        saved = {k: (v.shape, v.dtype) for k, v in batch.items()}
        places = {np.shape(arrays.get(k)) for k in ("env", "start")}
        if saved != spec or places != {(self.batch_size,)}:
            raise ValueError(
                f"the batch in the checkpoint has {saved}, expected {spec}"
            )
        positions = Positions(arrays["env"], arrays["start"])
        self._next = (positions, done(self._load(batch)))

    def close(self) -> None:
        """Waits for the batch that is being gathered; not for a compiler."""
        if self._next is not None:
            wait([self._next[1]])

    def _prepare(self) -> None:
        positions = self.replay.draw(self.batch_size)
        batch = threads.start("batch", self._gather, positions)
        self._next = (positions, batch)

    def _gather(self, positions: Positions) -> Batch:
        return self._load(self.replay.gather(positions))

    def _write_back(self) -> None:
        """Settles the update before: latents into the replay, if applied."""
        if self._fresh is None:
            return
        made, self._fresh = self._fresh, None
        applied = not np.asarray(made.nonfinite)
        batch = {} if applied else _flat(made.batch, made.positions)
        self._nonfinite.note(made.number, applied, batch)
        if applied:
            host = {k: on_host(v) for k, v in made.latents.items()}
            self.replay.write_back(made.positions, host)

    def _remember(self, metrics: Metrics) -> None:
        """Sums metrics up on the device; they leave it when logged."""
        self._names = sorted(metrics)
        self._sums = self._add(self._sums, metrics)
        self._summed += 1


def _add_finite(sums: jax.Array | None, metrics: Metrics) -> jax.Array:
    """Adds the metrics of an update that was applied, or else only counts.

    Args:
      sums: so far, (M,) float32, or None at first.
      metrics: (), by name; M of them.

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
