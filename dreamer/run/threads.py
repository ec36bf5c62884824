"""Work beside the run, for which a program need not wait at its end.

XLA compiles for minutes and cannot be interrupted.  Python waits for its
threads before it ends; if it did not, XLA would crash for lack of what it
stands on.  So a program that has to end while something compiles ends by
`run_program`.
"""

import contextlib
import ctypes
import os
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import jax

from dreamer.streams import lossy

T = TypeVar("T")
LAST_WORDS = 3.0  # seconds

_running: set[Future] = set()


def start(name: str, function: Callable[..., T], *args: Any) -> Future[T]:
    """Calls a function in a thread of its own, whose name begins so.

    Returns:
      What it will have returned or raised.
    """
    thread = ThreadPoolExecutor(1, name)
    future = thread.submit(function, *args)
    _running.add(future)
    future.add_done_callback(_running.discard)
    thread.shutdown(wait=False)
    return future


def start_compiling(jitted: Callable, *args: Any) -> Future[Callable]:
    """Compiles a jitted function for the shapes of args, in a thread."""

    def compiled() -> Callable:
        try:
            return jitted.lower(*args).compile()
        finally:
            _give_back_memory()

    return start("compile", compiled)


def _give_back_memory() -> None:
    """Lets the system have what is free.

    After compiling an update that is 1 GB, which glibc would keep.
    """
    with contextlib.suppress(OSError, AttributeError):  # other C libraries
        ctypes.CDLL(None).malloc_trim(0)


def running() -> bool:
    """Whether something that `start` began has not ended."""
    return not all(future.done() for future in list(_running))


def run_program(main: Callable[[], int]) -> NoReturn:
    """Runs a program and ends the process with the exit code it returns.

    What `main` opened it must have closed: if something is running still,
    the process ends at once, without the clean-up of Python's end.  So does
    one of several that fails alone: JAX would wait for the others, and they
    for this one; this way they are ended too, within two minutes.

    What cannot be printed meanwhile is lost, and changes nothing else.
    """
    sys.stdout, sys.stderr = lossy(sys.stdout), lossy(sys.stderr)
    try:
        code = main()
    except BaseException:
        if not running() and not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        code = 1
    alone = code in (1, 2) and jax.distributed.is_initialized()
    if running() or alone:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        if alone:  # JAX ends the others with it, who have their say first
            time.sleep(LAST_WORDS)
        os._exit(code)
    sys.exit(code)
