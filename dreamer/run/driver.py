"""Acts in the environments and stores every step in the replay.

One call of `Driver.step` is the whole way from observation to replay: the
agent's policy turns the current observations into actions and latents, all
of it becomes one replay step, and the environments move on.  Paper: arXiv
2301.04104v2, Algorithm 1 in spirit; stored latents as in the authors' code.
Next: learner.py, which trains on what is stored here.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from dreamer.agent.agent import Agent
from dreamer.agent.types import Params
from dreamer.envs.vector import Envs
from dreamer.replay import Replay, Spec
from dreamer.spaces import FLAGS, Space


class Episode(NamedTuple):
    """An episode that has ended.

    `score` is its sum of rewards, `length` its policy steps after the reset.
    """

    score: float
    length: int


class Tally:
    """Counts the rewards and steps of the episodes of several environments.

    Args:
      envs: number of environments N.

    Attributes:
      score: float64 (N,), the sum of rewards of each running episode.
      length: int64 (N,), its policy steps after the reset.
    """

    def __init__(self, envs: int) -> None:
        self.score = np.zeros(envs)
        self.length = np.zeros(envs, np.int64)

    def add(self, obs: Mapping[str, np.ndarray]) -> dict[int, Episode]:
        """Counts one step of every environment.

        Where an environment was replaced, its episode is lost.

        Args:
          obs: result of `Envs.step`.

        Returns:
          The episodes that end with this step, by environment.
        """
        first = obs["is_first"]
        self.score = np.where(first, 0.0, self.score) + obs["reward"]
        self.length = np.where(first, 0, self.length + 1)
        return {
            env: Episode(float(self.score[env]), int(self.length[env]))
            for env in np.flatnonzero(obs["is_last"]).tolist()
        }


def replay_fields(obs_spaces: dict[str, Space], action: Space) -> Spec:
    """Shape and dtype of everything stored with a step but its latents."""
    return {
        **{k: (s.shape, s.dtype) for k, s in obs_spaces.items()},
        "reward": ((), np.dtype(np.float32)),
        **{flag: ((), np.dtype(np.bool_)) for flag in FLAGS},
        "action": (action.shape, action.dtype),
    }


class Driver:
    """Steps N environments with one policy.

    Args:
      envs: environments, which `start` or `restore` puts in place.
      agent: agent whose policy acts.
      replay: replay that receives every step.
      key: PRNG key of all acting.

    Attributes:
      policy_steps: actions taken so far, over all environments.
    """

    def __init__(
        self,
        envs: Envs,
        agent: Agent,
        replay: Replay,
        key: jax.Array,
    ) -> None:
        self.envs = envs
        self.agent = agent
        self.replay = replay
        self.key = key
        self.policy_steps = 0
        self._carry = agent.initial_carry(envs.num)
        self._tally = Tally(envs.num)

    def start(self) -> None:
        """Begins with a new episode in every environment.

        Raises:
          EnvError: an environment failed.
        """
        self.envs.reset()

    def arrays(self) -> dict[str, np.ndarray]:
        """What `restore` needs, but for the environments' own state."""
        obs = {f"obs/{k}": x for k, x in self.envs.receive().items()}
        carry = self._carry._asdict()
        carry = {f"carry/{k}": np.asarray(x) for k, x in carry.items()}
        counts = {"score": self._tally.score, "length": self._tally.length}
        return {**obs, **carry, **counts}

    def restore(
        self,
        policy_steps: int,
        arrays: dict[str, np.ndarray],
        envs: dict[str, np.ndarray],
    ) -> list[int]:
        """Goes on where another driver stood when its state was taken.

        Args:
          policy_steps: number of actions that the other one had taken.
          arrays: the dict that its `arrays()` returned.
          envs: the dict that `Envs.state()` returned at the same time.

        Returns:
          Environments that could not be put back and began a new episode.

        Raises:
          ConfigError: the states are of other environments.
          EnvError: an environment failed.
        """
        self.policy_steps = policy_steps
        self._tally.score = arrays["score"]
        self._tally.length = arrays["length"]
        carry = {k: arrays[f"carry/{k}"] for k in self._carry._fields}
        self._carry = type(self._carry)(**carry)
        obs = {
            k.removeprefix("obs/"): x
            for k, x in arrays.items()
            if k.startswith("obs/")
        }
        return self.envs.restore(envs, obs)[1]

    def step(self, params: Params) -> list[Episode]:
        """One policy step in every environment.

        Does not wait for what comes of it: the environments go on while the
        caller begins an update.

        Args:
          params: current parameters of the agent.

        Returns:
          The episodes whose last observation was acted on.

        Raises:
          EnvError: an environment failed.
        """
        obs = self.envs.receive()
        inputs = {k: obs[k] for k in (*self.agent.obs_spaces, "is_first")}
        index = np.uint32(self.policy_steps // self.envs.num % 2**32)
        self._carry, action = self.agent.policy(
            params, self._carry, inputs, self.key, index
        )
        # All three on their way before the first is waited for.
        action, deter, stoch = jax.device_get(
            (action, self._carry.deter, self._carry.stoch)
        )
        action = action.copy()
        action[obs["is_last"]] = 0  # nothing follows it
        self.envs.send(action)
        self.replay.add(
            {
                **obs,
                "action": action,
                "deter": deter,
                "stoch": stoch,
            }
        )
        self.policy_steps += self.envs.num
        return list(self._tally.add(obs).values())
