"""Updates that were not finite: saved, reported and limited.

The agent does not apply an update whose loss or gradients are not finite
(agent/agent.py).  One now and then does no harm; many in a row mean that the
run will not recover by itself.  Next: learner.py, which notices them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dreamer.spaces import LATENTS
from dreamer.whole import new_file

KEPT = 10  # batches in a logdir
# Of a batch, what the agent made: a consequence, never the cause.
MADE = {f"batch/{name}" for name in ("action", *LATENTS)}


class Diverged(RuntimeError):
    """Too many updates in a row were not applied. The message is one line."""


class NonFinite:
    """Counts the updates that were not applied and keeps their batches.

    Batches lie in `<logdir>/nonfinite/update-<n>.npz`, at most `KEPT` of
    them, for `numpy.load(path, allow_pickle=False)`: every array of the batch
    as `batch/<name>`, and `env` and `start`, where it came from in the replay.
    Types that NumPy does not have, such as bfloat16, are float32 there, which
    holds the same values.

    Args:
      logdir: folder of the run.
      limit: number of updates in a row that ends the run.

    Attributes:
      in_row: updates that were not applied since the last one that was.
      reports: lines on each of them; whoever shows them takes them away.
    """

    def __init__(self, logdir: Path, limit: int) -> None:
        self._folder = logdir / "nonfinite"
        self._limit = limit
        self.in_row = 0
        self.reports: list[str] = []
        self._given: set[str] = set()  # not finite in batches of this row
        self._float32 = False  # whether the run computes in it, if known

    def note(
        self, update: int, applied: bool, batch: Mapping[str, np.ndarray]
    ) -> None:
        """Takes an update into account, in the order of updates.

        Args:
          update: number of the update.
          applied: whether its loss and gradients were finite.
          batch: arrays to be saved; not needed if it was applied.
        """
        if applied:
            self.in_row = 0
            self._given.clear()
            return
        self.in_row += 1
        self._given |= _not_finite(batch)
        if "batch/deter" in batch:  # is of the compute dtype
            self._float32 = batch["batch/deter"].dtype == np.float32
        self.reports.append(
            f"update {update:,}: loss or gradient is not finite; it was not"
            f" applied; {self._save(update, batch)}"
        )

    def check(self, update: int) -> None:
        """Sees that the run may go on.

        Args:
          update: number of the last update that was noted.

        Raises:
          Diverged: too many in a row were not applied.
        """
        if self.in_row < self._limit:
            return
        raise Diverged(
            f"{self.in_row:,} updates in a row, from update"
            f" {update - self.in_row + 1:,} on, had a loss or gradient that is"
            f" not finite; their batches are in {self._folder};"
            f" {self._advice()}"
        )

    def _advice(self) -> str:
        if self._given:
            names = " and ".join(sorted(self._given))
            return f"what the environment gave is not finite there: {names}"
        advice = "begin another run with a lower agent.opt.lr"
        if not self._float32:
            advice += " or --jax.compute_dtype float32"
        return advice

    def _save(self, update: int, batch: Mapping[str, np.ndarray]) -> str:
        """Where the batch is, or why it is not."""
        path = self._folder / f"update-{update}.npz"
        try:
            kept = set(self._folder.glob("update-*.npz"))
            if path not in kept and len(kept) >= KEPT:
                return f"{KEPT} batches are in {self._folder}, so not this one"
            self._folder.mkdir(parents=True, exist_ok=True)
            with new_file(path) as stream:
                np.savez(stream, **{k: _plain(v) for k, v in batch.items()})
        except OSError as error:
            return f"its batch could not be saved ({error.strerror})"
        return f"its batch is in {path}"


def _not_finite(batch: Mapping[str, np.ndarray]) -> set[str]:
    """Rewards and observations with numbers that are not finite, by name."""
    return {
        name.removeprefix("batch/")
        for name, host in batch.items()
        if name not in MADE
        and host.dtype.kind == "f"
        and not np.isfinite(host).all()
    }


def _plain(host: np.ndarray) -> np.ndarray:
    """Of a type that every NumPy knows."""
    return host.astype(np.float32) if host.dtype.isbuiltin != 1 else host
