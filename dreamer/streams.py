"""Output that is lost, rather than end a program, where it cannot go.

What a run prints often goes to the disk that its logdir is on, which may be
full, or to a terminal that is closed meanwhile. A run is worth more than that.
"""

import contextlib
from collections.abc import Iterable
from typing import Any, TextIO


class Lossy:
    """A stream of text that drops what cannot be written.

    Args:
      stream: stream that is written to; all else about it is as it was.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes or drops a text; returns its length."""
        # Full, hung up or nobody reads it; closed, or not of its encoding.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes or drops each of them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Passes on what can be; Python's own end calls this, too."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def lossy(stream: TextIO | None) -> TextIO | None:
    """The same stream as a `Lossy` one; None is Python's for a closed one."""
    return None if stream is None else Lossy(stream)
