"""What a run prints, in a file beside its logdir, and a lock on that file.

Whoever starts a run locks `<logdir>.log` and gives the open file to the run
as its output. The kernel keeps the lock until the last process that has the
file has ended, in whatever way. So a run is seen to go on from the instant it
is started, minutes before it locks its logdir, also when whoever started it
is gone. Next: standing.py, which looks at both.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from dreamer.options import one_line
from dreamer.run.lock import try_lock, wait_for_lock

TAIL = 8192  # bytes at the end of a file, in which its last line is


def path_of(logdir: Path) -> Path:
    """Of the file, given the run's folder; whose name may have dots."""
    return logdir.with_name(f"{logdir.name}.log")


def open_locked(logdir: Path) -> BinaryIO | None:
    """The file, locked, to be appended to; None if a run has it.

    Raises:
      OSError: it cannot be written.
    """
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(path_of(logdir).open("ab", buffering=0))
        if wait_for_lock(file.fileno()) is False:
            return None
        opened.pop_all()
    return file


def is_held(logdir: Path) -> bool:
    """Whether a process has it, which is the run or on its way to be it.

    Raises:
      OSError: the file is there and cannot be read.
    """
    return try_shared(path_of(logdir)) is False


def try_shared(path: Path) -> bool | None:
    """Whether nobody has locked a file; None if its file system has no locks.

    Raises:
      OSError: the file is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            return try_lock(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return True


def last_line(logdir: Path) -> str | None:
    """The last thing that a run said; None if it said nothing."""
    with contextlib.suppress(OSError), path_of(logdir).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        lines = file.read().decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return one_line(said[-1]) if said else None
    return None
