"""Guard: keeps steps from being overwritten while a batch needs them.

A batch is drawn in one thread and may be gathered in another, while the
first goes on adding steps. A window is in use from its draw until its gather
is over, and the step that would overwrite one waits that long. This is rare:
only windows at the very end of a full ring are ever in the way.
"""

import dataclasses
import threading

import numpy as np

WAIT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, eq=False)
class Positions:
    """Where the windows of one batch lie.

    Attributes:
      env: (B,) int64, the environment of each window.
      start: (B,) int64, the time of its first context step, counted from
        the environment's first step of the run.
    """

    env: np.ndarray
    start: np.ndarray


class Guard:
    """The batches in use, and the lock that whoever changes steps holds.

    Attributes:
      lock: A re-entrant lock; notified when a batch is no longer in use.
    """

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self._drawn: list[Positions] = []
        self._reading: list[Positions] = []

    def reserve(self, positions: Positions) -> None:
        """Puts a drawn batch in use."""
        with self.lock:
            self._drawn.append(positions)

    def begin(self, positions: Positions, oldest: int) -> None:
        """Begins to read a batch, drawn or one whose steps are still held.

        Raises:
          ValueError: It starts before `oldest`, the oldest step held.
        """
        with self.lock:
            if positions in self._drawn:
                self._drawn.remove(positions)
            elif positions.start.min() < oldest:
                raise ValueError(
                    f"replay window at time {positions.start.min()} is gone;"
                    f" the oldest step held is {oldest}"
                )
            self._reading.append(positions)

    def end(self, positions: Positions) -> None:
        """Ends the use of a batch that was read."""
        with self.lock:
            self._reading.remove(positions)
            self.lock.notify_all()

    def wait(self, overwritten: int) -> None:
        """Waits until no batch needs steps up to time `overwritten`.

        Raises:
          RuntimeError: A batch stayed in use for `WAIT_SECONDS`.
        """

        def free() -> bool:
            in_use = self._drawn + self._reading
            return all(p.start.min() > overwritten for p in in_use)

        with self.lock:
            if not self.lock.wait_for(free, WAIT_SECONDS):
                raise RuntimeError(
                    "a batch was drawn from replay and not gathered in"
                    f" {WAIT_SECONDS:g} s"
                )
