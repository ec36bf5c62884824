"""When a run saves: in step with its other processes, and again if need be.

A checkpoint is begun only when every row before it is on disk, and by all
processes or none.  The newest one that all of them have stays until they have
a newer one in common, whatever happens to the disk of one.  Next:
checkpoint.py, patience.py.
"""

from collections.abc import Callable
from typing import Any

from dreamer.agent.agent import TrainState
from dreamer.replay import Replay
from dreamer.run.archive import Arrays
from dreamer.run.checkpoint import Checkpoints
from dreamer.run.logger import Logger
from dreamer.run.patience import Patience
from dreamer.run.peers import Peers

Parts = tuple[int, TrainState | None, Replay, Arrays, dict[str, Any]]
"""What `Checkpoints.save` takes."""


class Saver:
    """Saves one run, as one of its processes.

    Args:
      checkpoints: of this process.
      logger: whose rows a checkpoint counts on.
      disk: notes how writing goes.
      peers: which all call `agree`, `save` and `standing` together.
      saved: how far the run was at its newest checkpoint; None if none is.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        logger: Logger,
        disk: Patience,
        peers: Peers,
        saved: Any,
    ) -> None:
        self._checkpoints = checkpoints
        self._logger = logger
        self._disk = disk
        self._peers = peers
        self._saved = saved
        self._put_off: OSError | None = None  # why no save was begun
        self._again = False  # whether to save as soon as all can

    def agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether any process is told to stop, and whether all are to save.

        Args:
          stop: whether this one is told to stop.
          save: whether it is time by this one's clock; the leader's counts.
        """
        save = (save and self._peers.leads) or self._again
        stop, save = self._peers.any(stop, save)
        return stop, save

    def save(self, progress: Any, parts: Callable[[], Parts]) -> None:
        """Begins a checkpoint, if it is needed and rows are on disk.

        Args:
          progress: how far the run is, the same in all processes.
          parts: gives what to save.
        """
        self._again = False
        self.wait()
        owed, rows_wait = self._peers.any(
            bool(self._checkpoints.error or self._put_off),
            bool(self._logger.error),
        )
        if progress == self._saved and not owed:
            return
        self._put_off = self._logger.error
        if rows_wait:
            return
        self._saved = progress
        complete = self._peers.each(self._checkpoints.complete)
        common = max(set.intersection(*complete), default=None)
        self._checkpoints.save(*parts(), keep=common)

    def look(self) -> str | None:
        """Notes how writing goes, and when to try again what failed.

        Returns:
          A line for a person, where this is news.

        Raises:
          WriteError: it has failed for too long.
        """
        if self._disk.try_again():
            self._logger.sync()
            self._again = self._checkpoints.error is not None
        if self._put_off is not None and self._logger.error is None:
            self._again = True
        error = self._logger.error or self._checkpoints.error
        return self._disk.watch(
            error or self._put_off, self._checkpoints.saved
        )

    def wait(self) -> None:
        """Waits for a checkpoint that is being written, and for rows."""
        self._checkpoints.wait()
        self._logger.sync()

    def standing(self) -> list[bool]:
        """Whether any process cannot write, and whether all are to save."""
        return self._peers.any(self._disk.failing, self._again)
