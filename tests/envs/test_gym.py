"""The adapter: spaces, values, scaling, ends of episodes, clear errors."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from dreamer.config import GymConfig
from dreamer.envs.blob import pack, unpack
from dreamer.envs.convert import resize
from dreamer.envs.gym import GymAdapter, make_gym
from dreamer.envs.vector import EnvError
from dreamer.options import ConfigError
from dreamer.spaces import RESERVED
from tests.envs.scripted import config

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
    ("infos", "expected"),
    [
        (({}, {"is_terminal": True}, {}), [True]),
        (({}, {"is_terminal": True}, {"is_terminal": False}), [True]),
        (({}, {}, {"is_terminal": True}), [True]),
        (({"is_terminal": False},) * 3, [False]),
        (({},) * 3, []),
    ],
)
def test_a_life_lost_in_any_repeated_step_is_terminal(infos, expected):
    class Lives(Fake):
        def step(self, action):
            return 0, 1.0, False, False, next(given)

    given = iter(infos)
    env = GymAdapter(Lives(spaces.Discrete(2)), GymConfig(repeat=3))
    env.reset()
    info = env.step(0)[4]
    assert [info[key] for key in info] == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_discrete_spaces_of_any_type(dtype):
    space = spaces.Discrete(100, start=28, dtype=dtype)
    fake = Fake(space, space)
    env = GymAdapter(fake, CONFIG)
    obs, _ = env.reset(seed=0)
    for action in (0, 99):
        assert obs in env.observation_space
        assert obs["discrete"] == int(fake.obs) - 28
        obs, *_ = env.step(np.int64(action))
        assert fake.action == action + 28
        assert fake.action in space


@pytest.mark.parametrize(
    ("observation", "action", "named"),
    [
        (spaces.Text(5), None, "Text"),
        (spaces.Tuple([spaces.Discrete(2)]), None, "Tuple"),
        (spaces.MultiBinary(3), None, "MultiBinary"),
        (spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2))), None, "'a'"),
        *(
            (spaces.Dict({key: spaces.Discrete(2)}), None, repr(key))
            for key in RESERVED
        ),
        (spaces.Discrete(2), spaces.MultiDiscrete([2, 2]), "MultiDiscrete"),
        (spaces.Discrete(2), spaces.Box(-np.inf, 1, (2,)), "finite bounds"),
        (spaces.Discrete(2), spaces.Box(0, 9, (2,), np.int64), "int64"),
        (
            spaces.Discrete(2),
            spaces.Box(-1e308, 1e308, (2,), np.float64),
            "bounds whose difference float64 can hold",
        ),
    ],
)
def test_what_is_not_supported_is_named(observation, action, named):
    with pytest.raises(ConfigError, match=named) as info:
        GymAdapter(Fake(observation, action), CONFIG)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("env_id", "named"),
    [
        ("CartPol-v1", "did you mean gym_CartPole-v1"),
        ("Cartpole-v1", "CartPole"),
        ("CartPole-v999", "CartPole-v1"),
        ("no_such_module:Env-v0", "no_such_module"),
        ("dreamer.envs:CartPol-v1", "mean gym_dreamer.envs:CartPole-v1"),
    ],
)
def test_an_unknown_id_names_the_nearest(env_id, named):
    with pytest.raises(ConfigError, match=named) as info:
        make_gym(env_id, CONFIG)
    assert "\n" not in str(info.value)
    assert env_id in str(info.value)


class Walk(gymnasium.Env):
    """A random walk that can be saved."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal()
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place += self.np_random.normal() + action
        return np.array([self.place], np.float32), 1.0, False, False, {}

    def get_state(self):
        rng = self.np_random.bit_generator.state
        return json.dumps([self.place, rng]).encode()

    def set_state(self, state):
        self.place, rng = json.loads(state)
        self.np_random.bit_generator.state = rng


@pytest.fixture
def walk():
    """The id of an environment around which there are two wrappers."""
    gymnasium.register("Walk-v0", Walk, max_episode_steps=20)
    yield "Walk-v0"
    del gymnasium.registry["Walk-v0"]


def go_on(env, steps):
    rows = []
    for count in range(steps):
        obs, *rest = env.step(count % 2)
        rows.append((obs["vector"].item(), *rest))
        if rest[1] or rest[2]:
            rows.append(env.reset()[0]["vector"].item())
    return rows


def test_goes_on_as_if_never_interrupted(walk):
    env = make_gym(walk, GymConfig(repeat=3))
    env.reset(seed=0)
    for _ in range(5):
        go_on(env, 3)
        fresh = make_gym(walk, GymConfig(repeat=3))
        fresh.set_state(env.get_state())
        went_on = go_on(env, 11)
        assert any(row[3] for row in went_on if isinstance(row, tuple))
        assert go_on(fresh, 11) == went_on


def test_saved_at_the_end_of_an_episode_and_before_any(walk):
    env, fresh = (make_gym(walk, CONFIG) for _ in range(2))
    env.unwrapped.place = 0.0
    fresh.set_state(env.get_state())
    with pytest.raises(gymnasium.error.ResetNeeded):
        fresh.step(0)
    env.reset(seed=0)
    while not env.step(0)[3]:
        pass
    fresh.set_state(env.get_state())
    starts = [e.reset()[0]["vector"].item() for e in (env, fresh)]
    assert starts[0] == starts[1]
    assert go_on(env, 30) == go_on(fresh, 30)


def test_what_cannot_be_saved(walk):
    assert make_gym("CartPole-v1", CONFIG).get_state() == b""
    # Another wrapper may remember anything.
    env = gymnasium.make(walk)
    wrapped = gymnasium.wrappers.NormalizeReward(env)
    assert GymAdapter(wrapped, CONFIG).get_state() == b""

    class Other(Walk):
        def get_state(self):
            return np.zeros(3)

    assert GymAdapter(Other(), CONFIG).get_state() == b""


def test_a_state_of_something_else_is_refused(walk):
    env = make_gym(walk, CONFIG)
    env.reset(seed=0)
    facts, arrays = unpack(env.get_state())
    assert facts == {"wrappers": [0, True]}
    for blob in (
        b"",
        b"PK",
        env.get_state()[:-9],
        pack(facts),
        pack({}, **arrays),
        pack({"wrappers": [0]}, **arrays),
        pack({"wrappers": [0, "x"]}, **arrays),
        GymAdapter(env.unwrapped, CONFIG).get_state(),
    ):
        with pytest.raises(ValueError) as caught:
            env.set_state(blob)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="not of this"):
        make_gym("CartPole-v1", CONFIG).set_state(env.get_state())


@pytest.fixture
def registered():
    """Registers a function that makes an environment; gives its id."""

    def register(make):
        gymnasium.register("Mine-v0", make)
        return "Mine-v0"

    yield register
    del gymnasium.registry["Mine-v0"]


def test_an_error_of_its_own_keeps_its_place(registered, build):
    def broken(**_):
        raise ValueError("size=3: bad")

    name = registered(broken)
    with pytest.raises(ValueError, match="size=3: bad") as error:
        make_gym(name, CONFIG)
    assert not isinstance(error.value, ConfigError)
    with pytest.raises(EnvError, match="in broken") as caught:
        build(config(f"gym_{name}", 1))
    assert "ValueError: size=3: bad" in str(caught.value)


def test_an_environment_that_takes_no_render_mode(registered):
    def make():
        env = Fake(spaces.Discrete(2))
        env.metadata = {"render_modes": ["rgb_array"]}
        return env

    name = registered(make)
    make_gym(name, CONFIG)
    with pytest.raises(ConfigError) as caught:
        make_gym(name, CONFIG, render=True)
    line = str(caught.value)
    assert line.startswith("video of gym_Mine-v0: cannot be rendered: ")
    assert "\n" not in line


@pytest.mark.parametrize("metadata", [{"render_modes": None}, {}])
def test_an_environment_that_says_nothing_of_pictures(registered, metadata):
    def make(render_mode=None):
        env = Fake(spaces.Discrete(2))
        env.metadata = metadata
        return env

    name = registered(make)
    assert make_gym(name, CONFIG, render=True).render_mode is None
