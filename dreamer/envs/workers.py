"""Environments in processes of their own, and one in this process.

A worker process answers one request after another over a socket, on which no
wait is endless. It ignores SIGINT and SIGTERM, which terminals and schedulers
send to all processes of a run: the main process decides when workers end. They
end when it hangs up, and by themselves when it is gone. Each leads a process
group of its own, which has what its environment starts, and takes that along
when it dies or is ended by force. Read next: `channel.py` for messages,
`host.py` for the requests, `vector.py`, which keeps several environments in
step.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

import gymnasium
from gymnasium.vector.utils import CloudpickleWrapper

from dreamer.envs.channel import SLICE, Channel, Deadline
from dreamer.envs.host import FAILED, REFUSED, START, Host
from dreamer.options import ConfigError

# Seconds that a worker has to end by itself, before the system ends it.
GRACE = 1.0


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


class Local:
    """An environment in this process, which waits for it however long.

    It works when the answer is wanted, so that an accelerator may be given
    something to do before.

    Args:
        make: function that builds the environment.
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
            ConfigError: it was refused, and the environment is as before.
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
        make: function that builds the environment, called at once.

    Raises:
        Failure: the process does not start.
    """

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        # Forked from a small server: forking a process with JAX's threads can
        # lock up.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dreamer.envs.preload"])
        self._failure: Failure | None = None
        with contextlib.ExitStack() as opened:
            try:
                ours, theirs = socket.socketpair()
                opened.callback(ours.close)  # on which the process ends, too
                with theirs, _without_main():
                    # Not a daemon, whose environment could start no processes.
                    self._process = context.Process(
                        target=_serve,
                        args=(theirs, CloudpickleWrapper(make)),
                    )
                    self._process.start()
            except (EOFError, OSError) as error:
                raise Failure(f"could not be started: {error}") from error
            ours.settimeout(SLICE)
            self._socket, self._channel = ours, Channel(ours)
            # Runs before multiprocessing joins its children at exit, or when
            # this object is collected.
            self._end = Finalize(
                self, _end, (ours, self._process), exitpriority=10
            )
            opened.pop_all()
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
                # At once, while its number is that of no other group.
                _kill_group(self._process)
            _kill(self._process)
            self._end()
        raise self._failure

    def hang_up(self) -> None:
        """As `Local.hang_up`; does not wait."""
        self._socket.close()

    def close(self, deadline: Deadline) -> None:
        """As `Local.close`; at the deadline the process is ended by force."""
        self._process.join(deadline.left)
        _kill(self._process)
        self._end()


def _checked(kind: bytes, data: memoryview) -> memoryview:
    """The data of an answer, unless it is none."""
    if kind == REFUSED:
        raise ConfigError(str(data, "utf-8"))
    if kind == FAILED:
        summary, _, text = str(data, "utf-8").partition("\n")
        if not text:
            raise Failure(f"failed: {summary}")
        raise Failure(f"failed with {summary}", f"failed:\n{text}")
    return data


def _serve(sock: socket.socket, make: Callable[[], gymnasium.Env]) -> None:
    """What a worker process does."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Programs that an environment starts would ignore it too, and so their
    # `terminate`, if nobody took it here.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # One that comes while a process is forked waits until that is ready.
    os.register_at_fork(
        before=lambda: _mask(signal.SIG_BLOCK),
        after_in_parent=lambda: _mask(signal.SIG_UNBLOCK),
        after_in_child=lambda: _leave(sock),
    )
    threading.Thread(target=_end_with_parent, daemon=True).start()
    host, channel = Host(make), Channel(sock)
    with contextlib.suppress(EOFError, OSError):
        while True:
            request, data = channel.receive()
            channel.send(*host.answer(request, bytes(data)))
    host.close()


def _leave(sock: socket.socket) -> None:
    """Makes a process that an environment forks no part of the worker."""
    sock.close()  # or it would seem alive as long as this process is
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # for `terminate`
    _mask(signal.SIG_UNBLOCK)


def _mask(how: int) -> None:
    signal.pthread_sigmask(how, {signal.SIGTERM})


def _end_with_parent() -> None:
    """Ends a worker that hangs in its environment when nobody waits for it."""
    multiprocessing.parent_process().join()
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


def _end(sock: socket.socket, process: BaseProcess) -> None:
    sock.close()
    process.join(GRACE)
    if process.exitcode is None:
        _kill(process)
        process.join(GRACE)


def _kill(process: BaseProcess) -> None:
    """Ends a worker by force, with all that its environment has started."""
    if process.exitcode is None:
        _kill_group(process)
    process.kill()


def _kill_group(process: BaseProcess) -> None:
    """Ends all that is left of a worker's group, maybe without the worker."""
    # It may not lead its group yet, or nobody is left there.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides the running program, which workers would import, JAX and all."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
