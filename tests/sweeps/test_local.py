"""Runs on this machine: started once, tried again, stopped, left alone."""

import contextlib
import errno
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from dreamer.options import ConfigError
from dreamer.run.when import StopSignal
from dreamer.sweeps import local as local_runs
from dreamer.sweeps import output, record, standing
from dreamer.sweeps.local import Local
from dreamer.sweeps.slots import Slot
from tests.sweeps import fake_train
from tests.sweeps.fake_train import ROOT, make, starts

PATIENCE = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(local_runs, "POLL", 0.01)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def work(folder, runs, slots=1, retries=1):
    """Runs a sweep to its end; gives the exit code, it, and what it said."""
    found = record.read(folder)
    found.add(runs)
    if isinstance(slots, int):
        slots = [Slot(number, f"slot {number}") for number in range(slots)]
    said = []
    local = Local(runs, found, slots, retries, said.append)
    with StopSignal() as stop:
        code = local.work(stop, lambda: None)
    return code, local, said


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def sweep(folder, jobs, *runs):
    """A sweep as a process of its own; what is left of it is ended."""
    command = [sys.executable, "-m", "tests.sweeps.fake_sweep"]
    process = subprocess.Popen(
        [*command, str(folder), str(jobs), *runs],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        for word in runs:
            name = word.partition("=")[0]
            for line in starts(folder, name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line.split()[0]), signal.SIGKILL)


def test_every_run_is_started_once_and_the_next_time_none(tmp_path):
    runs = [make(tmp_path, name) for name in "abc"]
    code, local, _ = work(tmp_path, runs, slots=2)
    assert code == 0
    assert sorted(local.done) == ["a", "b", "c"]
    code, _, said = work(tmp_path, runs)
    assert (code, said) == (0, [])
    assert [len(starts(tmp_path, x)) for x in "abc"] == [1, 1, 1]


def test_a_run_that_fails_is_tried_again_and_the_others_go_on(tmp_path):
    behaviours = {
        "a": "fails",
        "b": "fails once",
        "c": "dies once",
        "d": "dies",
        "e": "done",
    }
    runs = [make(tmp_path, *x) for x in behaviours.items()]
    code, local, said = work(tmp_path, runs)
    assert code == 1
    assert local.failed == {"a": "out of luck", "d": "killed by signal 9"}
    assert sorted(local.done) == ["b", "c", "e"]
    counts = {x: len(starts(tmp_path, x)) for x in behaviours}
    assert counts == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 1}
    assert "a: failed, will be tried again: out of luck" in said


def test_no_retries_if_none_are_wanted(tmp_path):
    code, local, _ = work(tmp_path, [make(tmp_path, "a", "fails")], retries=0)
    assert (code, list(local.failed)) == (1, ["a"])
    assert len(starts(tmp_path, "a")) == 1


def test_what_is_refused_is_not_tried_again(tmp_path):
    code, local, _ = work(tmp_path, [make(tmp_path, "a", "refused")])
    assert code == 1
    assert local.failed == {"a": "fake: refused: it cannot work"}
    log = (tmp_path / "a.log").read_text()
    assert log.count("refused") == 1


def test_a_run_that_somebody_interrupts_goes_on(tmp_path):
    code, _, said = work(tmp_path, [make(tmp_path, "a", "interrupted")])
    assert code == 0
    assert len(starts(tmp_path, "a")) == 3
    assert said.count("a: interrupted, goes on") == 2


def test_but_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(local_runs, "INTERRUPTIONS", 1)
    code, local, _ = work(tmp_path, [make(tmp_path, "a", "interrupted")])
    assert code == 1
    assert local.failed == {"a": "interrupted 2 times"}


def test_a_program_that_cannot_be_started_is_a_failed_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    code, local, _ = work(tmp_path, [make(tmp_path, "a")])
    assert code == 1
    assert local.failed == {"a": "No such file or directory"}
    assert standing.look(tmp_path / "a").state == standing.WAITING


def test_runs_have_the_share_of_the_machine_that_their_slot_is(tmp_path):
    core = max(os.sched_getaffinity(0))
    slot = Slot(0, "", {"CUDA_VISIBLE_DEVICES": "3"}, (core,))
    work(tmp_path, [make(tmp_path, "a")], [slot])
    _, gpu, *cores = starts(tmp_path, "a")[0].split()
    assert (gpu, cores) == ("3", [str(core)])


def test_a_signal_stops_all_runs_and_starts_no_other(tmp_path):
    words = ["a=waits", "b=waits", "c=done"]
    with sweep(tmp_path, 2, *words) as process:
        until(lambda: (tmp_path / "a" / "waits").exists())
        until(lambda: (tmp_path / "b" / "waits").exists())
        process.terminate()
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 75, out
        states = [standing.look(tmp_path / x).state for x in "abc"]
        assert states == ["interrupted", "interrupted", "waiting"]
    with sweep(tmp_path, 2, *words) as process:
        for name in "ab":
            until(lambda name=name: len(starts(tmp_path, name)) == 2)
            (tmp_path / name / "go").touch()
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, out
        assert standing.look(tmp_path / "c").state == standing.DONE


def test_a_second_sweep_of_the_folder_is_refused(tmp_path):
    with sweep(tmp_path, 1, "a=waits") as process:
        until(lambda: (tmp_path / "a" / "waits").exists())
        with pytest.raises(
            ConfigError, match="another sweep is using it"
        ) as found:
            record.hold(tmp_path)
        assert f"process {process.pid}" in str(found.value)


def test_runs_outlive_a_killed_sweep_and_are_not_started_twice(tmp_path):
    """Each keeps its place until it ends; then others take it."""
    words = ["a=waits", "b=waits", "c=done"]
    with sweep(tmp_path, 2, *words) as process:
        until(lambda: (tmp_path / "a" / "waits").exists())
        until(lambda: (tmp_path / "b" / "waits").exists())
        process.kill()
        process.wait()
        assert standing.look(tmp_path / "a").state == standing.RUNNING
        with sweep(tmp_path, 2, *reversed(words)) as second:
            lines = [second.stdout.readline() for _ in range(2)]
            assert lines == [
                f"{x}: already running here; not started again\n" for x in "ba"
            ]
            assert not starts(tmp_path, "c")
            (tmp_path / "a" / "go").touch()
            until(lambda: starts(tmp_path, "c"))
            (tmp_path / "b" / "go").touch()
            out, _ = second.communicate(timeout=PATIENCE)
            assert second.returncode == 0, out
            assert [len(starts(tmp_path, x)) for x in "abc"] == [1, 1, 1]


def test_a_run_that_has_not_locked_its_logdir_yet_is_seen(tmp_path):
    """From the instant that it is started its output is locked."""
    run = make(tmp_path, "a")
    with output.open_locked(tmp_path / "a") as file:
        sleeper = subprocess.Popen(["sleep", "600"], stdout=file)
    try:
        assert standing.look(tmp_path / "a").state == standing.RUNNING
        assert output.open_locked(tmp_path / "a") is None
        sleeper.kill()
        sleeper.wait()
        assert work(tmp_path, [run])[0] == 0
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.fixture
def ill(monkeypatch):
    """Lets a look at a run fail, by the number of the look."""

    def make(name, *numbers):
        count = itertools.count(1)
        real = standing.look

        def look(logdir, steps=None):
            if logdir.name == name and next(count) in numbers:
                raise OSError(errno.ESTALE, "Stale file handle")
            return real(logdir, steps)

        monkeypatch.setattr(local_runs, "look", look)

    return make


@pytest.mark.parametrize("numbers", [[1], [2], [3], [1, 2, 3, 4]])
def test_a_folder_that_cannot_be_read_for_a_while(tmp_path, ill, numbers):
    """Before a run is started, and when it is over."""
    ill("a", *numbers)
    runs = [make(tmp_path, name) for name in "ab"]
    code, local, said = work(tmp_path, runs)
    assert code == 0
    assert sorted(local.done) == ["a", "b"]
    line = "a: cannot be read, tried again: Stale file handle"
    assert said.count(line) == 1
    assert len(starts(tmp_path, "a")) == 1


def test_a_folder_that_cannot_be_read_any_more(tmp_path, ill):
    ill("a", *range(1000))
    runs = [make(tmp_path, name) for name in "ab"]
    settings = runs[0].config
    short = replace(settings.run, disk_patience=0.0)
    runs[0] = replace(runs[0], config=replace(settings, run=short))
    code, local, _ = work(tmp_path, runs)
    assert (code, local.done) == (1, ["b"])
    assert local.failed == {"a": "its folder cannot be read for 0 s"}


def test_nobody_to_see_it_ends_no_sweep(tmp_path):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    run = make(tmp_path, "a")
    found = record.read(tmp_path)
    found.add([run])
    local = Local([run], found, [Slot(0, "")], 0, refuse)
    with StopSignal() as stop:
        assert local.work(stop, refuse) == 0
    assert local.done == ["a"]


def test_a_run_that_somebody_has_for_an_instant_is_not_left_out(
    tmp_path, monkeypatch
):
    real, tries = output.open_locked, []

    def open_locked(logdir):
        tries.append(logdir)
        return real(logdir) if len(tries) > 1 else None

    monkeypatch.setattr(output, "open_locked", open_locked)
    code, local, _ = work(tmp_path, [make(tmp_path, "a")])
    assert (code, local.done, local.left) == (0, ["a"], [])


def test_who_looks_at_a_run_does_not_keep_it_from_a_sweep(tmp_path):
    """`status` holds a lock on the output for an instant."""
    path = output.path_of(tmp_path / "a")
    with path.open("wb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        gone = threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN))
        gone.start()
        with output.open_locked(tmp_path / "a") as file:
            assert file is not None
        gone.join()


def test_a_run_on_another_machine_is_left_out(tmp_path):
    logdir = tmp_path / "a"
    logdir.mkdir()
    status = fake_train.Status(logdir, 10, 0)
    status._values["host"] = "elsewhere"
    status.write("running")
    runs = [make(tmp_path, name) for name in "ab"]
    code, local, said = work(tmp_path, runs)
    assert (code, local.left, local.done) == (75, ["a"], ["b"])
    assert said[0] == "a: already running on elsewhere; not started again"
    assert not starts(tmp_path, "a")
    runs.append(make(tmp_path, "c", "refused"))
    assert work(tmp_path, runs)[0] == 1
    status.write("done", policy_steps=10)
    assert work(tmp_path, runs[:2])[0] == 0
