"""Environments that fail: replaced as often as allowed, with a report."""

import multiprocessing
import os
import re
import signal
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.config import GymConfig
from dreamer.envs.gym import GymAdapter
from dreamer.envs.make import make_env
from dreamer.envs.vector import EnvError
from dreamer.options import ConfigError
from tests.envs.scripted import (
    config,
    raise_odd_exception,
    scripted,
    wait_until_gone,
)


@pytest.mark.parametrize("num", [1, 3])
def test_an_error_shows_its_own_traceback_and_ends_all(build, num):
    make = scripted(fail=5, how=raise_odd_exception)
    envs = build([make] * num, 0, restarts=0)
    envs.reset()
    actions = np.zeros(num, int)
    actions[-1] = 5
    with pytest.raises(EnvError, match="in raise_odd_exception") as info:
        envs.step(actions)
    assert f"environment {num - 1} failed" in str(info.value)
    assert "100%d is not what it was" in str(info.value)
    assert multiprocessing.active_children() == []
    envs.close()


def test_a_worker_that_dies_is_reported(build):
    make = scripted(fail=5, how=lambda: os._exit(3))
    envs = build([make] * 3, 0, restarts=0)
    pids = envs.reset()["process"][:, 0]
    with pytest.raises(EnvError, match=r"environment 1 died .*code 3") as info:
        envs.step(np.array([0, 5, 0]))
    assert "\n" not in str(info.value)
    wait_until_gone(pids)


def exits():
    raise SystemExit(3)


class Panic(BaseException):
    """As Rust's, which is no Exception."""


def panics():
    raise Panic("on a thread")


def names_a_file():
    raise OSError("\udcff.rom is missing")


LATE = r"did not answer within 0.5 seconds \(run.env_timeout allows more\)"
FAILURES = {
    "raises": (
        raise_odd_exception,
        "failed with .*OddError: .*100%d is not what it was.*",
    ),
    "exits": (exits, "failed with SystemExit: 3"),
    "panics": (panics, r"failed with .*Panic: on a thread"),
    "names": (names_a_file, r"failed with OSError: \\udcff.rom is missing"),
    "dies": (lambda: os._exit(3), r"died without a word \(exit code 3\)"),
    "hangs": (lambda: time.sleep(600), LATE),
    "stops": (lambda: os.kill(os.getpid(), signal.SIGSTOP), LATE),
}


HERE = [(1, x) for x in ("raises", "exits", "panics", "names")]  # not hangs


@pytest.mark.parametrize(
    ("num", "name"), [*HERE, *((3, name) for name in FAILURES)]
)
def test_what_fails_is_replaced_and_begins_an_episode(build, num, name):
    how, line = FAILURES[name]
    make = scripted(fail=5, how=how)
    envs = build([make] * num, 0, timeout=0.5, restarts=2)
    pids = envs.reset()["process"][:, 0]
    envs.step(np.ones(num, int))
    actions = np.full(num, 2)
    actions[-1] = 5
    step = envs.step(actions)
    others = num - 1
    assert step["count"][:, 0].tolist() == [2] * others + [0]
    assert step["reward"].tolist() == [2] * others + [0]
    assert step["is_first"].tolist() == [False] * others + [True]
    assert not step["is_last"].any()
    assert not step["is_terminal"].any()
    if num > 1:
        assert (step["process"][:-1, 0] == pids[:-1]).all()
        assert step["process"][-1, 0] != pids[-1]
        wait_until_gone(pids[-1:])
    (report,) = envs.reports
    assert re.fullmatch(
        f"environment {others} {line}; its episode is closed as a truncation "
        r"and it was started again \(1 of 2\)",
        report,
    )
    # It goes on like the others, and fails no more often than allowed.
    step = envs.step(np.full(num, 3))
    assert step["count"][-1, 0] == 1
    assert not step["is_first"].any()
    envs.reports.clear()
    assert envs.step(actions)["is_first"][-1]
    assert "(2 of 2)" in envs.reports[0]
    with pytest.raises(EnvError, match=f"environment {others} ") as info:
        envs.step(actions)
    left = "no replacement is left of run.env_restarts=2"
    assert str(info.value).endswith(left)
    assert len(envs.reports) == 1
    assert multiprocessing.active_children() == []


def test_all_can_fail_at_once(build):
    make = scripted(fail=5, how=lambda: time.sleep(600))
    envs = build([make] * 3, 0, timeout=0.5, restarts=3)
    envs.reset()
    start = time.monotonic()
    assert envs.step(np.full(3, 5))["is_first"].all()
    assert time.monotonic() - start < 30
    assert len(envs.reports) == 3


def test_a_worker_that_was_killed_between_steps_is_replaced(build):
    envs = build([scripted()] * 2, 0)
    pids = envs.reset()["process"][:, 0]
    os.kill(pids[1], signal.SIGKILL)
    step = envs.step(np.zeros(2, int))
    assert step["is_first"].tolist() == [False, True]
    assert "(exit code -9)" in envs.reports[0]


def broken_after(path, times):
    """A function that builds environments that work so often only."""

    def make():
        count = int(path.read_text() or 0) if path.exists() else 0
        path.write_text(str(count + 1))
        if count >= times:
            raise OSError("no more licences")
        return scripted(fail=5, how=raise_odd_exception)()

    return make


@pytest.mark.parametrize("num", [1, 2])
def test_failing_to_build_it_again_counts_too(build, num, tmp_path):
    make = broken_after(tmp_path / "count", times=num)
    envs = build([make] * num, 0, restarts=3)
    envs.reset()
    with pytest.raises(EnvError, match="OSError: no more licences"):
        envs.step(np.full(num, 5))
    assert len(envs.reports) == 3
    assert "OddError" in envs.reports[0]
    assert "its episode is closed" in envs.reports[0]
    failed = "failed with OSError: no more licences; it was started again"
    assert failed in envs.reports[-1]


@pytest.mark.parametrize("num", [1, 2])
def test_a_failure_at_a_reset_loses_no_episode(build, num):
    class FailsOnce(scripted(length=2)):
        def reset(self, **kwargs):
            self.resets = getattr(self, "resets", 0) + 1
            if self.resets == 2:
                raise_odd_exception()
            return super().reset(**kwargs)

    envs = build([FailsOnce] * num, 0)
    envs.reset()
    steps = [envs.step(np.ones(num, int)) for _ in range(3)]
    assert steps[1]["is_last"].all()
    assert steps[2]["is_first"].all()
    assert len(envs.reports) == num
    assert "its episode" not in envs.reports[0]


@pytest.mark.parametrize("num", [1, 2])
def test_one_that_fails_to_end_is_replaced_too(build, num):
    class Stuck(scripted(fail=5, how=panics)):
        def close(self):
            panics()

    envs = build([Stuck] * num, 0)
    envs.reset()
    assert envs.step(np.full(num, 5))["is_first"].all()
    assert len(envs.reports) == num
    envs.close()


@pytest.mark.parametrize("num", [1, 2])
def test_a_replacement_has_a_seed_of_its_own(build, num):
    make = scripted(fail=5, how=raise_odd_exception)

    def play():
        envs = build([make] * num, 3)
        rows = [envs.reset()]
        rows += [envs.step(np.full(num, a)) for a in (1, 5, 1, 5)]
        return np.stack([row["began"] for row in rows])[..., 0]

    seeds = play()
    begun = seeds[[0, 2, 4]].ravel().tolist()
    assert len(set(begun)) == 3 * num
    np.testing.assert_array_equal(seeds, play())


@pytest.mark.parametrize("num", [1, 2])
def test_what_cannot_be_built_is_refused_at_once(build, num, tmp_path):
    class Odd(gymnasium.Env):
        observation_space = spaces.Dict(word=spaces.Text(5))
        action_space = spaces.Discrete(2)

    def unsupported():
        return GymAdapter(Odd(), GymConfig())

    with pytest.raises(ConfigError, match="Text") as info:
        build([unsupported] * num, 0)
    assert "\n" not in str(info.value)
    # A space that no adapter makes is a bug, which has a traceback.
    with pytest.raises(EnvError, match="in to_space") as bug:
        build([Odd] * num, 0)
    assert "Text" in str(bug.value)
    with pytest.raises(ConfigError, match="did you mean gym_CartPole-v1"):
        build(config("gym_CartPol-v1", num))
    with pytest.raises(EnvError, match="OSError: no more licences"):
        build([broken_after(tmp_path / "count", 0)] * num, 0)
    assert multiprocessing.active_children() == []


def test_environments_that_differ_are_refused(build):
    makes = [lambda: make_env(config("gym_CartPole-v1", 1)), scripted()]
    with pytest.raises(ConfigError, match=r"of one run differ: .* be"):
        build(makes, 0)
