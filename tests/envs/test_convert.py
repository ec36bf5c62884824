"""Observations and rewards that are not what their spaces promise."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.config import GymConfig
from dreamer.envs.gym import GymAdapter
from dreamer.envs.vector import EnvError
from dreamer.options import ConfigError

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (64, 64, 3), np.uint8)
SMALL = spaces.Box(0, 255, (20, 30), np.uint8)
FINITE = ", allowed: finite numbers that float32 can hold"


def plain(space, first, later=None, reward=1.0):
    """An environment with observations as given.

    Args:
        space: of its observations.
        first: observation after a reset.
        later: observation after a step; None: the same.
        reward: of every step.
    """

    class Gives(gymnasium.Env):
        observation_space = space
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return first, {}

        def step(self, action):
            obs = first if later is None else later
            return obs, reward, False, False, {}

    return Gives()


def gives(*args, **kwargs):
    """A function that adapts a `plain` one."""
    return lambda: GymAdapter(plain(*args, **kwargs), GymConfig())


MISFITS = [
    (VECTOR, np.zeros(4, np.float32), r"float32 of shape \(4,\)"),
    (VECTOR, np.zeros(1, np.float32), r"float32 of shape \(1,\), allowed"),
    (VECTOR, np.zeros((3, 1)), r"shape \(3, 1\), .* numbers of shape \(3,\)"),
    (VECTOR, 0.5, r"shape \(\), allowed: numbers of shape \(3,\)"),
    (VECTOR, ["a", "b", "c"], "allowed: numbers"),
    (IMAGE, np.full((64, 64, 3), 0.5), "float64 of shape .* whole numbers"),
    (SMALL, np.full((20, 30), 0.5, np.float32), "float32 of .* whole numbers"),
    (IMAGE, np.zeros((80, 80, 1), np.uint8), r"uint8 of shape \(80, 80, 1\)"),
    (IMAGE, np.zeros((64, 64), np.uint8), r"uint8 of shape \(64, 64\)"),
    (IMAGE, np.full((64, 64, 3), 256), "observation is 256, allowed: 0 to"),
    (SMALL, np.full((20, 30), -1), "observation is -1, allowed: 0 to 255"),
    (spaces.Discrete(3), 5, "observation is 5, allowed: 0 to 2"),
    (spaces.Discrete(3), -1, "observation is -1, allowed: 0 to 2"),
    (spaces.Discrete(3), 1.7, "float64 .* allowed: whole numbers"),
    (spaces.Discrete(3), np.zeros(1, int), r"int64 of shape \(1,\)"),
    (spaces.Discrete(3, start=-4), 0, "is 0, allowed: -4 to -2"),
    (spaces.MultiDiscrete([3, 5]), np.array([2, 5]), "is 5, allowed: 0 to 4"),
    (spaces.MultiDiscrete([3, 5]), np.array([4, 4]), "is 4, allowed: 0 to 2"),
    (spaces.MultiDiscrete([3, 5]), 1, r"shape \(\), .* of shape \(2,\)"),
    (spaces.Dict(a=VECTOR, b=VECTOR), {"a": VECTOR.low}, "lacks 'b'"),
    (spaces.Dict(a=VECTOR), VECTOR.low, "lacks 'a', allowed: a dict"),
    (spaces.Dict(a=spaces.Discrete(3)), {"a": 3}, "'a' is 3, allowed: 0 to"),
]


@pytest.mark.parametrize(("space", "value", "named"), MISFITS)
def test_a_misfit_is_a_failure_with_one_line(build, space, value, named):
    envs = build([gives(space, value)], 0, restarts=0)
    line = f"environment 0 failed: .*{named}"
    with pytest.raises(EnvError, match=line) as caught:
        envs.reset()
    assert "\n" not in str(caught.value)
    member = space.sample()
    envs = build([gives(space, member, value)], 0, restarts=0)
    envs.reset()
    with pytest.raises(EnvError, match=named):
        envs.step(np.zeros(1, int))


def test_nothing_instead_of_an_observation(build):
    envs = build([gives(VECTOR, None)], 0, restarts=0)
    with pytest.raises(EnvError, match=r"object of shape .*allowed: numbers"):
        envs.reset()


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (np.array([0, np.nan, 0], np.float32), "nan"),
        (np.array([0, 0, -np.inf]), "-inf"),
        (np.array([1e300, 0, 0]), "inf"),
    ],
)
def test_an_observation_that_is_not_finite(build, value, given):
    line = f"environment 0 failed: observation 'vector' is {given}{FINITE}"
    envs = build([gives(VECTOR, VECTOR.low, value)], 0, restarts=1)
    envs.reset()
    assert envs.step(np.zeros(1, int))["is_first"].all()
    assert envs.reports == [
        f"{line}; its episode is closed as a truncation and it was started"
        " again (1 of 1)"
    ]
    with pytest.raises(EnvError) as caught:
        envs.step(np.zeros(1, int))
    end = "; no replacement is left of run.env_restarts=1"
    assert str(caught.value) == line + end


def test_small_numbers_where_numpy_is_told_to_raise(build):
    small = np.full(3, 1e-50)
    envs = build([gives(VECTOR, small, reward=1e-50)], 0, restarts=0)
    with np.errstate(all="raise"):
        envs.reset()
        step = envs.step(np.zeros(1, int))
    assert not step["vector"].any()
    assert not step["reward"].any()


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize(
    ("reward", "given"),
    [(float("nan"), "nan"), (np.float32(np.inf), "inf"), (1e39, "1e+39")],
)
def test_a_reward_that_is_not_finite(build, num, reward, given):
    envs = build([gives(VECTOR, VECTOR.low, reward=reward)] * num, 0)
    envs.reset()
    step = envs.step(np.zeros(num, int))
    assert step["is_first"].all()
    assert (step["reward"] == 0).all()
    assert len(envs.reports) == num
    line = f"environment 0 failed: reward is {given}{FINITE}; "
    assert envs.reports[0].startswith(line)


@pytest.mark.parametrize(
    "reward", [-2, np.float32(-2), np.array([-2.0]), np.array([[-2]], np.int8)]
)
def test_a_reward_may_be_an_array_of_one(build, reward):
    envs = build([gives(VECTOR, VECTOR.low, reward=reward)], 0)
    envs.reset()
    assert envs.step(np.zeros(1, int))["reward"] == [-2]
    assert not envs.reports


@pytest.mark.parametrize(
    ("reward", "given"),
    [
        (np.zeros(2), "float64 of shape (2,)"),
        ([], "float64 of shape (0,)"),
        (None, "object of shape ()"),
        ("3", "<U1 of shape ()"),
    ],
)
def test_a_reward_that_is_no_number(build, reward, given):
    envs = build([gives(VECTOR, VECTOR.low, reward=reward)], 0)
    envs.reset()
    envs.step(np.zeros(1, int))
    line = f"environment 0 failed: reward is {given}, allowed: one number; "
    assert envs.reports[0].startswith(line)


def test_what_is_written_in_another_way_is_taken(build):
    for space, value, taken in (
        (VECTOR, [0.5, 1, 0], [0.5, 1, 0]),
        (spaces.Discrete(5, start=-2), -1, 1),
        (spaces.Discrete(5), np.uint8(4), 4),
        (spaces.Discrete(2), True, 1),
        (spaces.MultiDiscrete([3, 5]), [2, 4], [2, 4]),
        (IMAGE, np.full((64, 64, 3), 200), np.full((64, 64, 3), 200)),
        (SMALL, np.full((20, 30), 255), np.full((64, 64, 1), 255)),
        (SMALL, np.ones((20, 30), bool), np.ones((64, 64, 1))),
    ):
        obs = build([gives(space, value)], 0).reset()
        (key,) = build([gives(space, value)], 0).obs_spaces
        np.testing.assert_array_equal(obs[key][0], taken)


@pytest.mark.parametrize("shape", [(4, 64, 64), (3, 84, 84), (9, 9, 17)])
def test_channels_come_last(shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    for given in (space, spaces.Dict(eye=space)):
        with pytest.raises(ConfigError, match=r"at most 16.* last") as caught:
            gives(given, None)()
        line = str(caught.value)
        assert f"{shape}, uint8), an image with {shape[2]} channels" in line
        assert "TransformObservation" in line
        assert "\n" not in line
    gives(spaces.Box(0, 255, (9, 9, 16), np.uint8), None)()


def test_the_way_out_that_the_refusal_names(build):
    space = spaces.Box(0, 255, (4, 64, 64), np.uint8)
    stack = np.random.default_rng(0).integers(0, 256, space.shape, np.uint8)
    env = gymnasium.wrappers.TransformObservation(
        plain(space, stack),
        lambda x: np.moveaxis(x, 0, -1),
        spaces.Box(0, 255, (64, 64, 4), np.uint8),
    )
    envs = build([lambda: GymAdapter(env, GymConfig())], 0)
    image = envs.reset()["image"][0]
    np.testing.assert_array_equal(image[..., 1], stack[1])


def test_an_image_that_the_agent_would_see_as_black():
    board = spaces.Box(0, 1, (8, 8, 12), np.uint8)
    with pytest.raises(ConfigError, match="an image with 1 for white, allow"):
        GymAdapter(plain(board, board.low), GymConfig())
    env = gymnasium.wrappers.TransformObservation(
        plain(board, board.high),
        lambda obs: obs.astype(np.int8),
        spaces.Box(0, 1, board.shape, np.int8),
    )
    obs, _ = GymAdapter(env, GymConfig()).reset()
    np.testing.assert_array_equal(obs["vector"], np.ones(8 * 8 * 12))


def test_a_name_that_nobody_gave_is_left_out():
    for space in (spaces.Text(5), spaces.Tuple([VECTOR])):
        with pytest.raises(ConfigError, match=r"^observation has the space T"):
            gives(space, None)()
    with pytest.raises(ConfigError, match=r"^observation 'a' has the space T"):
        gives(spaces.Dict(a=spaces.Text(5)), None)()


@pytest.mark.parametrize("shape", [(0, 64, 3), (64, 0), (0,)])
def test_observations_without_an_entry_are_refused(shape):
    for dtype in (np.uint8, np.float32):
        with pytest.raises(ConfigError, match="at least one entry"):
            gives(spaces.Box(0, 1, shape, dtype), None)()


def test_no_observations_are_refused():
    with pytest.raises(ConfigError, match="at least one key"):
        gives(spaces.Dict(), None)()
