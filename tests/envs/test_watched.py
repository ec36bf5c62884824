"""What is added to an environment for an evaluation."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.envs import watched
from dreamer.envs.vector import Envs
from dreamer.envs.watched import FRAME, Watched, make_watched
from dreamer.options import ConfigError
from tests.envs.scripted import config


class Counting(gymnasium.Env):
    """Shows how many steps it has made; never ends."""

    render_mode = "rgb_array"
    observation_space = spaces.Dict(v=spaces.Box(0, 1, (1,), np.float32))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return {"v": np.zeros(1, np.float32)}, {}

    def step(self, action):
        self.time += 1
        return {"v": np.zeros(1, np.float32)}, 1.0, False, False, {}

    def render(self):
        return np.full((6, 4, 3), self.time + 1, np.uint8)


def test_episodes_beyond_those_wanted_are_black():
    env = Watched(Counting(), 2)
    shown = []
    for _ in range(3):
        obs, _ = env.reset()
        shown.append(obs[FRAME].max())
        shown.append(env.step(0)[0][FRAME].max())
    assert shown == [1, 2, 1, 2, 0, 0]
    assert env.observation_space[FRAME].shape == (6, 4, 3)


@pytest.mark.parametrize("filmed", [None, 0, 1])
def test_episodes_are_cut_short(monkeypatch, filmed):
    monkeypatch.setattr(watched, "make_env", lambda *args, **kw: Counting())
    env = make_watched(config("gym_x", 1), 3, filmed)
    env.reset()
    ends = [env.step(0)[3] for _ in range(3)]
    assert ends == [False, False, True]
    assert (FRAME in env.observation_space.spaces) == (filmed is not None)


def test_what_offers_no_pictures_has_none(monkeypatch):
    monkeypatch.setattr(Counting, "render_mode", None)
    monkeypatch.setattr(watched, "make_env", lambda *args, **kw: Counting())
    env = make_watched(config("gym_x", 1), 3, 5)
    assert FRAME not in env.observation_space.spaces


def missing(self):
    raise gymnasium.error.DependencyNotInstalled("pygame is\nnot installed")


def broken(self):
    raise RuntimeError("no display")


@pytest.mark.parametrize(
    ("render", "reason"),
    [
        (missing, "cannot be rendered: pygame is not installed"),
        (broken, "cannot be rendered: no display"),
        (lambda self: None, r"render\(\) gives object\[\]"),
        (lambda self: np.zeros((4, 4, 3)), r".*float64\[4, 4, 3\], allowed"),
    ],
)
def test_pictures_that_fail(monkeypatch, render, reason):
    monkeypatch.setattr(Counting, "render", render)
    monkeypatch.setattr(watched, "make_env", lambda *args, **kw: Counting())
    with pytest.raises(ConfigError, match=f"video of gym_x: {reason}"):
        make_watched(config("gym_x", 1), 3, 5)


def test_atari_shows_the_screen_and_plays_on_as_before():
    settings = config("atari_pong", 1, seed=5)
    plain = Envs([lambda: make_watched(settings, 50, None)], 5)
    shown = Envs([lambda: make_watched(settings, 50, 1)], 5)
    left, right = plain.reset(), shown.reset()
    rng = np.random.default_rng(0)
    for _ in range(60):
        picture = right.pop(FRAME)
        assert left.keys() == right.keys()
        for key, value in left.items():
            np.testing.assert_array_equal(value, right[key])
        actions = rng.integers(0, 6, 1)
        left, right = plain.step(actions), shown.step(actions)
    assert picture.shape == (1, 210, 160, 3)
    # The second episode, which began after 50 steps, is not shown.
    assert not picture.any()
    env = make_watched(settings, 50, 1)
    obs, _ = env.reset(seed=1)
    screen = env.unwrapped._ale.getScreenRGB()
    np.testing.assert_array_equal(obs[FRAME], screen)
    assert env.metadata["render_fps"] == 60
