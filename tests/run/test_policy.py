"""A checkpoint acts as the agent that it was made of."""

import re
import shutil

import jax
import numpy as np
import pytest

from dreamer.envs.make import make_env, make_envs
from dreamer.options import ConfigError
from dreamer.run import archive, policy
from dreamer.run.policy import load
from dreamer.settings import load as load_config
from tests.run.trained import (
    CARTPOLE,
    PENDULUM,
    PONG,
    checkpoint,
    programs_kept,
)


@pytest.fixture(scope="module")
def pong(tmp_path_factory):
    """Logdir, agent and state."""
    logdir = tmp_path_factory.mktemp("pong") / "run"
    _, agent, state = checkpoint(logdir, PONG)
    return logdir, agent, state


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("pendulum") / "run"
    return logdir, *checkpoint(logdir, PENDULUM)[1:]


def observations(count, envs=3, seed=0):
    """Of Pong and of Pendulum, noise; new episodes begin now and then."""
    rng = np.random.default_rng(seed)
    for step in range(count):
        first = np.full(envs, step == 0)
        yield {
            "image": rng.integers(0, 256, (envs, 64, 64, 3), np.uint8),
            "vector": rng.normal(size=(envs, 3)).astype(np.float32),
            "is_first": first | (rng.random(envs) < 0.2),
        }


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with programs_kept(tmp_path_factory.mktemp("cache")):
        yield


@pytest.mark.parametrize("mode", ["sample", "argmax"])
def test_it_acts_as_the_agent_does(pong, mode):
    logdir, agent, state = pong
    ours = load(logdir, mode=mode, seed=3)
    assert (ours.policy_steps, ours.frames, ours.updates) == (300, 1200, 0)
    carry = agent.initial_carry(3)
    key = jax.random.key(policy._apart(3))
    for step, obs in enumerate(observations(6)):
        inputs = {k: obs[k] for k in ("image", "is_first")}
        carry, action = agent.policy(
            state.params, carry, inputs, key, np.uint32(step), mode == "argmax"
        )
        np.testing.assert_array_equal(ours(obs), action)


def test_seeds_make_other_samples(pendulum):
    def actions(seed):
        ours = load(pendulum[0], seed=seed)
        return np.stack([ours(obs) for obs in observations(5)])

    first = actions(0)
    np.testing.assert_array_equal(first, actions(0))
    assert (first != actions(1)).any()


def test_one_observation_is_a_batch_of_one(pendulum):
    batch, alone = (
        load(pendulum[0], mode="argmax"),
        load(pendulum[0], mode="argmax"),
    )
    rng = np.random.default_rng(0)
    for step in range(6):
        begins = step in (0, 4)
        vector = rng.normal(size=3).astype(np.float32)
        obs = {"vector": vector[None], "is_first": np.array([begins])}
        if step == 4:
            alone.reset()
        action = alone({"vector": vector})
        assert action.shape == (1,)
        np.testing.assert_allclose(batch(obs)[0], action, rtol=1e-6)


def test_a_first_observation_begins_an_episode_whatever_it_says(pendulum):
    obs = next(observations(1))
    ours = load(pendulum[0])
    expected = ours(obs)
    ours = load(pendulum[0])
    obs["is_first"][:] = False
    np.testing.assert_array_equal(ours(obs), expected)


def test_wrong_observations_are_refused(pendulum):
    ours, obs = load(pendulum[0]), next(observations(1))
    with pytest.raises(ValueError, match="lacks 'vector', expected vector"):
        ours({"image": np.zeros(3)})
    for wrong in ([[0.0, 1.0]] * 3, [0.0, 1.0], 0.0):
        shape = re.escape(f"shape {np.shape(wrong)}, expected (3,)")
        with pytest.raises(ValueError, match=f"'vector' has {shape}"):
            ours({**obs, "vector": wrong})
    ours(obs)
    with pytest.raises(ValueError, match="of 2 environments, expected 3"):
        ours({k: x[:2] for k, x in obs.items()})
    ours.reset()
    assert ours({k: x[:2] for k, x in obs.items()}).shape == (2, 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image", np.full((3, 64, 64, 3), 0.7), "holds float64, expected uin"),
        ("image", np.full((3, 64, 64, 3), -1), "holds int64, expected uint8"),
        ("image", np.full((3, 64, 64, 3), 256), "holds int64, expected uint8"),
        ("image", [[1, 2], [3]], "is no array, expected uint8"),
        ("image", None, "holds object, expected uint8"),
        ("is_first", [0, 1, 0], "holds int64, expected bool"),
        ("is_first", [True], r"has shape \(1,\), expected \(3,\)"),
        ("is_first", True, r"has shape \(\), expected \(3,\)"),
    ],
)
def test_observations_of_another_kind_are_refused(pong, key, value, message):
    ours, obs = load(pong[0]), next(observations(1))
    with pytest.raises(ValueError, match=f"observation '{key}' {message}"):
        ours({**obs, key: value})
    assert ours(obs).shape == (3,)


def test_several_environments_say_where_episodes_begin(pong):
    ours, obs = load(pong[0]), next(observations(1))
    del obs["is_first"]
    with pytest.raises(ValueError, match=r"lacks 'is_first', .* \(3,\) bool"):
        ours(obs)
    # Nothing is remembered of what was refused.
    assert ours({"image": obs["image"][0]}).shape == ()


def test_plain_lists_of_the_right_kind_will_do(pong, pendulum):
    for logdir, key in ((pong[0], "image"), (pendulum[0], "vector")):
        expected, found = [], []
        for actions, plain in ((expected, False), (found, True)):
            ours = load(logdir)
            for obs in observations(2):
                given = {key: obs[key], "is_first": obs["is_first"]}
                given = {k: x.tolist() for k, x in given.items()}
                actions.append(ours(given if plain else obs))
        np.testing.assert_array_equal(found, expected)
    assert ours({"vector": [[0, 1, 2]] * 3, "is_first": [False] * 3}).any()


def test_reconstructions_are_of_the_environment_asked_for(pong):
    ours = load(pong[0])
    for obs in observations(3):
        ours(obs)
    images = [ours.reconstruct(env)["image"] for env in range(3)]
    assert images[0].shape == (64, 64, 3)
    assert images[0].dtype == np.uint8
    assert (images[0] != images[1]).any()
    assert (images[1] != images[2]).any()


def test_environments_have_seeds_that_training_has_not(tmp_path):
    checkpoint(tmp_path / "run", CARTPOLE)
    ours = load(tmp_path / "run")
    config = load_config([*CARTPOLE.split(), "--run.envs", "1"])
    training = make_envs(config).reset()["vector"]
    first, again = (ours.make_envs(1).reset()["vector"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != training).all()
    assert (first != ours.make_envs(1, seed=1).reset()["vector"]).all()


def test_an_environment_alone_has_another_seed_than_training(tmp_path):
    config, *_ = checkpoint(tmp_path / "run", PONG)
    ours, theirs = load(tmp_path / "run").make_env(), make_env(config)
    again = load(tmp_path / "run").make_env()

    def episode(env):
        env.reset()
        steps = [env.step(2)[0]["image"] for _ in range(20)]
        return np.stack(steps)

    first = episode(ours)
    np.testing.assert_array_equal(first, episode(again))
    assert (first != episode(theirs)).any()


def test_newest_or_named(tmp_path):
    for steps in (100, 200):
        checkpoint(tmp_path / "run", CARTPOLE, steps, seed=steps)
    assert load(tmp_path / "run").policy_steps == 200
    assert load(tmp_path / "run", 100).policy_steps == 100
    with pytest.raises(ConfigError, match="expected one of 100, 200"):
        load(tmp_path / "run", 150)
    inside = tmp_path / "run" / "ckpt" / "100"
    assert load(inside).policy_steps == 100
    assert load(inside).home == tmp_path / "run"
    with pytest.raises(ConfigError, match="is the one of policy step 100"):
        load(inside, 200)


def test_a_copied_checkpoint_needs_nothing_else(tmp_path):
    checkpoint(tmp_path / "run", CARTPOLE)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "run" / "ckpt" / "300", copy)
    shutil.rmtree(tmp_path / "run")
    for path in copy.iterdir():
        if path.name not in ("meta.json", "state.arrays"):
            path.unlink()
    assert load(copy).config.task == "gym_CartPole-v1"
    assert load(copy).home == copy


def test_a_run_on_a_gpu_is_played_where_there_is_none(tmp_path):
    checkpoint(tmp_path / "run", f"{CARTPOLE} --jax.platform cuda")
    assert load(tmp_path / "run").config.jax.platform == "auto"
    with pytest.raises(ConfigError, match=r"jax\.platform=tpu"):
        load(tmp_path / "run", settings={"jax.platform": "tpu"})


def test_games_are_played_to_their_end(tmp_path):
    checkpoint(tmp_path / "run", f"{PONG} --env.atari100k.lives reset")
    assert load(tmp_path / "run").config.env.atari100k.lives == "unused"
    changed = {"env.atari100k.lives": "discount"}
    ours = load(tmp_path / "run", settings=changed)
    assert ours.config.env.atari100k.lives == "discount"


def test_a_checkpoint_that_is_replaced_meanwhile(tmp_path, monkeypatch):
    logdir, read = tmp_path / "run", archive.read_part
    checkpoint(logdir, CARTPOLE, 100)

    def replaced(path, meta, like):
        if path.name == "100":
            checkpoint(logdir, CARTPOLE, 200)
            shutil.rmtree(path)
        return read(path, meta, like)

    monkeypatch.setattr(archive, "read_part", replaced)
    assert load(logdir).policy_steps == 200
    checkpoint(logdir, CARTPOLE, 100)
    with pytest.raises(ConfigError, match="expected one of 200"):
        load(logdir, 100)


def test_a_damaged_one_is_refused(tmp_path):
    checkpoint(tmp_path / "run", CARTPOLE)
    path = tmp_path / "run" / "ckpt" / "300" / "state.arrays"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of the optimiser, which is not even used
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged, it has another checksum"):
        load(tmp_path / "run")


def test_unknown_mode(pong):
    with pytest.raises(ConfigError, match="mode=best: expected one of sample"):
        load(pong[0], mode="best")
