"""The adapter: spaces, values, scaling, ends of episodes, clear errors."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from dreamer.config import GymConfig
from dreamer.envs.gym import GymAdapter, make_gym, resize

CONFIG = GymConfig()


class Fake(gymnasium.Env):
    """Returns random members of any space and remembers the action."""

    def __init__(self, observation_space, action_space=None):
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Discrete(2)
        self.action = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.obs = self.observation_space.sample()
        return self.obs, {}

    def step(self, action):
        self.action = action
        self.obs = self.observation_space.sample()
        return self.obs, 1.0, False, False, {}


def test_cartpole_is_a_vector_with_discrete_actions():
    env = make_gym("CartPole-v1", CONFIG)
    assert list(env.observation_space) == ["vector"]
    assert env.observation_space["vector"].shape == (4,)
    assert env.action_space == spaces.Discrete(2)
    obs, _ = env.reset(seed=3)
    plain = gymnasium.make("CartPole-v1")
    np.testing.assert_array_equal(obs["vector"], plain.reset(seed=3)[0])
    for _ in range(5):
        obs, reward, *_ = env.step(1)
        np.testing.assert_array_equal(obs["vector"], plain.step(1)[0])
        assert reward == 1.0
    assert obs["vector"].dtype == np.float32


def test_pendulum_has_its_actions_scaled_and_clipped():
    env = make_gym("Pendulum-v1", CONFIG)
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    for action, torque in ((1.0, 2.0), (-0.5, -1.0), (7.0, 2.0)):
        plain = gymnasium.make("Pendulum-v1")
        env.reset(seed=0), plain.reset(seed=0)
        obs, reward, *_ = env.step(np.array([action], np.float32))
        expected, expected_reward, *_ = plain.step(
            np.array([torque], np.float32)
        )
        np.testing.assert_array_equal(obs["vector"], expected)
        assert reward == pytest.approx(float(expected_reward))


def test_scaling_reaches_both_bounds_of_every_dimension():
    low = np.array([[-3.0, 0.1], [5.0, -0.7]], np.float32)
    high = np.array([[1.0, 0.3], [6.0, 0.9]], np.float32)
    fake = Fake(spaces.Discrete(2), spaces.Box(low, high))
    env = GymAdapter(fake, CONFIG)
    assert env.action_space.shape == (4,)
    env.reset()
    for value, expected in ((-1, low), (1, high), (0, (low + high) / 2)):
        env.step(np.full(4, value, np.float32))
        assert fake.action in fake.action_space
        np.testing.assert_allclose(fake.action, expected, rtol=1e-6)


def test_dict_with_every_kind_of_space():
    space = spaces.Dict(
        {
            "zoom": spaces.Box(0, 255, (80, 50, 3), np.uint8),
            "depth": spaces.Box(0, 255, (64, 64), np.uint8),
            "grid": spaces.Box(-1, 1, (2, 3), np.float64),
            "scalar": spaces.Box(0, 9, (), np.int64),
            "ram": spaces.Box(0, 255, (128,), np.uint8),
            "mode": spaces.Discrete(5, start=-2),
            "cards": spaces.MultiDiscrete([3, 7, 2]),
            "board": spaces.MultiDiscrete([[3, 4], [5, 6]]),
        }
    )
    fake = Fake(space, spaces.Discrete(3, start=10))
    env = GymAdapter(fake, CONFIG)
    assert list(env.observation_space) == sorted(space)
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        assert obs in env.observation_space
        raw = fake.obs
        picture = Image.fromarray(raw["zoom"]).resize(
            (64, 64), Image.Resampling.BILINEAR
        )
        np.testing.assert_array_equal(obs["zoom"], np.asarray(picture))
        np.testing.assert_array_equal(obs["depth"][..., 0], raw["depth"])
        np.testing.assert_allclose(obs["grid"], raw["grid"].ravel(), 1e-6)
        assert obs["scalar"] == raw["scalar"]
        np.testing.assert_array_equal(obs["ram"], raw["ram"])
        assert obs["ram"].dtype == np.float32
        assert obs["mode"] == raw["mode"] + 2
        np.testing.assert_array_equal(obs["cards"], raw["cards"])
        np.testing.assert_array_equal(obs["board"], raw["board"].ravel())
        obs, *_ = env.step(2)
        assert fake.action == 12


@pytest.mark.parametrize(
    ("space", "key"),
    [
        (spaces.Box(0, 255, (64, 64, 3), np.uint8), "image"),
        (spaces.Box(0, 1, (3,)), "vector"),
        (spaces.Discrete(4), "discrete"),
        (spaces.MultiDiscrete([2, 3]), "discrete"),
    ],
)
def test_an_observation_that_is_no_dict_gets_a_key(space, key):
    env = GymAdapter(Fake(space), CONFIG)
    assert list(env.observation_space) == [key]
    assert env.reset(seed=0)[0] in env.observation_space


def test_resize_treats_a_fourth_channel_like_any_other():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 4), np.uint8)
    result = resize(image, (16, 32))
    assert result.shape == (16, 32, 4)
    alone = resize(image[..., 1], (16, 32))
    np.testing.assert_array_equal(result[..., 1:2], alone)


def test_time_limit_is_a_truncation():
    env = GymAdapter(
        gymnasium.make("Pendulum-v1", max_episode_steps=3), CONFIG
    )
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_repeat_sums_rewards_and_stops_at_the_end():
    env = GymAdapter(
        gymnasium.make("CartPole-v1", max_episode_steps=5),
        GymConfig(repeat=3),
    )
    env.reset(seed=0)
    assert [env.step(0)[1:4] for _ in range(2)] == [
        (3.0, False, False),
        (2.0, False, True),
    ]


@pytest.mark.parametrize(
    ("observation", "action", "named"),
    [
        (spaces.Text(5), None, "Text"),
        (spaces.Tuple([spaces.Discrete(2)]), None, "Tuple"),
        (spaces.MultiBinary(3), None, "MultiBinary"),
        (spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2))), None, "'a'"),
        (spaces.Dict(reward=spaces.Discrete(2)), None, "'reward'"),
        (spaces.Discrete(2), spaces.MultiDiscrete([2, 2]), "MultiDiscrete"),
        (spaces.Discrete(2), spaces.Box(-np.inf, 1, (2,)), "finite bounds"),
        (spaces.Discrete(2), spaces.Box(0, 9, (2,), np.int64), "int64"),
    ],
)
def test_what_is_not_supported_is_named(observation, action, named):
    with pytest.raises(ValueError, match=named) as info:
        GymAdapter(Fake(observation, action), CONFIG)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("env_id", "named"),
    [
        ("CartPol-v1", "did you mean gym_CartPole-v1"),
        ("Cartpole-v1", "CartPole"),
        ("CartPole-v999", "CartPole-v1"),
        ("no_such_module:Env-v0", "no_such_module"),
    ],
)
def test_an_unknown_id_names_the_nearest(env_id, named):
    with pytest.raises(ValueError, match=named) as info:
        make_gym(env_id, CONFIG)
    assert "\n" not in str(info.value)
    assert env_id in str(info.value)
