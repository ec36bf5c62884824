"""One Atari game, preprocessed as in the paper's Atari benchmarks.

"Mastering diverse control tasks through world models" (arXiv 2301.04104v2),
Atari settings: action repeat 4, rewards summed and not clipped, the maximum
of the last two frames, up to 30 no-op frames after a reset, lives ignored.
Two points differ from the authors' public code, on purpose: the time limit
truncates an episode and does not terminate it, and sticky actions follow
their setting in every benchmark.

Uses the emulator directly. Its own sticky actions stay off: stickiness and
no-ops are drawn here from one generator, so that the state of an environment
is all in sight. Read next: `screen.py` for pixels, `vector.py` for stepping
several games.
"""

from typing import Any

import gymnasium
import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms

from dreamer.config import AtariConfig
from dreamer.envs.games import rom_name
from dreamer.envs.screen import Screen


class Atari(gymnasium.Env):
    """An Atari game whose step is one policy step of `config.repeat` frames.

    Observations are `{"image": uint8 (height, width, 3 or 1)}`, actions are
    indices into the game's minimal or legal action set, rewards are in points
    of the game. `info["is_terminal"]` says whether the value of what follows
    is 0, which is `terminated` except with `lives: discount`.

    Args:
        game: name as in `dreamer.envs.games`, e.g. `pong`.
        config: see `AtariConfig` for the meaning of each setting.
        seed: of the emulator, the no-ops and the sticky actions.

    Raises:
        ValueError: if there is no such game.
    """

    def __init__(self, game: str, config: AtariConfig, seed: int = 0) -> None:
        self._rom = roms.get_rom_path(rom_name(game))
        self._config = config
        # Keeps the emulator from printing its banner.
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._ale = ALEInterface()
        self._seed(seed)
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
            self._seed(seed)
        self._ale.reset_game()
        for _ in range(self._rng.integers(self._config.noops, endpoint=True)):
            self._ale.act(Action.NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
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
            reward += self._ale.act(self._stick(self._actions[action]))
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

    def _stick(self, action: Action) -> Action:
        """The action of the next frame: the chosen one or the last frame's.

        Machado et al. 2018, "Revisiting the Arcade Learning Environment".
        """
        sticky = self._config.sticky
        if not sticky or self._rng.random() >= sticky:
            self._sticky_action = action
        return self._sticky_action

    def _seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        # The emulator reads its options when it loads a game.
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.setInt("random_seed", int(self._rng.integers(2**31)))
        self._ale.loadROM(self._rom)
