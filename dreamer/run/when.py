"""When a run logs, saves and stops: by the clock, and by signals."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Self


@dataclass
class Timer:
    """True once every `seconds`; the first time after that long.

    `clock` gives seconds; other than in tests, a monotonic clock.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def due(self) -> bool:
        """Whether it is time again."""
        now = self.clock()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


class StopSignal:
    """Notes SIGTERM and SIGINT (Ctrl-C) while it is entered.

    The loop asks `received` and ends in good order. A second SIGINT ends the
    program at once, wherever it is: the system does it, not Python.

    Args:
      hangup: whether a terminal that closes counts as well, unless that is to
        be ignored, as under `nohup`.
    """

    def __init__(self, hangup: bool = False) -> None:
        self.received = False
        self._numbers = [signal.SIGTERM, signal.SIGINT]
        if hangup and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            self._numbers.append(signal.SIGHUP)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in self._numbers:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
