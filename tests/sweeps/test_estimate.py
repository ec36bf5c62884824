"""What a sweep will take, beside what is known of it."""

import re
import shutil
from types import SimpleNamespace

import pytest

from dreamer.presets import presets
from dreamer.settings import load
from dreamer.status import Status
from dreamer.sweeps import estimate, record, table
from dreamer.sweeps.estimate import Planned, Speeds
from dreamer.sweeps.grid import expand
from dreamer.sweeps.standing import Standing, look


def config(*words):
    return load(["--configs", *words])


def test_the_replay_takes_what_is_measured():
    """28.7 KB per step at size200m in bfloat16, see the README."""
    whole = config("atari100k", "size200m")
    each = estimate.replay_bytes(whole, True) / 110_000
    assert each == pytest.approx(28_700, rel=0.002)
    slow = estimate.replay_bytes(whole, False) / 110_000
    assert slow == pytest.approx(28_700 + 2 * 8192, rel=0.002)


SIZES = [x for x in presets() if x.startswith("size")]


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_about_what_the_presets_names_say(size):
    here = config("atari100k", size)
    room = estimate.disk_bytes(here, True) - estimate.replay_bytes(here, True)
    count = room / estimate.CHECKPOINT_BYTES / estimate.CHECKPOINTS
    millions = int(re.fullmatch(r"size(\d+)m", size)[1])
    assert count == pytest.approx(1e6 * millions, rel=0.25)


@pytest.fixture
def sweep(tmp_path):
    """Four runs: done in 1000 s, half done, and two to come."""
    runs = expand(
        ["debug"],
        {"task": "gym_CartPole-v1", "seed": "0,1,2,3", "run.steps": "1000"},
        tmp_path,
    )
    found = record.read(tmp_path)
    found.add(runs)
    for run, steps, state in zip(
        runs, (1000, 500), ("done", "interrupted"), strict=False
    ):
        logdir = tmp_path / run.name
        logdir.mkdir()
        status = Status(logdir, 1000, 0)
        status.write(state, policy_steps=steps, updates=9)
        status._values["began"] = status._values["time"] - steps
        status.write(state)
    planned = [Planned(x, look(tmp_path / x.name)) for x in runs]
    return tmp_path, found, planned


def test_hours_follow_from_the_speed_of_like_runs(sweep):
    folder, found, planned = sweep
    speeds = Speeds(found)
    assert speeds.left(planned) == pytest.approx(500 + 1000 + 1000, rel=0.01)
    text = "\n".join(table.plan(planned, speeds, folder, 2, 2))
    assert "4: 1 done, 1 interrupted, 2 waiting; 3 to do" in text
    assert "2,500 policy steps" in text
    # 3 runs in 2 slots take two rounds.
    assert "0.694 hours of runs, 0.347 hours of GPUs, 27:4" in text


def test_runs_of_other_settings_say_nothing(sweep):
    _, found, _ = sweep
    (other,) = expand(["debug"], {"batch_length": "5"}, found.folder)
    waiting = Planned(other, Standing("waiting"))
    assert Speeds(found).left([waiting]) is None
    assert Speeds(found, hours=2).left([waiting]) == 7200


def test_the_plan_says_so_where_no_speed_is_known(sweep):
    folder, _, planned = sweep
    none = Speeds(record.read(folder / "none"))
    text = "\n".join(table.plan(planned, none, folder, None, None))
    assert "unknown until the first run reports" in text


def test_ram_is_of_the_runs_that_are_there_and_of_one_machine(sweep):
    folder, found, planned = sweep
    speeds = Speeds(found)

    def ram(planned, at_a_time, **more):
        lines = table.plan(planned, speeds, folder, at_a_time, None, **more)
        return next(x for x in lines if x.startswith("  RAM"))

    assert ram(planned, 2).endswith(" for 2 at a time")
    assert ram(planned, 20).endswith(" for 3 at a time")  # one is done
    assert "at a time" not in ram(planned[-1:], 2)
    assert "at a time" not in ram(planned, 20, one_machine=False)


def test_runs_that_do_not_fit_in_ram_together_are_warned_of(
    sweep, monkeypatch
):
    folder, found, planned = sweep
    monkeypatch.setattr(table, "available_ram", lambda: 2 * 10**9)

    def warned(at_a_time, **more):
        speeds = Speeds(found)
        lines = table.plan(planned, speeds, folder, at_a_time, None, **more)
        return [x for x in lines if x.startswith("Warning")]

    assert warned(1) == warned(None) == warned(2, one_machine=False) == []
    (line,) = warned(2)
    assert line.startswith("Warning: the runs may need 3.0 GB of RAM")
    assert "and 2.0 GB are free" in line


def test_a_disk_that_is_too_small_has_a_line_of_its_own(sweep, monkeypatch):
    folder, found, planned = sweep

    def plan(free):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        return table.plan(planned, Speeds(found), folder, 2, None)

    assert not any("Warning" in line for line in plan(10**15))
    assert plan(1_000_000)[-1].startswith("Warning: the runs may need ")
    assert f"of disk in {folder}, where 1 MB are free" in plan(1_000_000)[-1]


def test_rows_align_and_end_with_errors():
    values = {"policy_steps": 50, "steps": 100, "host": "node7"}
    speed = {"began": 0, "began_steps": 0, "time": 10, "updates": 1}
    lines = table.rows(
        {
            "a-0": Standing("running", values={**values, **speed}),
            "longer-0": Standing("failed", "no luck", values=values),
            "c-0": Standing("waiting"),
        }
    )
    assert lines[1].split() == [
        "a-0",
        "running",
        "50/100",
        "50%",
        "5",
        "0:10",
        "node7",
    ]
    assert lines[2].endswith("node7  no luck")
    assert lines[3].split() == ["c-0", "waiting", "-", "-", "-", "-"]
    assert len({line.find("50/100") for line in lines[1:3]}) == 1
