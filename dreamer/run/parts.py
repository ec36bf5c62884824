"""Builds the replay and validates a checkpoint's contents.

Next: state.py, which builds the whole run.
"""

from typing import Any

import numpy as np

from dreamer.agent.agent import Agent
from dreamer.config import Config
from dreamer.envs.vector import Envs
from dreamer.options import ConfigError
from dreamer.replay import Replay, Spec, bytes_per_step, fits_in_ram
from dreamer.run.checkpoint import QUEUE_BYTES
from dreamer.run.driver import replay_fields

# Of latents, which a checkpoint may have to write all again; Atari 100K at
# size200m has 1.8 GB of them, 5M steps have 82 GB.
EXACT_BYTES = 4 * 10**9
# What a process comes to need beside its replay and has not taken yet when
# that is made: compiling above all.
REST_BYTES = 10**9


def check_complete(
    arrays: dict[str, dict[str, np.ndarray]], counters: dict[str, Any]
) -> None:
    """Sees that a checkpoint has all that a run goes on from.

    Args:
      arrays: the checkpoint's arrays, by owner and name.
      counters: the checkpoint's counters, by name.

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
    config: Config,
    envs: Envs,
    agent: Agent,
    policy_steps: int,
    sharing: int = 1,
) -> Replay:
    """A replay no larger than the run's own steps.

    Args:
      config: all settings.
      envs: environments whose steps it holds.
      agent: agent whose latents it holds.
      policy_steps: number of steps done before, which fit whatever
        `run.steps` is now.
      sharing: processes of the run on this host.

    Raises:
      ConfigError: names the RAM that is needed and the RAM there is.
    """
    fields = replay_fields(envs.obs_spaces, envs.action_space)
    latents = agent.latents
    window = config.replay_context + config.batch_length
    steps = max(config.run.steps, policy_steps)
    each = -(-min(config.replay.size, steps) // envs.num)  # rounded up
    capacity = max(each, window) * envs.num
    # While a checkpoint is written, some of it is in RAM twice.
    copied = min(QUEUE_BYTES, capacity * bytes_per_step(latents))
    step_bytes = bytes_per_step({**fields, **latents})
    fits_in_ram(capacity, step_bytes, REST_BYTES + copied, sharing)
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
      latents: shape and dtype of the agent's latents.
      capacity: number of steps that the replay holds when full.
    """
    small = capacity * bytes_per_step(latents) <= EXACT_BYTES
    return {"always": True, "never": False}.get(config.replay.exact, small)
