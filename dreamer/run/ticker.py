"""A line that tells how far something is, redrawn where there is a terminal.

For programs other than training, whose line is in progress.py.
"""

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

REDRAW, REPEAT = 0.5, 10.0  # seconds between two: redrawn, or printed


class Ticker:
    """Shows the newest line; use it as a context manager.

    Args:
        stream: standard output unless given.
        clock: seconds; other than in tests, a monotonic clock.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        out = stream or sys.stdout
        self._console = Console(file=out, highlight=False)
        self._clock = clock
        self._live: Live | None = None
        # A dumb terminal cannot redraw a line.
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True
            )
        self._due = clock() + (REDRAW if self._live else REPEAT)

    def show(self, line: Callable[[], str]) -> None:
        """Shows what `line` gives, if it is time to; cheap otherwise."""
        now = self._clock()
        if now < self._due:
            return
        if self._live:
            self._due = now + REDRAW
            self._live.update(Text(line()), refresh=True)
        else:
            self._due = now + REPEAT
            self.print(line())

    def print(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(Text(text), soft_wrap=True)
        self._console.file.flush()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Takes away the line that was redrawn."""
        if self._live:
            self._live.stop()
