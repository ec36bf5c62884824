"""How a run is doing, as its files and locks say."""

import os

import pytest

from dreamer.run import lock
from dreamer.run.status import SILENCE, Status
from dreamer.sweeps import output, standing
from dreamer.sweeps.standing import look


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
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        file.write(b"one\n")
    assert not output.is_held(logdir)
    with output.open_locked(logdir) as file:
        file.write(b"two\n")
    assert output.path_of(logdir).read_text() == "one\ntwo\n"
