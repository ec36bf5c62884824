"""Plays a fixed number of episodes, for their scores and for films of them.

Which environment plays which episode is settled beforehand: of N, episode i
belongs to environment i % N. If those that ended first counted, short
episodes would be too many. Next: policy.py, which acts; films.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dreamer.envs.vector import Envs
from dreamer.run.driver import Episode, Tally
from dreamer.run.films import Films
from dreamer.run.policy import Policy


class Played(NamedTuple):
    """An episode of an evaluation, and the environment that played it."""

    score: float
    length: int
    env: int


class Evaluation:
    """Episodes of one policy in several environments.

    Args:
      policy: policy that acts.
      envs: environments that were just built.
      episodes: number of episodes to play.
      films: films of the first of them, if wanted.

    Attributes:
      policy_steps: actions taken so far, over all environments.

    Raises:
      EnvError: an environment failed.
    """

    def __init__(
        self,
        policy: Policy,
        envs: Envs,
        episodes: int,
        films: Films | None = None,
    ) -> None:
        self._policy = policy
        self._envs = envs
        self._films = films
        self._played: list[Played | None] = [None] * episodes
        self._current = np.arange(envs.num)  # episode that each env plays
        self._tally = Tally(envs.num)
        self.policy_steps = 0
        policy.reset()
        self._obs = envs.reset()

    @property
    def episodes(self) -> Sequence[Played]:
        """Those that have ended, in their order."""
        return [episode for episode in self._played if episode is not None]

    @property
    def finished(self) -> bool:
        """Whether all have."""
        return None not in self._played

    def step(self) -> None:
        """One policy step in every environment.

        Raises:
          EnvError: an environment failed once too often.
          OSError: a film cannot be written.
        """
        obs = self._obs
        ended = self._tally.add(obs)
        actions = self._policy(obs)
        if self._films is not None:
            self._film(obs, self._films)
        for env, episode in ended.items():
            self._end(env, episode)
        if not self.finished:
            self._obs = self._envs.step(actions)
            self.policy_steps += self._envs.num

    def _film(self, obs: dict[str, np.ndarray], films: Films) -> None:
        for env, episode in enumerate(self._current.tolist()):
            if episode < films.count:
                films.add(
                    episode,
                    {key: value[env] for key, value in obs.items()},
                    self._policy.reconstruct(env),
                    f"episode {episode}    step {self._tally.length[env]}"
                    f"    score {self._tally.score[env]:.6g}",
                )

    def _end(self, env: int, episode: Episode) -> None:
        number = int(self._current[env])
        if number < len(self._played):
            self._played[number] = Played(*episode, env)
        if self._films is not None and number < self._films.count:
            self._films.end(number)
        self._current[env] += self._envs.num
