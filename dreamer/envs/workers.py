"""Environments in processes of their own, and one in this process.

A worker process answers one request after another over a socket, on which no
wait is endless. It ignores SIGINT and SIGTERM, which terminals and schedulers
send to all processes of a run: the main process decides when workers end. They
end when it hangs up, and by themselves when it is gone. Read next: `host.py`
for the requests, `vector.py`, which keeps several environments in step.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

import gymnasium
from gymnasium.vector.utils import CloudpickleWrapper

from dreamer.envs.host import FAILED, REFUSED, START, Host

# Seconds that a worker has to end by itself, before the system ends it.
GRACE = 1.0
# Seconds of one wait on a socket. After a deadline there is one more: this
# process may have been stopped, and had no time to look for an answer.
SLICE = 1.0
# Of a message: its kind and the length of what follows.
HEADER = struct.Struct("<cQ")


class Failure(Exception):
    """An environment is of no more use.

    Attributes:
        summary: a line that goes on after its name.
        text: the same, or the environment's own traceback below it.
    """

    def __init__(self, summary: str, text: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.text = text or summary


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
    """Sends and receives messages over a socket."""

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


class Local:
    """An environment in this process, which waits for it however long.

    It works when the answer is wanted, so that an accelerator may be given
    something to do before.

    Args:
        make: builds the environment.
    """

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        self._host = Host(make)
        self._failure: Failure | None = None
        self.request(START)

    def request(
        self, request: bytes, data: bytes = b"", deadline: object = None
    ) -> None:
        """Asks for something, see `host.py`; failures show in the answer."""
        del deadline
        self._request: tuple[bytes, bytes] | None = (request, data)

    def answer(self, deadline: Deadline) -> memoryview:
        """What came of the request, until there is another.

        Raises:
            ValueError: it was refused, and the environment is as before.
            Failure: the environment failed, and will so whatever is asked.
        """
        del deadline
        if self._failure is None:
            if self._request is not None:
                self._answer = self._host.answer(*self._request)
                self._request = None
            kind, data = self._answer
            try:
                return _checked(kind, memoryview(data))
            except Failure as failure:
                self._failure = failure
        raise self._failure

    def hang_up(self) -> None:
        """Lets the environment end."""
        self._host.close()

    def close(self, deadline: Deadline) -> None:
        """Sees to it that it has ended when this returns."""
        del deadline
        self.hang_up()


class Worker:
    """An environment in a process of its own, as `Local` otherwise.

    Args:
        make: builds the environment; asked to at once.

    Raises:
        Failure: the process does not start.
    """

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        # Forked from a small server: forking a process with JAX's threads can
        # lock up.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dreamer.envs.preload"])
        self._failure: Failure | None = None
        try:
            ours, theirs = socket.socketpair()
            with theirs, _without_main():
                self._process = context.Process(
                    target=_serve,
                    args=(theirs, CloudpickleWrapper(make)),
                    daemon=True,
                )
                self._process.start()
        except (EOFError, OSError) as error:
            raise Failure(f"could not be started: {error}") from error
        ours.settimeout(SLICE)
        self._socket, self._channel = ours, Channel(ours)
        # Before Python waits for all processes, and if this is forgotten.
        self._end = Finalize(
            self, _end, (ours, self._process), exitpriority=10
        )
        self.request(START)

    def request(
        self, request: bytes, data: bytes = b"", deadline: object = None
    ) -> None:
        """As `Local.request`."""
        if self._failure is None:
            # If nobody is there, there will be no answer either.
            with contextlib.suppress(OSError):
                self._channel.send(request, data, deadline)

    def answer(self, deadline: Deadline) -> memoryview:
        """As `Local.answer`; it is a failure too if the worker dies or hangs.

        After a failure there is no process, and the answer remains the same.
        """
        if self._failure is None:
            try:
                return _checked(*self._channel.receive(deadline))
            except Failure as failure:
                self._failure = failure
            except TimeoutError:
                self._failure = Failure(
                    f"did not answer within {deadline.seconds:g} seconds"
                    " (run.env_timeout allows more)"
                )
            except (EOFError, OSError):
                self._process.join(GRACE)
                code = self._process.exitcode
                line = f"died without a word (exit code {code})"
                why = "its system may have stopped it, for want of memory say"
                self._failure = Failure(line, f"{line}; {why}")
            self._process.kill()
            self._end()
        raise self._failure

    def hang_up(self) -> None:
        """As `Local.hang_up`; does not wait."""
        self._socket.close()

    def close(self, deadline: Deadline) -> None:
        """As `Local.close`; at the deadline the process is ended by force."""
        self._process.join(deadline.left)
        self._process.kill()
        self._end()


def _checked(kind: bytes, data: memoryview) -> memoryview:
    """The data of an answer, unless it is none."""
    if kind == REFUSED:
        raise ValueError(str(data, "utf-8"))
    if kind == FAILED:
        summary, _, text = str(data, "utf-8").partition("\n")
        if not text:
            raise Failure(f"failed: {summary}")
        raise Failure(f"failed with {summary}", f"failed:\n{text}")
    return data


def _serve(sock: socket.socket, make: Callable[[], gymnasium.Env]) -> None:
    """What a worker process does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    host, channel = Host(make), Channel(sock)
    with contextlib.suppress(EOFError, OSError):
        while True:
            request, data = channel.receive()
            channel.send(*host.answer(request, bytes(data)))
    host.close()


def _end_with_parent() -> None:
    """Ends a worker that hangs in its environment when nobody waits for it."""
    multiprocessing.parent_process().join()
    time.sleep(GRACE)
    os._exit(1)


def _end(sock: socket.socket, process: BaseProcess) -> None:
    sock.close()
    process.join(GRACE)
    if process.exitcode is None:
        process.kill()
        process.join(GRACE)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides the running program, which workers would import, JAX and all."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
