"""What a sweep will take, before it starts: steps, hours, RAM and disk.

RAM and disk follow from the settings, without JAX and without an environment;
hours from how fast runs of the same settings in the same folder were, or from
what the person says. Next: table.py, which words it.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamer.config import Config
from dreamer.sweeps.grid import Run
from dreamer.sweeps.record import Record
from dreamer.sweeps.standing import Standing, look

# Parameters per square of the recurrent state's width: of all size* presets
# within a quarter, as their other widths grow with it.
PARAMETERS_PER_DETER = 3
# A checkpoint's bytes per parameter: itself and two moments, in float32.
CHECKPOINT_BYTES = 12
CHECKPOINTS = 2  # kept
PROGRAM_BYTES = 1_500_000_000  # of a run: Python, JAX and compiled code
FIXED = ("--task", "--seed")  # arguments that do not change the speed


@dataclass(frozen=True)
class Planned:
    """A run of the sweep, and how it stands."""

    run: Run
    standing: Standing

    @property
    def steps_left(self) -> int:
        """Policy steps that are still to come."""
        steps = self.run.config.run.steps
        return max(steps - self.standing.policy_steps, 0)


def replay_bytes(config: Config, accelerator: bool) -> int:
    """Of a full replay: images, and the latents that go with every step.

    What a gym environment shows is not known here: as if it were images.

    Args:
      config: Settings of the run.
      accelerator: True if the run has one, so that activations are bfloat16.
    """
    env = getattr(config.env, config.suite)
    height, width = env.size
    image = height * width * (1 if getattr(env, "gray", False) else 3)
    dtype = config.jax.compute_dtype
    short = dtype == "bfloat16" or (dtype == "auto" and accelerator)
    rssm = config.agent.dyn.rssm
    latents = rssm.deter * (2 if short else 4) + rssm.stoch
    return (image + latents) * min(config.replay.size, config.run.steps)


def disk_bytes(config: Config, accelerator: bool) -> int:
    """Of a run that is over: its replay and checkpoints."""
    parameters = PARAMETERS_PER_DETER * config.agent.dyn.rssm.deter**2
    checkpoints = CHECKPOINTS * CHECKPOINT_BYTES * parameters
    return replay_bytes(config, accelerator) + checkpoints


def _kind(arguments: Sequence[str]) -> tuple[str, ...]:
    """Arguments but for task and seed: what decides on the speed."""
    words = list(arguments)
    for flag in FIXED:
        if flag in words:
            at = words.index(flag)
            del words[at : at + 2]
    return tuple(words)


class Speeds:
    """Policy steps per second that runs of a folder were seen to make.

    Args:
      record: Record of the sweep's folder.
      hours: Hours that a whole run takes, if the person knows them.
    """

    def __init__(self, record: Record, hours: float | None = None) -> None:
        self._hours = hours
        self._seen: dict[tuple[str, ...], list[float]] = {}
        for name, entry in record.runs.items():
            speed = look(record.folder / name).steps_per_second
            if speed:
                kind = _kind(entry.arguments)
                self._seen.setdefault(kind, []).append(speed)

    def seconds(self, run: Run, steps: int) -> float | None:
        """For so many steps of a run; None where no speed is known."""
        if self._hours:
            return self._hours * 3600 * steps / run.config.run.steps
        seen = self._seen.get(_kind(run.arguments))
        return steps / statistics.median(seen) if seen else None

    def left(self, runs: Iterable[Planned]) -> float | None:
        """Seconds of all runs, one after another; None if not known."""
        found = [self.seconds(x.run, x.steps_left) for x in runs]
        return None if None in found else sum(found)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(x for x in (folder, *folder.parents) if x.exists())
