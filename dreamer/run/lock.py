"""One run at a time in a logdir.

The lock is the kernel's, on the file `<logdir>/lock`: it ends with the
process, in whatever way that dies, so that nobody ever has to clear one up.
The file says who has it, or had it last. A run never deletes it; who does, as
a sweep's first command that came to nothing, still holds the lock then, and
whoever waited for it finds that this file is no longer the folder's.

Where a file system has no locks, a run is believed to go on while status.json
says so, unless it has been silent for some beats or its process is gone.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from dreamer import status
from dreamer.options import ConfigError

FILE = "lock"
PATIENCE = 1.0  # seconds; somebody else's `check` holds a lock for an instant
BEATS = 6  # of status.json, after which who is silent is thought dead
# What file systems say that have no locks: Lustre without -o flock, FUSE.
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def check(logdir: Path) -> None:
    """Looks whether a run is going on, and changes nothing.

    Raises:
      ConfigError: there is one; in a line that says which.
      OSError: the file is there and cannot be read.
    """
    try:
        file = os.open(logdir / FILE, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        # Shared, for over NFS an exclusive lock asks to write.
        _refuse_unless(try_lock(file, fcntl.LOCK_SH), logdir, "run")
    finally:
        os.close(file)


def acquire(logdir: Path, what: str = "run") -> "Lock":
    """Takes the lock, and makes folder and file if need be.

    Of processes that do this at once, exactly one succeeds, also if another
    one deletes the file before it gives the lock back.

    Args:
      logdir: folder of a run, or of something else that is done once at a
        time.
      what: word for that.

    Raises:
      ConfigError: another one has it; in a line that says which.
      OSError: the file cannot be written.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            lock = _acquire(logdir, what)
        except FileNotFoundError:
            # Deleted meanwhile; or, as in /proc, it cannot be made.
            if logdir.exists() or time.monotonic() > end:
                raise
            continue
        if lock.is_of(logdir):
            return lock
        lock.release()  # its file was deleted meanwhile


def _acquire(logdir: Path, what: str) -> "Lock":
    logdir.mkdir(parents=True, exist_ok=True)
    # Python opens files so that a program which it starts does not have them.
    file = os.open(logdir / FILE, os.O_RDWR | os.O_CREAT, 0o666)
    lock = Lock(file)
    try:
        locked = wait_for_lock(file)
        _refuse_unless(locked, logdir, what)
        if locked is None:
            lock.warning = (
                f"logdir={logdir}: this file system has no locks; take care"
                " that no other run uses it"
            )
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(file, 0)
        os.write(file, json.dumps(owner).encode() + b"\n")
    except BaseException:
        lock.release()
        raise
    return lock


class Lock:
    """A lock that this process holds; also a context manager.

    Attributes:
      warning: where the file system has no locks, a line that says so; the
        run can go on, but only status.json keeps a second one out.
    """

    def __init__(self, file: int) -> None:
        self.warning: str | None = None
        self._file: int | None = file
        # A forked child would keep the lock for longer than we live.
        os.register_at_fork(after_in_child=self.release)

    def is_of(self, logdir: Path) -> bool:
        """Whether the file that is locked is the one in this folder."""
        if self._file is None:
            return False
        try:
            there = os.stat(logdir / FILE)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._file), there)

    def release(self) -> None:
        """Gives the lock up. In a forked child: the parent keeps it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.release()


def try_lock(file: int, kind: int) -> bool | None:
    """Locks an open file; False: another has it; None: there are no locks.

    Raises:
      OSError: the file system fails.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return None
    return True


def wait_for_lock(file: int) -> bool | None:
    """As `try_lock`, exclusively; False once another has had it for long."""
    end = time.monotonic() + PATIENCE
    while (locked := try_lock(file, fcntl.LOCK_EX)) is False:
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    return locked


def _refuse_unless(locked: bool | None, logdir: Path, what: str) -> None:
    if locked is False or (locked is None and _seems_alive(logdir)):
        raise _taken(logdir, what)


def _seems_alive(logdir: Path) -> bool:
    """Whether a run goes on here, by what it wrote last."""
    said = status.read(logdir) or {}
    if said.get("state") != "running" or said["silent"] > BEATS * status.BEAT:
        return False
    if said.get("host") != socket.gethostname():
        return True
    pid = said.get("pid")
    if not isinstance(pid, int):
        return True  # nobody knows
    return pid != os.getpid() and process_lives(pid)


def process_lives(pid: int) -> bool:
    """Whether this host has such a process."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _taken(logdir: Path, what: str) -> ConfigError:
    """What to tell a second run. The first may be just writing its line."""
    who = ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((logdir / FILE).read_bytes())
        who = (
            f" (process {owner['pid']} on host {owner['host']},"
            f" since {owner['since']})"
        )
    return ConfigError(
        f"logdir={logdir}: another {what} is using it{who}; stop that or use"
        " another logdir"
    )
