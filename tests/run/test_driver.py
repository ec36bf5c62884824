"""The driver: what is stored with a step, and which episodes have ended."""

import jax
import numpy as np
import pytest

from dreamer.run.driver import Driver, Episode, Tally, replay_fields
from dreamer.spaces import LATENTS, RESERVED
from tests.run import tiny


class Recorder:
    """Takes the place of a replay."""

    def __init__(self):
        self.steps = []

    def add(self, step):
        self.steps.append({k: np.array(v) for k, v in step.items()})

    def column(self, name):
        return np.stack([step[name] for step in self.steps], 1)


def drive(count):
    envs, agent, recorder = tiny.Envs(), tiny.Agent(), Recorder()
    driver = Driver(envs, agent, recorder, jax.random.key(7))
    driver.start()
    episodes = [driver.step({"count": i}) for i in range(count)]
    return driver, envs, agent, recorder, episodes


def test_fields_are_those_of_a_step_without_latents():
    *_, recorder, _ = drive(1)
    step, fields = (
        recorder.steps[0],
        replay_fields(tiny.Envs().obs_spaces, tiny.Envs().action_space),
    )
    assert step.keys() == fields.keys() | {*LATENTS}
    assert step.keys() == tiny.SPACES.keys() | {*RESERVED}
    for name, (shape, dtype) in {**fields, **tiny.Agent.latents}.items():
        assert step[name].shape == (2, *shape), name
        assert step[name].dtype == dtype, name


def test_observation_action_and_latents_of_a_step_belong_together():
    _, envs, agent, recorder, _ = drive(6)
    for index, step in enumerate(recorder.steps):
        params, carry, obs, _, _ = agent.calls[index]
        assert params == {"count": index}
        np.testing.assert_array_equal(obs["vector"], step["vector"])
        np.testing.assert_array_equal(obs["is_first"], step["is_first"])
        # What this observation was turned into, not what came before it.
        assert (step["deter"] == index + 1).all()
        assert (step["stoch"] == index + 101).all()
        assert (carry.deter == index).all()
        expected = np.where(step["is_last"], 0, (index + 1) % 8 + 1)
        np.testing.assert_array_equal(step["action"], expected)
        np.testing.assert_array_equal(envs.actions[index], expected)
    assert recorder.column("is_last").any()


def test_the_policy_is_told_nothing_but_observations_and_is_first():
    _, _, agent, *_ = drive(1)
    assert agent.calls[0][2].keys() == {"vector", "is_first"}


def test_stream_crosses_episodes():
    *_, recorder, _ = drive(7)
    np.testing.assert_array_equal(
        recorder.column("vector")[:, :, 1],
        [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 4, 0, 1]],
    )


def test_scores_and_lengths():
    driver, *_, episodes = drive(9)
    # Rewards 1 + 2 + 3 in 3 steps, 1 + .. + 4 in 4 steps, then both at once.
    expected = [[] for _ in range(9)]
    expected[3] = [Episode(6.0, 3)]
    expected[4] = [Episode(10.0, 4)]
    expected[7] = [Episode(3.0, 2)]
    expected[8] = [Episode(10.0, 4)]
    assert episodes == expected
    assert driver.policy_steps == 18


def test_a_tally_forgets_an_episode_that_is_begun_anew():
    tally = Tally(2)
    ended = [
        tally.add(
            {
                "reward": np.array([1.0, reward], np.float32),
                "is_first": np.array([step == 0, step in (0, 2)]),
                "is_last": np.array([step == 3, step == 4]),
            }
        )
        for step, reward in enumerate([0.0, 9.0, 0.0, 2.0, 3.0])
    ]
    assert ended[:3] == [{}] * 3
    assert ended[3:] == [{0: Episode(4.0, 3)}, {1: Episode(5.0, 2)}]
    assert tally.score.tolist() == [5.0, 5.0]
    assert tally.length.tolist() == [4, 2]


def test_every_step_draws_anew_from_one_key():
    _, _, agent, *_ = drive(3)
    assert [call[4] for call in agent.calls] == [0, 1, 2]
    keys = {int(jax.random.key_data(call[3])[-1]) for call in agent.calls}
    assert keys == {7}


@pytest.mark.parametrize("stop", range(8))
def test_a_driver_goes_on_where_another_stood(stop):
    whole, _, policy, uninterrupted, episodes = drive(8)
    first, envs, _, recorder, seen = drive(stop)
    arrays = {k: np.array(v) for k, v in first.arrays().items()}
    state = {k: np.array(v) for k, v in envs.state().items()}

    other = tiny.Agent()
    other.calls = [None] * stop  # it counts its calls
    second = Driver(tiny.Envs(), other, recorder, jax.random.key(7))
    assert second.restore(2 * stop, arrays, state) == []
    seen += [second.step({"count": i}) for i in range(stop, 8)]
    assert seen == episodes
    assert second.policy_steps == whole.policy_steps == 16
    assert len(recorder.steps) == 8
    for ours, theirs in zip(recorder.steps, uninterrupted.steps, strict=True):
        tiny.assert_equal(ours, theirs)
    assert [call[4] for call in other.calls[stop:]] == list(range(stop, 8))
    for ours, theirs in zip(
        other.calls[stop:], policy.calls[stop:], strict=True
    ):
        tiny.assert_equal(ours[1], theirs[1])  # what it remembers


def test_an_episode_that_cannot_be_restored_is_abandoned(tmp_path):
    replay = tiny.make_replay(length=5)
    driver = Driver(tiny.Envs(), tiny.Agent(), replay, jax.random.key(0))
    driver.start()
    for _ in range(3):
        driver.step({})
    state = driver.envs.state() | {"saved": np.array([True, False])}

    envs = tiny.Envs()
    second = Driver(envs, tiny.Agent(), replay, jax.random.key(0))
    assert second.restore(6, driver.arrays(), state) == [1]
    episodes = [second.step({}) for _ in range(3)]
    window = tiny.contents(replay, length=5)
    first = [[True, *[False] * 3, True, False], [True, False, False] * 2]
    # The replay closes it where it was left, as a truncation.
    last = [[*[False] * 3, True, False, False], [False, False, True] * 2]
    np.testing.assert_array_equal(window["is_first"], first)
    np.testing.assert_array_equal(window["is_last"], last)
    assert not window["is_terminal"].any()
    # Nobody scores it; the one of 3 steps before and that of 2 after it.
    assert episodes == [[Episode(6.0, 3)], [], [Episode(3.0, 2)]]
