"""Environments as an evaluation plays them: limited, and to be looked at.

Beside what the agent observes, a person wants to see the game itself. Its
picture travels as one more key of the observation, which the agent is never
given. Read next: `vector.py`, which steps them, and `dreamer/run/episodes.py`,
which makes films of them.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from dreamer.config import Config
from dreamer.envs.gym import unrenderable
from dreamer.envs.make import make_env
from dreamer.options import ConfigError

# The key of the picture; no environment has one like it.
FRAME = "picture for people"


def make_watched(
    config: Config, length: int, filmed: int | None
) -> gymnasium.Env:
    """Builds an environment of `config.task` for an evaluation.

    Args:
        config: settings of the run.
        length: number of policy steps after which an episode is cut short, if
            the environment has no shorter limit of its own.
        filmed: number of episodes, the first ones, that have pictures under
            the key `FRAME` if the environment offers any; None for no such
            key.

    Raises:
        ConfigError: if it offers pictures and cannot give them, or as
            `make_env`.
    """
    env = make_env(config, render=filmed is not None)
    env = TimeLimit(env, length)
    if filmed is None or env.render_mode != "rgb_array":
        return env
    try:
        return Watched(env, filmed)
    except ConfigError as error:
        env.close()
        raise ConfigError(f"video of {config.task}: {error}") from None


class Watched(gymnasium.Wrapper):
    """Adds what `render` gives to observations, as uint8 (H, W, 3).

    Args:
        env: environment whose observations are a dict.
        episodes: number of episodes with pictures; those of later ones, for
            the sake of speed, are black.

    Raises:
        ConfigError: if it cannot be rendered.
    """

    def __init__(self, env: gymnasium.Env, episodes: int) -> None:
        super().__init__(env)
        self._left = episodes
        try:
            env.reset()  # nothing can be seen before; the next has its seed
            frame = np.asarray(env.render())
        except Exception as error:  # no display, no driver, no package, ...
            raise ConfigError(unrenderable(error)) from None
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ConfigError(
                f"render() gives {frame.dtype}{list(frame.shape)}, allowed:"
                " uint8 [height, width, 3]"
            )
        self._black = np.zeros_like(frame)
        space = spaces.Box(0, 255, frame.shape, np.uint8)
        self.observation_space = spaces.Dict(
            {**env.observation_space.spaces, FRAME: space}
        )

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode; arguments and result as in Gymnasium."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._left -= 1
        return {**obs, FRAME: self._frame()}, info

    def step(
        self, action: Any
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """As the environment's own, with the picture."""
        obs, *rest = self.env.step(action)
        return {**obs, FRAME: self._frame()}, *rest

    def _frame(self) -> np.ndarray:
        return self._black if self._left < 0 else self.env.render()
