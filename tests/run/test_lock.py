"""One run in a logdir, whatever dies, wherever it is started."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer.options import ConfigError
from dreamer.run import lock as lock_module
from dreamer.run.lock import acquire, check
from dreamer.status import BEAT, Status

ROOT = Path(__file__).resolve().parents[2]
# Takes the lock, says so, and waits until its input is closed.
HOLD = """
import sys
from pathlib import Path
from dreamer.options import ConfigError
from dreamer.run.lock import acquire, check
try:
    lock = acquire(Path(sys.argv[1]))
except ConfigError as error:
    print("refused", error, flush=True)
else:
    print("locked", flush=True)
    {then}
    sys.stdin.read()
"""


def start(logdir, then="pass"):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=then), str(logdir)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def content(path):
    return {x.name: x.read_bytes() for x in path.rglob("*")}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lock_module, "PATIENCE", 0.0)


def test_looking_changes_nothing(tmp_path):
    check(tmp_path / "no" / "such")
    check(tmp_path)
    (tmp_path / "file").touch()
    check(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_second_run_is_refused(tmp_path, impatient):
    logdir = tmp_path / "new" / "run"
    with acquire(logdir) as lock:
        assert lock.warning is None
        before = content(logdir)
        for take in (check, acquire):
            with pytest.raises(ConfigError) as error:
                take(logdir)
            line = str(error.value)
            assert line.startswith(f"logdir={logdir}: another run is using it")
            assert f"(process {os.getpid()} on host" in line
            assert socket.gethostname() in line
            assert "\n" not in line
        assert content(logdir) == before
    check(logdir)
    acquire(logdir).release()
    assert list(before) == ["lock"]
    owner = json.loads(before["lock"])
    assert owner["pid"] == os.getpid()
    assert owner["since"].endswith("+00:00")


@pytest.mark.parametrize("line", [b"", b'{"pid"', b"[]", b"\xff\x00"])
def test_second_run_is_refused_before_the_first_said_who_it_is(
    tmp_path, impatient, line
):
    with acquire(tmp_path):
        (tmp_path / "lock").write_bytes(line)
        with pytest.raises(ConfigError, match="using it; stop that or"):
            check(tmp_path)


def test_ends_with_its_process(tmp_path):
    process = start(tmp_path)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(ConfigError, match=f"process {process.pid} "):
        check(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    check(tmp_path)
    acquire(tmp_path).release()


@pytest.mark.parametrize(
    "child",
    [
        "import os; child = os.fork() or sys.stdin.read()",
        "import subprocess; subprocess.Popen(['sleep', '60'])",
        "import subprocess; subprocess.Popen('sleep 60', shell=True,"
        " close_fds=False)",
        "import time; from multiprocessing import get_context as get;"
        " get('forkserver').Process(target=time.sleep, args=(60,)).start()",
    ],
    ids=["fork", "program", "shell", "forkserver"],
)
def test_children_that_live_on_do_not_keep_it(tmp_path, child):
    process = start(tmp_path, then=child + "; print('born', flush=True)")
    for line in process.stdout:
        if line == "born\n":
            break
    process.kill()
    process.wait()
    try:
        acquire(tmp_path).release()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the group has the children
        process.stdin.close()
        process.stdout.close()


def test_of_many_at_once_one_wins(tmp_path):
    logdir = tmp_path / "new" / "run"
    processes = [start(logdir) for _ in range(6)]
    said = [process.stdout.readline() for process in processes]
    for process in processes:
        process.communicate()
    assert said.count("locked\n") == 1
    winner = processes[said.index("locked\n")].pid
    for line in said:
        assert line == "locked\n" or f"(process {winner} on host" in line


@pytest.mark.parametrize("another", [False, True])
def test_a_file_deleted_while_it_is_waited_for_is_no_lock(
    tmp_path, monkeypatch, another
):
    logdir = tmp_path / "new"
    held = [acquire(logdir)]

    def first_is_taken_back(seconds):
        monkeypatch.undo()
        (logdir / "lock").unlink()
        logdir.rmdir()
        if another:
            held.append(acquire(logdir))
        held.pop(0).release()

    monkeypatch.setattr(lock_module.time, "sleep", first_is_taken_back)
    if another:  # who waited must not believe that it has the lock too
        with pytest.raises(ConfigError, match="another run is using it"):
            acquire(logdir)
    else:
        held.append(acquire(logdir))
    with pytest.raises(ConfigError, match="another run is using it"):
        check(logdir)
    [last] = held
    last.release()
    check(logdir)


def test_a_folder_that_cannot_be_made_is_not_tried_for_ever(
    tmp_path, monkeypatch, impatient
):
    def vanishes(path, **_):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(Path, "mkdir", vanishes)  # as in /proc
    with pytest.raises(FileNotFoundError):
        acquire(tmp_path / "new")


def test_somebody_who_only_looks_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        wait = []

        def sleep(seconds):
            wait.append(seconds)
            fcntl.flock(file, fcntl.LOCK_UN)

        monkeypatch.setattr(lock_module.time, "sleep", sleep)
        acquire(tmp_path).release()
    assert len(wait) == 1


def lockless(monkeypatch, code=errno.ENOSYS):
    def flock(file, kind):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP]
)
def test_file_system_without_locks(tmp_path, monkeypatch, code):
    lockless(monkeypatch, code)
    (tmp_path / "lock").touch()
    check(tmp_path)
    with acquire(tmp_path) as lock:
        assert f"logdir={tmp_path}: " in lock.warning
        assert "\n" not in lock.warning


def said(logdir, state="running", seconds=0.0, **values):
    """What a run wrote to status.json so long ago."""
    Status(logdir, 100, 0).write(state, **{"pid": 1, **values})
    path = logdir / "status.json"
    written = json.loads(path.read_text())
    written["time"] -= seconds
    path.write_text(json.dumps(written))


@pytest.fixture
def ended():
    """The process id of one that is over."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "values",
    [
        {},  # process 1 of this host lives
        {"pid": None},
        {"host": "another"},
        {"host": "another", "pid": os.getpid()},
        {"seconds": 3 * BEAT},
    ],
)
def test_without_locks_the_status_tells_of_a_run(
    tmp_path, monkeypatch, values
):
    lockless(monkeypatch)
    acquire(tmp_path).release()
    said(tmp_path, **values)
    before = content(tmp_path)
    for take in (check, acquire):
        with pytest.raises(ConfigError, match="another run") as error:
            take(tmp_path)
        assert f"(process {os.getpid()} on host" in str(error.value)
        assert "\n" not in str(error.value)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "values",
    [
        {"state": "interrupted"},
        {"state": "failed"},
        {"host": "another", "seconds": 100.0},
        {"seconds": 1e6},
        {"pid": os.getpid()},  # as in a container that starts anew
    ],
)
def test_without_locks_a_run_goes_on_after_its_end(
    tmp_path, monkeypatch, values, ended
):
    lockless(monkeypatch)
    (tmp_path / "lock").touch()
    for what in (values, {"pid": ended}):
        said(tmp_path, **what)
        check(tmp_path)
        acquire(tmp_path).release()


def test_where_there_are_locks_the_status_does_not_count(tmp_path):
    said(tmp_path)
    check(tmp_path)
    acquire(tmp_path).release()


def test_other_errors_are_raised(tmp_path, monkeypatch):
    def flock(file, kind):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "lock").touch()
    for take in (check, acquire):
        with pytest.raises(OSError, match="broken"):
            take(tmp_path)


def test_nothing_is_held_if_it_cannot_be_written(tmp_path, monkeypatch):
    def write(file, data):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as context:
        context.setattr(lock_module.os, "write", write)
        with pytest.raises(OSError, match="full"):
            acquire(tmp_path)
    check(tmp_path)
