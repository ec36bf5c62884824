"""One Atari game, preprocessed as in the paper's Atari benchmarks.

"Mastering diverse control tasks through world models" (arXiv 2301.04104v2),
Atari settings: action repeat 4, rewards summed and not clipped, the maximum
of the last two frames, up to 30 no-op frames after a reset, lives ignored.
Three points differ from the authors' public code, on purpose: the time limit
truncates an episode and does not terminate it, sticky actions follow their
setting in every benchmark, and the first image of an episode is the current
screen.

Uses the emulator directly. Its own sticky actions stay off: stickiness and
no-ops are drawn here from one generator, so that the state of an environment
is all in sight. Read next: `emulator.py` for what a saved game is,
`screen.py` for pixels, `vector.py` for stepping several games.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from ale_py import Action

from dreamer.config import AtariConfig
from dreamer.envs.blob import pack, unpack
from dreamer.envs.emulator import Emulator
from dreamer.envs.screen import Screen


class Atari(gymnasium.Env):
    """An Atari game whose step is one policy step of `config.repeat` frames.

    Observations are `{"image": uint8 (height, width, 3 or 1)}`, actions are
    indices into the game's minimal or legal action set, rewards are in points
    of the game. `info["is_terminal"]` says whether the value of what follows
    is 0, which is `terminated` except with `lives: discount`.

    Args:
        game: name as in `dreamer.envs.games`, e.g. `pong`.
        config: settings, whose meaning `AtariConfig` tells.
        seed: seed of the emulator, the no-ops and the sticky actions.

    Raises:
        ConfigError: if there is no such game.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 60,
    }
    render_mode = "rgb_array"

    def __init__(self, game: str, config: AtariConfig, seed: int = 0) -> None:
        self._config = config
        self._rng = np.random.default_rng(seed)
        self._emulator = Emulator(game, int(self._rng.integers(2**31)))
        self._ale = self._emulator.ale
        self._actions = (
            self._ale.getMinimalActionSet()
            if config.actions == "needed"
            else self._ale.getLegalActionSet()
        )
        self._screen = Screen(self._ale, config.size, config.gray)
        self._sticky_action = Action.NOOP
        self._frames = 0
        self._lives = 0
        shape = (*config.size, 1 if config.gray else 3)
        image = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = gymnasium.spaces.Dict(image=image)
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts a new game and plays a random number of no-op frames.

        With a seed, everything that follows is as in a fresh environment of
        that seed. The image shows the current frame alone.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
            self._emulator.load(int(self._rng.integers(2**31)))
        self._emulator.new_game()
        for _ in range(self._rng.integers(self._config.noops, endpoint=True)):
            self._emulator.act(Action.NOOP)
            if self._ale.game_over():
                self._emulator.new_game()
        self._sticky_action = Action.NOOP
        self._frames = 0
        self._lives = self._ale.lives()
        # Twice, so that nothing of the last game is left in the maximum.
        self._screen.show()
        self._screen.show()
        return {"image": self._screen.image()}, {"is_terminal": False}

    def step(
        self, action: int
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Repeats the action and returns what Gymnasium's `step` returns.

        Stops early at the end of the game (terminated) and at the length
        limit (truncated).
        """
        reward = 0.0
        game_over = False
        repeat = min(self._config.repeat, self._config.length - self._frames)
        for _ in range(repeat):
            reward += self._emulator.act(self._stick(self._actions[action]))
            self._frames += 1
            self._screen.show()
            game_over = self._ale.game_over()
            if game_over:
                break
        lives = self._ale.lives()
        lost_life = lives < self._lives and self._config.lives != "unused"
        self._lives = lives
        terminal = game_over or lost_life
        terminated = terminal and (game_over or self._config.lives == "reset")
        truncated = not game_over and self._frames >= self._config.length
        image = self._screen.image()
        info = {"is_terminal": terminal}
        return {"image": image}, reward, terminated, truncated, info

    def render(self) -> np.ndarray:
        """The console's whole screen now, uint8 (210 or so, 160, 3)."""
        return self._ale.getScreenRGB()

    def _stick(self, action: Action) -> Action:
        """The action of the next frame: the chosen one or the last frame's.

        Machado et al. 2018, "Revisiting the Arcade Learning Environment".
        """
        sticky = self._config.sticky
        if not sticky or self._rng.random() >= sticky:
            self._sticky_action = action
        return self._sticky_action

    def get_state(self) -> bytes:
        """All that `set_state` needs to go on from here, to the bit.

        Raises:
            ValueError: if this version of the emulator cannot be saved.
        """
        facts = {
            "rng": self._rng.bit_generator.state,
            "frames": self._frames,
        }
        return pack(facts, **self._emulator.history())

    def set_state(self, blob: bytes) -> None:
        """Goes on where an environment of the same settings was saved.

        Plays the episode again, about 10000 frames a second.

        Raises:
            ValueError: if this is no such state, or cannot be played again.
                What the environment does then is undefined until a reset.
        """
        facts, history = unpack(blob)
        try:
            self._restore(facts, history)
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"state of an Atari game: {reason}") from None

    def _restore(
        self, facts: dict[str, Any], history: dict[str, np.ndarray]
    ) -> None:
        rng = np.random.default_rng()
        rng.bit_generator.state = facts["rng"]
        frames, played = facts["frames"], history["played"]
        if (
            type(frames) is not int
            or not 0 <= frames <= min(self._config.length, played.size)
            or played.size - frames > self._config.noops
            or (played.shape, played.dtype) != ((played.size,), np.uint8)
        ):
            raise ValueError(f"state of an Atari game: {frames} frames")
        self._emulator.replay(history)
        # Of what was shown before, the next image holds the last frame alone.
        self._screen.show()
        self._rng, self._frames = rng, frames
        self._sticky_action = (
            Action(int(played[-1])) if frames else Action.NOOP
        )
        self._lives = self._ale.lives()
