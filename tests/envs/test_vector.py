"""Vectorised stepping: equality, ends of episodes, failing workers."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.config import AtariConfig, Config
from dreamer.envs.vector import EnvError, Envs, make_envs
from dreamer.spaces import Space

FLAGS = {"reward", "is_first", "is_last", "is_terminal"}


def config(task, envs, seed=0, **atari):
    start = Config()
    settings = AtariConfig(
        **{
            "size": (64, 64),
            "sticky": 0.25,
            "gray": False,
            "actions": "needed",
            **atari,
        }
    )
    return dataclasses.replace(
        start,
        task=task,
        seed=seed,
        run=dataclasses.replace(start.run, envs=envs),
        env=dataclasses.replace(start.env, atari=settings),
    )


@pytest.fixture
def build():
    """Makes `Envs` that are closed after the test, whatever happens."""
    made = []

    def make(*args, **kwargs):
        envs = (make_envs if len(args) == 1 else Envs)(*args, **kwargs)
        made.append(envs)
        return envs

    yield make
    for envs in made:
        envs.close()
    assert multiprocessing.active_children() == []


def scripted(**settings):
    """A function that builds an environment which follows a script.

    Observations count the steps of the episode. Defined inside, so that
    workers receive it by value.
    """

    class Scripted(gymnasium.Env):
        observation_space = spaces.Dict(
            count=spaces.Box(0, 99, (1,), np.float32),
            process=spaces.MultiDiscrete([2**31]),
        )
        action_space = spaces.Discrete(9)

        def _obs(self):
            return {
                "count": np.array([self.count], np.float32),
                "process": np.array([os.getpid()]),
            }

        def reset(self, *, seed=None, options=None):
            self.count = 0
            return self._obs(), {"is_terminal": True, "junk": lambda: 0}

        def step(self, action):
            self.count += 1
            if settings.get("fail") == action == 5:
                settings["how"]()
            end = self.count == settings.get("length", 3)
            terminal = end and settings.get("terminal", True)
            info = {"junk": lambda: 0}
            if settings.get("lost_life") == self.count:
                info["is_terminal"] = True
            reward = float(action)
            return self._obs(), reward, terminal, end and not terminal, info

    return Scripted


@pytest.mark.parametrize("num", [1, 3])
def test_the_step_after_is_last_is_first(build, num):
    envs = build([scripted()] * num, 0)
    step = envs.reset()
    assert set(step) == FLAGS | {"count", "process"}
    rows = [step] + [envs.step(np.full(num, 2)) for _ in range(8)]
    for env in range(num):
        read = {
            key: [row[key][env].item() for row in rows]
            for key in ("count", *FLAGS)
        }
        assert read["count"] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
        assert read["reward"] == [0, 2, 2, 2, 0, 2, 2, 2, 0]
        assert read["is_first"] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
        assert read["is_last"] == [0, 0, 0, 1, 0, 0, 0, 1, 0]
        assert read["is_terminal"] == read["is_last"]
    dtypes = {key: value.dtype for key, value in rows[-1].items()}
    assert dtypes == {
        "count": np.float32,
        "process": np.int32,
        "reward": np.float32,
        "is_first": bool,
        "is_last": bool,
        "is_terminal": bool,
    }


@pytest.mark.parametrize("num", [1, 2])
def test_what_is_terminal(build, num):
    limited = build([scripted(terminal=False)] * num, 0)
    limited.reset()
    steps = [limited.step(np.zeros(num, int)) for _ in range(3)]
    assert steps[-1]["is_last"].all()
    assert not steps[-1]["is_terminal"].any()
    # A lost life is terminal and the episode goes on.
    lives = build([scripted(lost_life=2)] * num, 0)
    lives.reset()
    steps = [lives.step(np.zeros(num, int)) for _ in range(3)]
    assert [s["is_terminal"].all().item() for s in steps] == [0, 1, 1]
    assert [s["is_last"].any().item() for s in steps] == [0, 0, 1]


@pytest.mark.parametrize("num", [1, 3])
def test_reset_in_the_middle_of_an_episode(build, num):
    envs = build([scripted()] * num, 0)
    envs.reset()
    for _ in range(3):
        assert not envs.step(np.ones(num, int))["is_first"].any()
    step = envs.reset()
    assert step["is_first"].all()
    assert not step["is_last"].any()
    step = envs.step(np.ones(num, int))
    assert not step["is_first"].any()
    assert (step["count"] == 1).all()


@pytest.mark.parametrize("num", [1, 2])
def test_results_are_not_overwritten_by_later_steps(build, num):
    envs = build([scripted()] * num, 0)
    steps = [envs.reset()]
    copies = [{k: v.copy() for k, v in steps[0].items()}]
    for _ in range(10):
        steps.append(envs.step(np.zeros(num, int)))
        copies.append({k: v.copy() for k, v in steps[-1].items()})
    for step, copy in zip(steps, copies, strict=True):
        for key in step:
            np.testing.assert_array_equal(step[key], copy[key])


def play(envs, steps=120):
    rng = np.random.default_rng(0)
    rows = [envs.reset()]
    for _ in range(steps):
        actions = rng.integers(envs.action_space.classes, size=3)
        rows.append(envs.step(actions[: envs.num]))
    return {key: np.stack([r[key] for r in rows], 1) for key in rows[0]}


@pytest.mark.parametrize("task", ["atari_freeway", "gym_CartPole-v1"])
def test_parallel_equals_serial_and_seeds_differ(build, task):
    parallel = play(build(config(task, 3, length=300)))
    serial = play(build(config(task, 1, length=300)))
    other = play(build(config(task, 1, seed=1, length=300)))
    assert parallel["is_last"].any()
    key = "image" if "atari" in task else "vector"
    for name, values in serial.items():
        np.testing.assert_array_equal(parallel[name][0], values[0])
    assert not np.array_equal(parallel[key][0], parallel[key][1])
    assert not np.array_equal(parallel[key][0], other[key][0])
    # An episode does not repeat the one before.
    starts = parallel[key][0][parallel["is_first"][0]]
    assert not np.array_equal(starts[0], starts[1])


@pytest.mark.parametrize("num", [1, 3])
def test_spaces_of_atari(build, num):
    start = Config()
    run = dataclasses.replace(start.run, envs=num)
    envs = build(dataclasses.replace(start, task="atari_pong", run=run))
    assert envs.num == num
    assert envs.obs_spaces == {"image": Space("image", (96, 96, 1))}
    assert envs.action_space == Space("discrete", (), 18)
    assert envs.action_repeat == 4
    assert envs.reset()["image"].shape == (num, 96, 96, 1)


def test_every_suite_has_its_own_settings(build):
    start = Config()
    run = dataclasses.replace(start.run, envs=1)
    small = dataclasses.replace(start, task="atari100k_pong", run=run)
    assert build(small).obs_spaces["image"].shape == (64, 64, 3)
    with pytest.raises(ValueError, match="task is 'dmc_walk'"):
        make_envs(dataclasses.replace(start, task="dmc_walk"))


@pytest.mark.parametrize("num", [1, 2])
def test_continuous_actions(build, num):
    envs = build(config("gym_Pendulum-v1", num))
    assert envs.action_space == Space("continuous", (1,))
    assert envs.obs_spaces == {"vector": Space("vector", (3,))}
    first = envs.reset()["vector"]
    step = envs.step(np.ones((num, 1), np.float32))
    assert step["vector"].shape == (num, 3)
    # Full torque to the left speeds up by more than gravity alone could.
    plain = gymnasium.make("Pendulum-v1").unwrapped
    angle = np.arctan2(first[0, 1], first[0, 0])
    plain.reset()
    plain.state = np.array([angle, first[0, 2]])
    expected = plain.step(np.array([2.0]))[0]
    np.testing.assert_allclose(step["vector"][0], expected, rtol=1e-4)


def test_multidiscrete_counts_its_largest(build):
    class Cards(gymnasium.Env):
        observation_space = spaces.Dict(
            cards=spaces.MultiDiscrete([3, 7]), one=spaces.Discrete(4)
        )
        action_space = spaces.Discrete(2)

    assert build([Cards], 0).obs_spaces == {
        "cards": Space("discrete", (2,), 7),
        "one": Space("discrete", (), 4),
    }


def raise_odd_exception():
    class OddError(Exception):
        """Neither pickles nor can be made from one argument."""

        def __init__(self, lock, why):
            super().__init__(lock, why)

    raise OddError(threading.Lock(), "100%d is not what it was")


@pytest.mark.parametrize("num", [1, 3])
def test_an_error_shows_its_own_traceback_and_ends_all(build, num):
    envs = build([scripted(fail=5, how=raise_odd_exception)] * num, 0)
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
    envs = build([scripted(fail=5, how=lambda: os._exit(3))] * 3, 0)
    pids = envs.reset()["process"][:, 0]
    with pytest.raises(EnvError, match="died"):
        envs.step(np.array([0, 5, 0]))
    wait_until_gone(pids)


def run_program(path, text):
    """Runs it as a person would, in a process of its own."""
    path.write_text(text)
    return subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )


def test_an_error_while_starting_is_reported(tmp_path):
    result = run_program(
        tmp_path / "program.py",
        """
import multiprocessing, os
import gymnasium
from dreamer.envs.vector import EnvError, Envs

here = os.getpid()

def make(name, parent):
    import os
    if name == 1 and os.getpid() != parent:
        raise OSError("no more licences")
    return gymnasium.make("CartPole-v1")

try:
    Envs([lambda i=i: make(i, here) for i in range(3)], 0)
except EnvError as error:
    print(error, multiprocessing.active_children())
""",
    )
    assert "while it started" in result.stdout
    assert result.stdout.endswith(" []\n")
    assert "OSError: no more licences" in result.stderr


def wait_until_gone(pids):
    for _ in range(100):
        alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        if not alive:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes {alive} are still there")


def test_close_ends_the_processes(build):
    envs = build([scripted()] * 3, 0)
    pids = set(envs.reset()["process"][:, 0].tolist())
    assert len(pids) == 3
    assert os.getpid() not in pids
    envs.close()
    envs.close()
    wait_until_gone(pids)


def test_workers_outlive_ctrl_c(build):
    envs = build([scripted()] * 2, 0)
    for pid in envs.reset()["process"][:, 0]:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.1)
    assert (envs.step(np.zeros(2, int))["count"] == 1).all()


def test_workers_do_not_load_the_program_nor_jax(tmp_path):
    # A program like the one that trains: JAX at the top, no main guard.
    result = run_program(
        tmp_path / "program.py",
        """
import jax
import gymnasium
from dreamer.envs.vector import Envs

def make():
    class Probe(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(
            loaded=gymnasium.spaces.Discrete(2)
        )
        action_space = gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None):
            import sys
            return {"loaded": int("jax" in sys.modules)}, {}
    return Probe()

envs = Envs([make] * 2, 0)
print("loaded", envs.reset()["loaded"].tolist())
envs.close()
""",
    )
    assert result.stdout == "loaded [0, 0]\n", result.stderr
    assert result.stderr == ""
