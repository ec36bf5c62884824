"""Says at the start of a run what it will do and what it needs.

Everything here follows from the settings and the shapes, before the first
step.  `python -m dreamer.ratio` explains the ratio at more length.
"""

import math

import jax

from dreamer.agent.agent import Agent, Params
from dreamer.config import Config
from dreamer.replay import Replay, required_ram
from dreamer.train_ratio import schedule

# Parameters, gradients, two moments, and the update before it is added.
PARAM_COPIES = 5
# Full-resolution layers that the backward pass keeps of encoder and decoder,
# in units of the first stage's channels.
CONV_COPIES = 6


def device_bytes(agent: Agent, config: Config, params: int) -> int:
    """Rough device memory of an update, in bytes.

    Copies of the parameters are exact; of the activations only the widest
    count: the convolutions' and the features of every imagined state.
    """
    rssm = agent.config.dyn.rssm
    feat = rssm.deter + rssm.stoch * rssm.classes
    values = feat * (agent.config.imag_length + 2)
    depth = 2 * agent.config.enc.simple.depth
    for space in agent.obs_spaces.values():
        if space.kind == "image":
            values += CONV_COPIES * depth * math.prod(space.shape[:2])
    activations = config.batch_steps * values * agent.dtype.itemsize
    return PARAM_COPIES * 4 * params + activations


def gigabytes(number: float) -> str:
    """1.3 GB, or 25 MB where that says more."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB"


def describe(
    config: Config, agent: Agent, replay: Replay, params: Params
) -> str:
    """The lines that a run prints before its first step."""
    here = schedule(config)
    count = sum(x.size for x in jax.tree.leaves(params))
    device = gigabytes(device_bytes(agent, config, count))
    each = replay.bytes_per_step
    ram = gigabytes(required_ram(replay.capacity, each))
    per_step = float(here.updates_per_step)
    often = f"{per_step:g} per policy step"
    if 0 < per_step < 1:
        often = f"one per {1 / per_step:g} policy steps"
    envs = f"{here.envs} environment{'s' if here.envs > 1 else ''}"
    batch = f"{config.batch_size} x {config.batch_length} time steps"
    lines = {
        "task": f"{config.task}, {envs}, seed {config.seed}",
        "length": f"{here.steps:,} policy steps ="
        f" {here.steps * here.action_repeat:,} frames",
        "updates": f"{here.total_updates:,} on {batch}, {often}"
        f" (train_ratio {config.run.train_ratio:g})",
        "model": f"{count / 1e6:.1f}M parameters, {agent.dtype} activations,"
        f" about {device} of device memory",
        "replay": f"{replay.capacity:,} steps of {each / 1000:.1f} KB ="
        f" {ram} of RAM when full",
    }
    return "\n".join(f"  {key:<8} {text}" for key, text in lines.items())
