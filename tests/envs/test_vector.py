"""Vectorised stepping: equality, ends of episodes, spaces."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.spaces import FLAGS, Space
from tests.envs.scripted import config, scripted

GIVEN = {"reward", *FLAGS}


@pytest.mark.parametrize("num", [1, 3])
def test_the_step_after_is_last_is_first(build, num):
    envs = build([scripted()] * num, 0)
    step = envs.reset()
    assert set(step) == GIVEN | {"count", "process", "began"}
    rows = [step] + [envs.step(np.full(num, 2)) for _ in range(8)]
    for env in range(num):
        read = {
            key: [row[key][env].item() for row in rows]
            for key in ("count", *GIVEN)
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
        "began": np.int32,
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


@pytest.mark.parametrize("num", [1, 2])
def test_a_step_that_was_sent_is_received_as_often_as_wanted(build, num):
    sent, stepped = (build([scripted()] * num, 0) for _ in range(2))
    first = sent.reset()
    stepped.reset()
    np.testing.assert_equal(sent.receive(), first)
    for action in range(6):
        sent.send(np.full(num, action))
        if action == 1:
            saved = sent.state()  # waits for the step
            np.testing.assert_equal(saved["steps"], 3)
        expected = stepped.step(np.full(num, action))
        for key in GIVEN | {"count"}:
            for _ in range(2):
                found = sent.receive()[key]
                np.testing.assert_array_equal(found, expected[key])
    np.testing.assert_equal(
        sent.state()["is_last"], stepped.state()["is_last"]
    )


def test_an_environment_in_this_process_steps_when_it_is_waited_for(build):
    steps = []

    class Counting(scripted()):
        def step(self, action):
            steps.append(action)
            return super().step(action)

    envs = build([Counting], 0)
    envs.reset()
    envs.send(np.zeros(1, int))
    assert steps == []
    envs.receive()
    envs.receive()
    assert steps == [0]
