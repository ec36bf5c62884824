"""What a run is made of and made from, seen to before it is built.

Next: state.py, which builds it.
"""

from typing import Any

import numpy as np

from dreamer.agent.agent import Agent
from dreamer.config import Config, ConfigError
from dreamer.envs.vector import Envs
from dreamer.replay import Replay, Spec, bytes_per_step, fits_in_ram
from dreamer.run.driver import replay_fields

# Of latents, which a checkpoint may have to write all again; Atari 100K at
# size200m has 1.8 GB of them, 5M steps have 82 GB.
EXACT_BYTES = 4 * 10**9


def check_complete(
    arrays: dict[str, dict[str, np.ndarray]], counters: dict[str, Any]
) -> None:
    """Sees that a checkpoint has all that a run goes on from.

    Raises:
      ConfigError: something is missing.
    """
    missing = {"learner", "driver", "envs"} - arrays.keys()
    missing |= {"policy_steps", "ratio", "asked", "owed"} - counters.keys()
    if missing:
        raise ConfigError(
            f"the checkpoint is not of a run: it lacks {min(missing)}"
        )


def make_replay(
    config: Config, envs: Envs, agent: Agent, policy_steps: int
) -> Replay:
    """A replay no larger than the run's own steps.

    Args:
      config: all settings.
      envs: whose steps it holds.
      agent: whose latents it holds.
      policy_steps: done before; they fit whatever `run.steps` is now.

    Raises:
      ValueError: names the RAM that is needed and the RAM there is.
    """
    fields = replay_fields(envs.obs_spaces, envs.action_space)
    latents = agent.latents
    window = config.replay_context + config.batch_length
    steps = max(config.run.steps, policy_steps)
    each = -(-min(config.replay.size, steps) // envs.num)  # rounded up
    capacity = max(each, window) * envs.num
    fits_in_ram(capacity, bytes_per_step(fields, latents))
    return Replay(
        fields,
        latents,
        envs=envs.num,
        capacity=capacity,
        context=config.replay_context,
        length=config.batch_length,
        seed=config.seed,
        online=config.replay.online,
        exact=is_exact(config, latents, capacity),
    )


def is_exact(config: Config, latents: Spec, capacity: int) -> bool:
    """Whether checkpoints save latents again that updates refreshed.

    Args:
      config: all settings.
      latents: of the agent.
      capacity: steps that the replay holds when full.
    """
    small = capacity * bytes_per_step({}, latents) <= EXACT_BYTES
    return {"always": True, "never": False}.get(config.replay.exact, small)
