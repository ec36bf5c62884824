"""Says what a run will do, what it needs and, early on, how long it takes.

What it does and needs follows from the settings and the shapes, before the
first step; the time is measured over the first updates.
`python -m dreamer.ratio` explains the ratio at more length.
"""

import math
import time
from collections.abc import Callable

import jax

from dreamer.agent.agent import Agent, Params
from dreamer.config import Config
from dreamer.replay import Replay, required_ram
from dreamer.run.progress import duration
from dreamer.train_ratio import schedule

# Parameters, gradients, two moments, and the update before it is added.
PARAM_COPIES = 5
# Values kept for the backward pass at full resolution, for every time step:
# of encoder and decoder in units of the first stage's channels, and of the
# image itself. Fitted to XLA's count, see `device_bytes`.
CONV_COPIES = 7
IMAGE_COPIES = 5


def device_bytes(agent: Agent, config: Config, params: int) -> int:
    """Rough device memory of an update, in bytes.

    Parameters, and of the activations only what is widest: convolutions and
    the features of every imagined state.  Within 2% of what XLA plans on a
    CPU (`Compiled.memory_analysis`) for size1m (1.26 GB) and size12m (4.3 GB)
    in float32 with 16 x 64 images of 64 x 64 x 3.  Accelerators fuse and pad
    differently, and bfloat16 counts as half of float32 here, while a CPU
    needs as much for both: take it for the order of magnitude there.
    """
    rssm = agent.config.dyn.rssm
    feat = rssm.deter + rssm.stoch * rssm.classes
    values = feat * (agent.config.imag_length + 2)
    depth = 2 * agent.config.enc.simple.depth
    for space in agent.obs_spaces.values():
        if space.kind == "image":
            height, width, channels = space.shape
            copies = CONV_COPIES * depth + IMAGE_COPIES * channels
            values += copies * height * width
    activations = config.batch_steps * values * agent.dtype.itemsize
    return PARAM_COPIES * 4 * params + activations


def gigabytes(number: float) -> str:
    """1.3 GB, or 25 MB where that says more."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{math.ceil(number / 1e6)} MB"


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
    size = f"{count / 1e6:.1f}M" if count >= 1e5 else f"{count:,}"
    lines = {
        "task": f"{config.task}, {envs}, seed {config.seed}",
        "length": f"{here.steps:,} policy steps ="
        f" {here.steps * here.action_repeat:,} frames",
        "updates": f"{here.total_updates:,} on {batch}, {often}"
        f" (train_ratio {config.run.train_ratio:g})",
        "model": f"{size} parameters, {agent.dtype} activations,"
        f" about {device} of device memory",
        "replay": f"{replay.capacity:,} steps of {each / 1000:.1f} KB ="
        f" {ram} of RAM when full",
    }
    return "\n".join(f"  {key:<8} {text}" for key, text in lines.items())


class Estimate:
    """Says once, after the first updates, how long the rest will take.

    The first two updates of a process are left out: they wait for compilers.
    Updates and the policy steps between them are measured together, on the
    clock, so that nothing has to wait for the device to be measured.

    Args:
      total: updates of the whole run.
      done: updates at the start of this process.
      clock: seconds; other than in tests, a monotonic clock.
    """

    skipped = 2
    measured = 5

    def __init__(
        self,
        total: int,
        done: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._from = done + self.skipped
        self._clock = clock
        self._begin: tuple[int, float] | None = None
        self._told = False

    def line(self, updates: int) -> str | None:
        """The line, on the one call that it is due; otherwise nothing.

        Args:
          updates: made so far; call it after every policy step.
        """
        if self._told or updates < self._from:
            return None
        if self._begin is None:
            self._begin = (updates, self._clock())
            return None
        first, then = self._begin
        if updates < first + self.measured:
            return None
        self._told = True
        each = (self._clock() - then) / (updates - first)
        left = max(self._total - updates, 0)
        return (
            f"  time     {each:.3g} s per update and its policy steps,"
            f" {left:,} updates to go: about {duration(left * each)}"
        )
