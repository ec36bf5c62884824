"""Says what a run will do, what it needs and, early on, how long it takes.

What it does and needs follows from the settings and the shapes, before the
first step; the time is measured over the first updates.
`python -m dreamer.ratio` explains the ratio at more length.
"""

import time
from collections.abc import Callable, Mapping

import jax

from dreamer.agent.agent import Agent
from dreamer.agent.types import Params
from dreamer.config import Config
from dreamer.options import shown
from dreamer.replay import Replay, available_ram
from dreamer.run.parts import EXACT_BYTES
from dreamer.spaces import Space
from dreamer.train_ratio import schedule
from dreamer.units import duration, in_bytes

# Parameters, gradients, two moments, and the update before it is added.
PARAM_COPIES = 5
# Values kept for the backward pass, for every time step and imagined state,
# in units of a layer's width; see `device_bytes` for how they were found.
FEAT_COPIES, BIN_COPIES, UNIT_COPIES = 2, 7, 44
# For every time step at full resolution, unless images pass in chunks: in
# units of the first stage's channels, and of the image itself.
CONV_COPIES, IMAGE_COPIES = 7, 5
# In chunks: pooled results of the encoder's stages, in units of its depth,
# with the bits that say where each came from.
KEPT_COPIES = 1


def device_bytes(
    agent: Agent, config: Config, params: int, chunked: bool
) -> int:
    """Rough device memory of an update, in bytes.

    Fitted to what XLA plans on a CPU (`Compiled.memory_analysis`) in float32
    for 16 x 64 images of 64 x 64 x 3: within 3% for size1m (473 MB) and
    size12m (1.64 GB).  On accelerators, where images do not pass in chunks,
    nothing has been compared yet: take it for the order of magnitude there.

    Args:
      agent: Agent that makes the update.
      config: Settings, for the size of a batch.
      params: Number of parameters.
      chunked: True if images pass through the convolutions in chunks, see
        `dreamer.agent.convolve.in_chunks`.
    """
    c = agent.config
    feat = c.dyn.rssm.deter + c.dyn.rssm.stoch * c.dyn.rssm.classes
    states = c.imag_length + 1
    heads = BIN_COPIES * c.value.bins + UNIT_COPIES * c.value.units
    values = states * heads + (states + 1) * FEAT_COPIES * feat
    depth = c.enc.simple.depth
    for space in agent.obs_spaces.values():
        if space.kind == "image":
            height, width, channels = space.shape
            copies = CONV_COPIES * 2 * depth + IMAGE_COPIES * channels
            copies = KEPT_COPIES * depth if chunked else copies
            values += copies * height * width
    activations = config.batch_steps * values * agent.dtype.itemsize
    return PARAM_COPIES * 4 * params + activations


def space_in_words(space: Space) -> str:
    """image 64 x 64 x 3, vector 5, one of 3, 2 x one of 5, 2 numbers."""
    sizes = " x ".join(map(str, space.shape))
    if space.kind == "discrete":
        return f"{sizes}{' x ' if sizes else ''}one of {space.classes}"
    if space.kind == "continuous":
        return f"{sizes} number{'s' if sizes != '1' else ''}"
    return f"{space.kind} {sizes}"


def spaces_in_words(spaces: Mapping[str, Space], most: int = 8) -> str:
    """Of observations, with their names where these say more."""
    words = []
    for key, space in spaces.items():
        text = space_in_words(space)
        words.append(text if key == space.kind else f"{shown(key)}: {text}")
    if len(words) > most:
        words[most:] = [f"and {len(words) - most} more"]
    return ", ".join(words)


def describe(
    config: Config, agent: Agent, replay: Replay, params: Params
) -> str:
    """The lines that a run prints before its first step."""
    here = schedule(config)
    count = sum(x.size for x in jax.tree.leaves(params))
    chunked = jax.default_backend() == "cpu"
    device = device_bytes(agent, config, count, chunked)
    each = replay.bytes_per_step
    ram = replay.capacity * each
    per_step = float(here.updates_per_step)
    often = f"{per_step:g} per policy step"
    if 0 < per_step < 1:
        often = f"one per {1 / per_step:g} policy steps"
    envs = f"{here.envs} environment{'s' if here.envs > 1 else ''}"
    batch = f"{config.batch_size} x {config.batch_length} time steps"
    size = f"{count / 1e6:.1f}M" if count >= 1e5 else f"{count:,}"
    lines = {
        "task": f"{config.task}, {envs}, seed {config.seed}",
        "observes": f"{spaces_in_words(agent.obs_spaces)}; acts:"
        f" {space_in_words(agent.action_space)}",
        "length": f"{here.steps:,} policy steps ="
        f" {here.steps * here.action_repeat:,} frames",
        "updates": f"{here.total_updates:,} on {batch}, {often}"
        f" (train_ratio {config.run.train_ratio:g})",
        "model": f"{size} parameters, {agent.dtype} activations,"
        f" about {in_bytes(device)} of device memory",
        "replay": f"{replay.capacity:,} steps of {each / 1000:.1f} KB ="
        f" {in_bytes(ram)} of RAM when full",
    }
    if chunked and device + ram > (free := available_ram()):
        lines["memory"] = (  # on a CPU, device memory is RAM
            f"about {in_bytes(device + ram)} of RAM, and {in_bytes(free)} are"
            " free: the system may end the run; a smaller model, as size12m or"
            " size1m in --configs, or replay.size needs less"
        )
    latents = in_bytes(replay.latent_bytes)
    if not replay.exact:
        lines["resume"] = (
            "not to the bit: checkpoints keep the latents of each step that"
            f" were saved first; --replay.exact always saves all {latents}"
            " each time"
        )
    elif replay.latent_bytes > EXACT_BYTES:
        lines["resume"] = (
            f"to the bit: a checkpoint saves up to all {latents} of latents"
            " again (--replay.exact always)"
        )
    return "\n".join(f"  {key:<8} {text}" for key, text in lines.items())


class Estimate:
    """Says once, after the first updates, how long the rest will take.

    The first two updates of a process are left out: they wait for compilers.
    Updates and the policy steps between them are measured together, on the
    clock, so that nothing has to wait for the device to be measured.

    Args:
      total: Updates of the whole run.
      done: Updates made before this process started.
      clock: Function that returns seconds; other than in tests, a monotonic
        clock.
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
          updates: Updates made so far. Call this after every policy step.
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
