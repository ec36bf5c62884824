"""Bears with a logdir that cannot be written, for as long as it is told.

A full disk is often emptied and a lost network folder comes back, so training
goes on meanwhile, on what it keeps in memory.  Next: state.py.
"""

import time
from collections.abc import Callable
from pathlib import Path

RETRY = 30.0  # seconds between two tries


class WriteError(RuntimeError):
    """The logdir could not be written for too long. One line, for a person."""


class Patience:
    """Follows whether writing works and says when that changes.

    Args:
      logdir: that is written to.
      seconds: to bear with it.
      clock: seconds; other than in tests, a monotonic clock.
    """

    def __init__(
        self,
        logdir: Path,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logdir = logdir
        self._seconds = seconds
        self._clock = clock
        self._since: float | None = None
        self._tried = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last that was heard was an error."""
        return self._since is not None

    def watch(self, error: OSError | None, saved: int | None) -> str | None:
        """Takes in how the newest attempts went.

        Args:
          error: why writing fails, if it does.
          saved: policy steps of the newest complete checkpoint.

        Returns:
          A line for a person, where this is news.

        Raises:
          WriteError: it has failed for too long.
        """
        now = self._clock()
        if error is None:
            was, self._since = self._since, None
            return (
                f"logdir={self._logdir} can be written again" if was else None
            )
        reason = error.strerror or str(error)
        kept = "no checkpoint yet"
        if saved is not None:
            kept = f"the checkpoint of policy step {saved:,} is whole"
        if self._since is None:
            self._since = self._tried = now
            return (
                f"logdir={self._logdir} cannot be written: {reason}. Training"
                f" goes on and tries again for {self._seconds:,.0f} s; {kept}"
            )
        if now - self._since < self._seconds:
            return None
        raise WriteError(
            f"logdir={self._logdir} cannot be written for"
            f" {now - self._since:,.0f} s: {reason}; {kept}, from which the"
            " same command goes on once there is space"
        )

    def try_again(self) -> bool:
        """Whether it is time for another attempt, `RETRY` seconds later."""
        now = self._clock()
        if self._since is None or now - self._tried < RETRY:
            return False
        self._tried = now
        return True
