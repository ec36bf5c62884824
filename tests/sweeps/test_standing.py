"""How a run is doing, as its files and locks say."""

import errno
import fcntl
import subprocess

import pytest

from dreamer.run import lock
from dreamer.status import SILENCE, Status
from dreamer.sweeps import output, record, standing
from dreamer.sweeps.local import Local
from dreamer.sweeps.slots import Slot
from dreamer.sweeps.standing import look
from tests.sweeps import fake_train


@pytest.fixture
def logdir(tmp_path):
    folder = tmp_path / "a.b-0"  # with a dot, as in v0.1
    folder.mkdir()
    return folder


def say(logdir, state="running", error=None, host=None, ago=0.0, **values):
    status = Status(logdir, 100, 0)
    if host:
        status._values["host"] = host
    status.write(state, error, **values)
    if ago:
        path = logdir / "status.json"
        text = path.read_text()
        now = status._values["time"]
        path.write_text(text.replace(str(now), str(now - ago)))


def test_nothing_was_started(tmp_path):
    assert look(tmp_path / "none").state == "waiting"


def test_done_and_what_is_done_when_more_is_asked_for(logdir):
    say(logdir, "done", policy_steps=100)
    assert look(logdir).state == "done"
    assert look(logdir, 100).state == "done"
    assert look(logdir, 101).state == "interrupted"


def test_interrupted_and_failed_with_the_reason(logdir):
    say(logdir, "interrupted")
    assert look(logdir).state == "interrupted"
    say(logdir, "failed", "out of memory")
    assert look(logdir).state == "failed"
    assert look(logdir).error == "out of memory"


def test_it_failed_before_it_could_say_so(tmp_path):
    logdir = tmp_path / "a.b-0"
    output.path_of(logdir).write_text("first\nlogdir=x: no\x1b[0m\n\n")
    assert look(logdir).state == "failed"
    assert look(logdir).error == "logdir=x: no\\x1b[0m"


def test_a_lock_says_that_it_is_going_on(logdir):
    say(logdir)
    assert look(logdir).state == "lost"
    with lock.acquire(logdir):
        assert look(logdir).state == "running"
        assert look(logdir).here
    with output.open_locked(logdir):
        assert look(logdir).state == "running"
    assert look(logdir).state == "lost"


def test_a_lock_counts_more_than_what_the_run_said_before(logdir):
    say(logdir, "done", policy_steps=100)
    with output.open_locked(logdir):
        assert look(logdir).state == "running"


def test_on_another_machine_its_word_counts_until_it_is_silent(logdir):
    say(logdir, host="elsewhere", ago=SILENCE - 60)
    assert look(logdir).state == "running"
    assert not look(logdir).here
    say(logdir, host="elsewhere", ago=SILENCE + 60)
    assert look(logdir).state == "lost"


@pytest.fixture
def no_locks(monkeypatch):
    """As on Lustre without -o flock."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_its_process_counts(logdir, no_locks):
    (logdir / lock.FILE).write_text("{}")
    quiet = SILENCE - 60  # as while it compiles
    say(logdir, ago=quiet)
    assert look(logdir).state == "running"
    assert look(logdir).here
    say(logdir, ago=SILENCE + 60)
    assert look(logdir).state == "lost"
    child = subprocess.Popen(["true"])
    child.wait()
    for pid in (child.pid, 0, -1, None, "1", 1 << 70):
        say(logdir, ago=quiet, pid=pid)
        assert look(logdir).state == "lost", pid


def test_without_locks_a_run_is_not_started_twice(logdir, no_locks):
    (logdir / lock.FILE).write_text("{}")
    say(logdir)
    run = fake_train.make(logdir.parent, logdir.name)
    found = record.Record(logdir.parent)
    found.add([run])
    sweep = Local([run], found, [Slot(0, "slot")], 0, lambda line: None)
    sweep._adopt()
    assert [active.process for active in sweep.active] == [None]
    assert not sweep.waiting


def test_speed_counts_from_the_last_start_and_after_the_first_update(logdir):
    values = {"began": 0.0, "began_steps": 10, "time": 20.0}
    said = {**values, "policy_steps": 50, "updates": 1}
    assert standing.Standing("running", values=said).steps_per_second == 2.0
    for wrong in ({"updates": 0}, {"policy_steps": 10}, {"began": None}):
        found = standing.Standing("running", values={**said, **wrong})
        assert found.steps_per_second is None


def test_only_one_has_the_output(logdir):
    with output.open_locked(logdir) as file:
        assert output.open_locked(logdir) is None
        assert output.is_held(logdir)
        # A child that has it too, as a run has, gives nothing back by ending.
        subprocess.run(["true"], check=True, pass_fds=[file.fileno()])
        file.write(b"one\n")
    assert not output.is_held(logdir)
    with output.open_locked(logdir) as file:
        file.write(b"two\n")
    assert output.path_of(logdir).read_text() == "one\ntwo\n"
