"""Acts in the environments and stores every step in the replay.

One call of `Driver.step` is the whole way from observation to replay: the
agent's policy turns the current observations into actions and latents, all
of it becomes one replay step, and the environments move on.  Paper: arXiv
2301.04104v2, Algorithm 1 in spirit; stored latents as in the authors' code.
Next: learner.py, which trains on what is stored here.
"""

from typing import NamedTuple

import jax
import numpy as np

from dreamer.agent.agent import Agent, Params
from dreamer.envs.vector import Envs
from dreamer.replay import Replay, Spec


class Episode(NamedTuple):
    """An episode that has ended.

    `score` is its sum of rewards, `length` its policy steps after the reset.
    """

    score: float
    length: int


def replay_fields(envs: Envs) -> Spec:
    """Shape and dtype of everything stored with a step but its latents."""
    action = envs.action_space
    flags = ("is_first", "is_last", "is_terminal")
    return {
        **{k: (s.shape, s.dtype) for k, s in envs.obs_spaces.items()},
        "reward": ((), np.dtype(np.float32)),
        **{flag: ((), np.dtype(np.bool_)) for flag in flags},
        "action": (action.shape, action.dtype),
    }


class Driver:
    """Steps N environments with one policy.

    Args:
      envs: stepped in lockstep; reset here.
      agent: for its policy.
      replay: receives every step.
      key: PRNG key of all acting.
      policy_steps: done before, by the run that this one continues.
    """

    def __init__(
        self,
        envs: Envs,
        agent: Agent,
        replay: Replay,
        key: jax.Array,
        policy_steps: int = 0,
    ) -> None:
        self.envs = envs
        self.agent = agent
        self.replay = replay
        self.key = key
        self.policy_steps = policy_steps
        self._carry = agent.initial_carry(envs.num)
        self._obs = envs.reset()
        self._score = np.zeros(envs.num)
        self._length = np.zeros(envs.num, np.int64)

    def step(self, params: Params) -> list[Episode]:
        """One policy step in every environment.

        Args:
          params: the agent's current parameters.

        Returns:
          The episodes whose last observation was acted on.

        Raises:
          EnvError: an environment failed.
        """
        obs = self._obs
        inputs = {k: obs[k] for k in (*self.agent.obs_spaces, "is_first")}
        index = np.uint32(self.policy_steps // self.envs.num)
        self._carry, action = self.agent.policy(
            params, self._carry, inputs, self.key, index
        )
        action = np.array(action)
        action[obs["is_last"]] = 0  # nothing follows it
        self._obs = self.envs.step(action)
        self.replay.add(
            {
                **obs,
                "action": action,
                "deter": np.asarray(self._carry.deter),
                "stoch": np.asarray(self._carry.stoch),
            }
        )
        self.policy_steps += self.envs.num
        return self._count(obs)

    def _count(self, obs: dict[str, np.ndarray]) -> list[Episode]:
        """Adds rewards to the running episodes; those that ended."""
        first = obs["is_first"]
        self._score = np.where(first, 0.0, self._score) + obs["reward"]
        self._length = np.where(first, 0, self._length + 1)
        return [
            Episode(float(self._score[i]), int(self._length[i]))
            for i in np.flatnonzero(obs["is_last"])
        ]
