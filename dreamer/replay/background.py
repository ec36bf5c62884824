"""Writing beside the run: one thread writes what another copied.

The run copies a part, hands it over and goes on; the copies wait in bounded
memory until they are written. Nothing here knows what is written; `disk.py`
and the checkpoints of a run are what uses it.
"""

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Put(Protocol):
    """Hands over one part: `take` copies `size` bytes, `write` writes them.

    Returns what `write` will have returned or raised.
    """

    def __call__(
        self, size: int, take: Callable[[], Any], write: Callable[[Any], T]
    ) -> Future[T]:
        """`take` is called before this returns, `write` whenever."""


class Background:
    """One thread, started when there is something to write.

    Args:
      limit: Bytes that may be copied and not yet written. A single part may
        be larger.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")

    def begin(self) -> None:
        """Forgets that earlier parts could not be written."""
        self._failure = None

    def put(
        self, size: int, take: Callable[[], Any], write: Callable[[Any], T]
    ) -> Future[T]:
        """See `Put`. Waits until there is room for a copy.

        Once a part could not be written, later ones are neither copied nor
        written, and raise the same, until `begin`.
        """

        def room() -> bool:
            fits = self._held + size <= self._limit
            return fits or not self._held or self._failure is not None

        with self._changed:
            self._changed.wait_for(room)
            if self._failure is not None:
                return failed(self._failure)
            self._held += size
        try:
            values = [take()]
        except BaseException:
            self._release(size)
            raise
        return self._thread.submit(self._write, size, values, write)

    def last(self, job: Callable[[], T]) -> Future[T]:
        """Calls `job` after all parts so far, written or not."""
        return self._thread.submit(job)

    def close(self) -> None:
        """Waits for everything that was handed over."""
        self._thread.shutdown()

    def _write(
        self, size: int, values: list[Any], write: Callable[[Any], T]
    ) -> T:
        try:
            if self._failure is not None:
                raise self._failure
            return write(values.pop())
        except BaseException as error:
            # Whoever keeps the error must not keep the copies.
            traceback.clear_frames(error.__traceback__)
            values.clear()
            self._failure = error
            raise
        finally:
            self._release(size)

    def _release(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()


def done(value: T) -> Future[T]:
    """What is there already, where something may have to be waited for."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def failed(error: BaseException) -> Future[Any]:
    """What will not be written."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
