"""The driver: what is stored with a step, and which episodes have ended."""

import jax
import numpy as np

from dreamer.run.driver import Driver, Episode, replay_fields
from tests.run import tiny


class Recorder:
    """Takes the place of a replay."""

    def __init__(self):
        self.steps = []

    def add(self, step):
        self.steps.append({k: np.array(v) for k, v in step.items()})

    def column(self, name):
        return np.stack([step[name] for step in self.steps], 1)


def drive(count, policy_steps=0):
    envs, agent, recorder = tiny.Envs(), tiny.Agent(), Recorder()
    key = jax.random.key(7)
    driver = Driver(envs, agent, recorder, key, policy_steps)
    episodes = [driver.step({"count": i}) for i in range(count)]
    return driver, envs, agent, recorder, episodes


def test_fields_are_those_of_a_step_without_latents():
    *_, recorder, _ = drive(1)
    step, fields = recorder.steps[0], replay_fields(tiny.Envs())
    assert step.keys() == fields.keys() | {"deter", "stoch"}
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


def test_every_step_draws_anew_also_after_a_resume():
    _, _, agent, *_ = drive(3, policy_steps=10)
    assert [call[4] for call in agent.calls] == [5, 6, 7]
    assert driver_key(agent) == {7}


def driver_key(agent):
    return {int(jax.random.key_data(call[3])[-1]) for call in agent.calls}


def test_the_episode_in_progress_at_a_stop_is_abandoned(tmp_path):
    replay = tiny.make_replay(length=5)
    driver = Driver(tiny.Envs(), tiny.Agent(), replay, jax.random.key(0))
    for _ in range(3):
        driver.step({})
    manifest = replay.save(tmp_path)

    replay = tiny.make_replay(length=5)
    replay.load(tmp_path, manifest)
    driver = Driver(tiny.Envs(), tiny.Agent(), replay, jax.random.key(0), 6)
    for _ in range(3):
        driver.step({})
    window = tiny.contents(replay, length=5)
    first = [True, False, False, True, False, False]
    last = [False, False, True, False, False, False]
    np.testing.assert_array_equal(window["is_first"], [first, first])
    np.testing.assert_array_equal(window["is_last"], [last, last])
    assert not window["is_terminal"].any()
