"""Messages over a socket, on which no wait is endless.

Read next: `workers.py`, whose two sides send them to each other.
"""

import socket
import struct
import time
from collections.abc import Callable

# Seconds of one wait on a socket. After a deadline there is one more: this
# process may have been stopped, and had no time to look for an answer.
SLICE = 1.0
# Of a message: its kind and the length of what follows.
HEADER = struct.Struct("<cQ")


class Deadline:
    """A moment until which there is an answer, or there is none."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(self._at - time.monotonic(), 0.0)


class Channel:
    """Sends and receives messages over a socket, by turns with the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(2**16)

    def send(
        self, kind: bytes, data: bytes, deadline: Deadline | None = None
    ) -> None:
        """Sends a message.

        Raises:
            TimeoutError: the deadline has passed.
            OSError: there is nobody at the other end.
        """
        left = memoryview(HEADER.pack(kind, len(data)) + data)
        while left:
            left = left[_wait(self._socket.send, left, deadline) :]

    def receive(
        self, deadline: Deadline | None = None
    ) -> tuple[bytes, memoryview]:
        """The next message: its kind, and its data until there is another.

        Raises:
            TimeoutError: the deadline has passed.
            EOFError, OSError: there is nobody at the other end.
        """
        got, size = 0, None
        while size is None or got < size:
            free = memoryview(self._buffer)[got:]
            count = _wait(self._socket.recv_into, free, deadline)
            if not count:
                raise EOFError
            got += count
            if size is None and got >= HEADER.size:
                kind, length = HEADER.unpack_from(self._buffer)
                size = HEADER.size + length
                if size > len(self._buffer):
                    # Not extended: it cannot be while it is looked at.
                    self._buffer = self._buffer[:got] + bytes(size - got)
        return kind, memoryview(self._buffer)[HEADER.size : size]


def _wait(
    operation: Callable[[memoryview], int],
    data: memoryview,
    deadline: Deadline | None,
) -> int:
    """Tries a socket's operation until it succeeds or the deadline is over."""
    late = False
    while True:
        try:
            return operation(data)
        except TimeoutError:
            if late:
                raise
            late = deadline is not None and not deadline.left
