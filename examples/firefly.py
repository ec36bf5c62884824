"""An environment of one's own: a net that drifts through a dark room.

Its image shows where the net and a firefly are, a vector how fast the net
drifts; the two actions push it. A catch is worth 1 and sets the next firefly
free, the walls end the episode. README.md beside it says why each part
is there. In this folder:

    ../scripts/train --configs quick --task gym_Firefly-v0 --env.import firefly
"""

import json
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


class Firefly(gymnasium.Env):
    """Catch as many fireflies as you can, and stay away from the walls."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            image=spaces.Box(0, 255, (64, 64, 3), np.uint8),
            velocity=spaces.Box(-1.0, 1.0, (2,), np.float32),
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Puts the net in the middle of the room and the firefly anywhere."""
        super().reset(seed=seed)  # seeds self.np_random
        self.net = np.array([0.5, 0.5])  # right and down, from 0 to 1
        self.velocity = np.zeros(2)
        self.firefly = self.np_random.uniform(0.1, 0.9, 2)
        return self._observe(), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Pushes the net, lets it drift, and looks what it has caught."""
        self.velocity = 0.9 * self.velocity + 0.1 * action
        self.net = self.net + 0.1 * self.velocity
        caught = np.linalg.norm(self.net - self.firefly) < 0.1
        if caught:
            self.firefly = self.np_random.uniform(0.1, 0.9, 2)
        hit_a_wall = bool((abs(self.net - 0.5) > 0.5).any())
        return self._observe(), float(caught), hit_a_wall, False, {}

    def render(self) -> np.ndarray:
        """A larger picture than the agent's, for videos."""
        return self._draw(256)

    def get_state(self) -> bytes:
        """All that the future depends on, random numbers included."""
        places = [self.net, self.velocity, self.firefly]
        rng = self.np_random.bit_generator.state
        return json.dumps([[list(x) for x in places], rng]).encode()

    def set_state(self, state: bytes) -> None:
        """Goes on where `get_state` was called."""
        places, rng = json.loads(state)
        self.net, self.velocity, self.firefly = map(np.array, places)
        self.np_random.bit_generator.state = rng

    def _observe(self) -> dict[str, np.ndarray]:
        velocity = self.velocity.astype(np.float32)
        return {"image": self._draw(64), "velocity": velocity}

    def _draw(self, size: int) -> np.ndarray:
        down, right = (np.indices((size, size)) + 0.5) / size
        image = np.full((size, size, 3), (16, 16, 48), np.uint8)
        for (x, y), radius, colour in (
            (self.net, 0.1, (96, 128, 192)),
            (self.firefly, 0.04, (255, 224, 64)),
        ):
            image[np.hypot(right - x, down - y) < radius] = colour
        return image


# After 100 steps an episode is cut short, which is not an end of its own.
gymnasium.register("Firefly-v0", Firefly, max_episode_steps=100)
