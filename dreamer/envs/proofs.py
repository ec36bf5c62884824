"""Three small tasks that only a working agent solves.

Each needs one ability, and has a score that is the best possible and one that
random actions reach, both exactly known; `scripts/prove.py` trains on them.
All show an image of 16 x 16 pixels, uint8 in three colours, have three
actions, can be saved in the middle of an episode, and take their randomness
from `reset(seed=...)` alone. They are Gymnasium environments like any other:

    python -m dreamer.train --configs proof --task gym_dreamer/Catch-v0

Next: `gym.py`, which adapts them as it does all others.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.envs.blob import pack, unpack

SIDE = 16  # pixels
WHITE = (255, 255, 255)
RED = (255, 60, 60)
GREEN = (60, 255, 60)


class _Proof(gymnasium.Env):
    """What the tasks share: a picture, three actions, a state to save.

    A task keeps all that it remembers in whole numbers, whose names are in
    `FACTS`, and in `self.np_random`.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }
    FACTS: ClassVar[tuple[str, ...]]

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        self.action_space = spaces.Discrete(3)

    def render(self) -> np.ndarray:
        """What the agent sees, (256, 256, 3) uint8."""
        return self._image().repeat(16, 0).repeat(16, 1)

    def get_state(self) -> bytes:
        """All that `set_state` needs."""
        facts = {name: getattr(self, name) for name in self.FACTS}
        return pack(facts | {"rng": self.np_random.bit_generator.state})

    def set_state(self, state: bytes) -> None:
        """Goes on as the environment that was saved.

        Raises:
            ValueError: if this is no such state.
        """
        facts, _ = unpack(state)
        try:
            self.np_random.bit_generator.state = facts["rng"]
            values = [int(facts[name]) for name in self.FACTS]
        except (KeyError, TypeError) as error:
            raise ValueError(f"state is not of this task: {error}") from None
        for name, value in zip(self.FACTS, values, strict=True):
            setattr(self, name, value)

    def _image(self) -> np.ndarray:
        raise NotImplementedError

    def _blank(self) -> np.ndarray:
        return np.zeros((SIDE, SIDE, 3), np.uint8)


class Catch(_Proof):
    """Control: move a paddle under a falling ball.

    A ball falls in one of four columns, one of four rows a step, while the
    actions move a paddle at the bottom to the column on the left, not at all,
    or to the right. A ball that lands on it gives 1; five balls are an
    episode of 19 steps. Every ball can be caught, and chance is one in four:
    the best score is 5, a random one 1.25.
    """

    BALLS = 5
    PLACES = 4
    FACTS = ("_paddle", "_column", "_row", "_balls")

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new ball, the paddle in the middle."""
        super().reset(seed=seed)
        self._paddle, self._balls = self.PLACES // 2, self.BALLS
        self._drop()
        return self._image(), {}

    def step(
        self, action: int
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves the paddle, and the ball or drops the next one."""
        paddle = self._paddle + int(action) - 1
        self._paddle = min(max(paddle, 0), self.PLACES - 1)
        if self._row == self.PLACES - 1:
            self._drop()
            return self._image(), 0.0, False, False, {}
        self._row += 1
        landed = self._row == self.PLACES - 1
        self._balls -= landed
        reward = float(landed and self._column == self._paddle)
        return self._image(), reward, self._balls == 0, False, {}

    def _drop(self) -> None:
        self._column = int(self.np_random.integers(self.PLACES))
        self._row = 0

    def _image(self) -> np.ndarray:
        image = self._blank()
        left, top, paddle = 4 * self._column, 4 * self._row, 4 * self._paddle
        image[-2:, paddle : paddle + 4] = GREEN
        image[top : top + 4, left : left + 4] = WHITE
        return image


class Recall(_Proof):
    """Memory: go on doing what the first image of the episode asked for.

    That image is red or black, all others are black. The right action is 1
    after red and 0 after black, in every step of the episode: it gives 1, a
    wrong one -1; 2 is never right. Episodes take 6 to 14 steps.

    No image tells a new episode that begins in black from an old one that
    goes on: who does not forget at `is_first` does what older colours asked
    for. The best score is 10 on average, a random one -10/3, and with eyes
    but no memory at most 1.
    """

    COLOURS = ((0, 0, 0), RED)
    FACTS = ("_answer", "_left", "_first")

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Shows what is to be done."""
        super().reset(seed=seed)
        self._answer = int(self.np_random.integers(len(self.COLOURS)))
        self._left = int(self.np_random.integers(6, 15))
        self._first = 1
        return self._image(), {}

    def step(
        self, action: int
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Judges the action."""
        self._first = 0
        self._left -= 1
        reward = 1.0 if action == self._answer else -1.0
        return self._image(), reward, self._left == 0, False, {}

    def _image(self) -> np.ndarray:
        image = self._blank()
        if self._first:
            image[:] = self.COLOURS[self._answer]
        return image


class Doors(_Proof):
    """Delayed reward: leave the small one, wait for the large one.

    Three doors, in random order: one green, two red. The first action is the
    one to go through; a corridor follows, in which actions do nothing. After
    the green door, 1 comes after 20 steps, and the episode ends one step
    later. After a red one, 0.2 comes after 2 steps and the episode ends with
    it. The best score is 1, a random one 7/15.

    20 steps are more than are imagined (15): the critic has to carry the
    value back, and a discount of 0.9 would make the red doors better. An agent
    that does not learn where episodes end may take the last image of the red
    corridor for one that pays for ever.
    """

    GREEN_STEPS, RED_STEPS = 20, 2
    FACTS = ("_green", "_walked", "_door")

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Shows the doors."""
        super().reset(seed=seed)
        self._green = int(self.np_random.integers(3))
        self._walked, self._door = 0, -1
        return self._image(), {}

    def step(
        self, action: int
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Chooses a door, then walks on."""
        if self._door < 0:
            self._door = int(action)
        self._walked += 1
        if self._door == self._green:
            reward = float(self._walked == self.GREEN_STEPS)
            done = self._walked > self.GREEN_STEPS
        else:
            done = self._walked == self.RED_STEPS
            reward = 0.2 * done
        return self._image(), reward, done, False, {}

    def _image(self) -> np.ndarray:
        image = self._blank()
        if self._door < 0:
            for door in range(3):
                colour = GREEN if door == self._green else RED
                image[2:14, 5 * door + 1 : 5 * door + 5] = colour
            return image
        # Two rows with 11 pixels each turn white, one with every step.
        image[2:14] = GREEN if self._door == self._green else RED
        row, place = divmod(self._walked, 11)
        image[4:8, 2 : 2 + (11 if row else place)] = WHITE
        image[8:12, 2 : 2 + (place if row else 0)] = WHITE
        return image


for version, task in ("v0", Catch), ("v1", Recall), ("v0", Doors):
    gymnasium.register(f"dreamer/{task.__name__}-{version}", task)
