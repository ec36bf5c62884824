"""Gradient updates on replayed batches that are prepared in advance.

While the device computes update n, a thread gathers batch n + 1 and copies
it over, and the latents of update n - 1 travel back into the replay.  Nothing
here waits for the update that was just dispatched.  The order of draws and
write-backs is fixed by the order of calls, never by which thread is faster,
so that one seed gives one run.  Next: agent/agent.py, what an update computes.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer.agent.agent import Agent, Batch, Metrics, TrainState
from dreamer.replay import Positions, Replay


class Learner:
    """Owns the train state and feeds it from the replay.

    Args:
      agent: for its update.
      state: to start from; donated to the first update.
      replay: batches come from here, latents go back.
      batch_size: B.
      key: PRNG key of all updates.

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
    ) -> None:
        self.agent = agent
        self.state = state
        self.replay = replay
        self.batch_size = batch_size
        self.key = key
        self.updates = int(state.updates)
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, "batches")
        self._next: tuple[Positions, Future[Batch]] | None = None
        self._fresh: tuple[Positions, Batch] | None = None
        self._sums: Metrics | None = None
        self._summed = 0
        self._add = jax.jit(_add_trees, donate_argnums=0)
        self._update: Future[Callable] = Future()
        self._update.set_result(agent.update)

    def compile(self) -> None:
        """Compiles the update while the caller goes on with other things."""
        spec = self.replay.batch_spec(self.batch_size)
        batch = {k: jax.ShapeDtypeStruct(*v) for k, v in spec.items()}
        # Shapes, because the state itself may be donated meanwhile.
        state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.state
        )

        def compiled() -> Callable:
            return self.agent.update.lower(state, batch, self.key).compile()

        self._update = self._thread.submit(compiled)

    def update(self) -> None:
        """Dispatches one update and prepares the next batch."""
        if self._next is None:
            self._prepare()
        positions, prepared = self._next
        before = time.perf_counter()
        batch = prepared.result()
        self.waited += time.perf_counter() - before
        self.state, latents, metrics = self._update.result()(
            self.state, batch, self.key
        )
        self.updates += 1
        self._remember(metrics)
        self._write_back()
        for latent in latents.values():
            latent.copy_to_host_async()
        self._fresh = (positions, latents)
        self._prepare()

    def metrics(self) -> dict[str, float]:
        """Mean of every metric over the updates since the last call.

        Waits for the device.  Empty if there was no update.
        """
        if not self._summed:
            return {}
        sums = jax.device_get(self._sums)
        means = {k: float(v) / self._summed for k, v in sums.items()}
        means["opt/updates"] = self.updates  # a count, not a mean
        self._sums, self._summed = None, 0
        return means

    def pending(self) -> dict[str, Any] | None:
        """What a checkpoint needs of the batch that is drawn, not used.

        Also brings the replay's latents up to date, so call it before the
        replay is saved.  After a batch has been gathered nothing reads
        latents until they would have been written anyway, so doing it now
        changes nothing for the run.
        """
        if self._next is None:
            return None
        positions, batch = self._next
        host = jax.tree.map(np.asarray, batch.result())
        self._write_back()
        return {"batch": host, "env": positions.env, "start": positions.start}

    def restore_pending(self, saved: dict[str, Any]) -> None:
        """The batch that an interrupted run had prepared."""
        batch: Future[Batch] = Future()
        batch.set_result(jax.device_put(saved["batch"]))
        positions = Positions(saved["env"], saved["start"])
        self._next = (positions, batch)

    def close(self) -> None:
        """Ends the thread, after the batch it is working on."""
        self._thread.shutdown(cancel_futures=True)

    def _prepare(self) -> None:
        positions = self.replay.draw(self.batch_size)
        batch = self._thread.submit(self._load, positions)
        self._next = (positions, batch)

    def _load(self, positions: Positions) -> Batch:
        return jax.device_put(self.replay.gather(positions))

    def _write_back(self) -> None:
        if self._fresh is None:
            return
        positions, latents = self._fresh
        host = {k: np.asarray(v) for k, v in latents.items()}
        self.replay.write_back(positions, host)
        self._fresh = None

    def _remember(self, metrics: Metrics) -> None:
        """Sums metrics up on the device; they leave it when logged."""
        self._summed += 1
        if self._sums is None:
            self._sums = metrics
        else:
            self._sums = self._add(self._sums, metrics)


def _add_trees(left: Metrics, right: Metrics) -> Metrics:
    return jax.tree.map(jnp.add, left, right)
