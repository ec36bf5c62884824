"""What `train_ratio` means, in every unit, and how one follows from another.

`train_ratio` counts the time steps that are replayed for every policy step.
An update trains on batch_steps = batch_size * batch_length of them, so

    updates per policy step = train_ratio / batch_steps
    updates per frame       = train_ratio / (batch_steps * action repeat)

The "replay ratio" of "Mastering diverse control tasks through world models"
(arXiv 2301.04104v2) is `train_ratio`: both count policy steps, not frames. A
replay ratio in frames is train_ratio / action repeat. Everything here is
exact, in fractions. Next: `dreamer.ratio`, which hands the updates out.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

from dreamer.config import Config
from dreamer.options import ConfigError


def exact(number: float | Fraction) -> Fraction:
    """The simple fraction whose nearest float this is: 1/10 for 0.1.

    It is the first convergent of the continued fraction that rounds to the
    same float.

    Raises:
      ValueError: The number is not finite.
    """
    try:
        target = Fraction(number)
    except (OverflowError, ValueError):
        raise ValueError(f"ratio={number}: expected a finite number") from None
    if isinstance(number, Fraction):
        return number
    rest = target
    before, last = (0, 1), (1, 0)  # Numerator and denominator.
    while True:
        whole = rest.numerator // rest.denominator
        before, last = (
            last,
            (whole * last[0] + before[0], whole * last[1] + before[1]),
        )
        if last[0] / last[1] == number:
            return Fraction(*last)
        rest = 1 / (rest - whole)


def updates_owed(train_ratio: float, batch_steps: int) -> Fraction:
    """The r of `Ratio`: updates per policy step; a sign stays."""
    return exact(train_ratio) / batch_steps


def first_full_step(envs: int, batch_steps: int, window: int) -> int:
    """Policy steps until a replay holds `batch_steps` windows.

    Args:
      envs: Environments that step together, each with its own stream.
      batch_steps: Time steps that one update trains on.
      window: Time steps K + T of one sequence.
    """
    each = -(-batch_steps // envs) + window - 1
    return each * envs


def expected_updates(
    steps: int, envs: int, ratio: Fraction, first_step: int
) -> int:
    """Updates of a run that asks `Ratio` once per policy step.

    Args:
      steps: Policy steps of the run; rounded up to whole steps of all
        environments.
      envs: Environments that step together.
      ratio: Updates per policy step, as `Ratio` takes it.
      first_step: Policy step of the first question.
    """
    asked = -(-steps // envs) * envs - first_step
    if ratio == 0 or asked < 0:
        return 0
    return asked + 1 if ratio < 0 else 1 + int(asked * ratio)


@dataclass(frozen=True)
class Schedule:
    """What a `train_ratio` means in a run, in every unit.

    Attributes:
      train_ratio: Replayed time steps per policy step; 0 never trains,
        negative makes one update every policy step.
      batch_steps: Time steps that one update trains on, B * T.
      action_repeat: Frames per policy step.
      steps: Policy steps of the run over all environments.
      envs: Environments that step together.
      first_step: Policy step at which `Ratio` is first asked: the first one
        of those that make the replay able to serve a batch.
    """

    train_ratio: Fraction
    batch_steps: int
    action_repeat: int
    steps: int
    envs: int
    first_step: int

    @property
    def updates_per_step(self) -> Fraction:
        """Updates per policy step."""
        ratio = self.train_ratio / self.batch_steps
        return ratio if ratio >= 0 else Fraction(1)

    @property
    def updates_per_frame(self) -> Fraction:
        """Updates per frame."""
        return self.updates_per_step / self.action_repeat

    @property
    def replay_ratio(self) -> Fraction:
        """Replayed time steps per policy step, the paper's measure."""
        return self.updates_per_step * self.batch_steps

    @property
    def replay_ratio_frames(self) -> Fraction:
        """Replayed time steps per frame."""
        return self.replay_ratio / self.action_repeat

    @property
    def total_updates(self) -> int:
        """Updates of the whole run."""
        ratio = self.train_ratio / self.batch_steps
        return expected_updates(self.steps, self.envs, ratio, self.first_step)

    def train_ratio_for(self, unit: str, amount: Fraction) -> Fraction:
        """The train_ratio at which one of the other numbers is `amount`.

        Args:
          unit: Key of `UNITS`.
          amount: Wanted value in that unit, 0 or more.

        Raises:
          ConfigError: Updates in total that are not whole, or that the run is
            too short for.
        """
        worth = {
            "train_ratio": 1,
            "replay_ratio_frames": self.action_repeat,
            "updates_per_step": self.batch_steps,
            "updates_per_frame": self.batch_steps * self.action_repeat,
        }
        if unit in worth:
            return amount * worth[unit]
        return self._train_ratio_for_total(amount)

    def _train_ratio_for_total(self, amount: Fraction) -> Fraction:
        asked = -(-self.steps // self.envs) * self.envs - self.first_step
        if amount.denominator != 1:
            raise ConfigError(
                f"total_updates={float(amount)}: expected a whole number"
            )
        if amount == 0:
            return Fraction(0)
        if asked < 1:
            raise ConfigError(
                f"total_updates={amount}: expected 0, as the run's"
                f" {self.steps} policy steps end before the replay can serve"
                f" a batch, at {self.first_step}"
            )
        # The first update is free. The middle of the ratios that give the
        # others, then as few digits of it as still do.
        middle = (amount - Fraction(1, 2)) / asked * self.batch_steps
        for digits in range(1, 17):
            short = Fraction(f"{float(middle):.{digits}g}")
            if replace(self, train_ratio=short).total_updates == amount:
                return short
        return middle


UNITS = {
    "train_ratio": "time steps replayed per policy step (the replay ratio)",
    "replay_ratio_frames": "time steps replayed per frame",
    "updates_per_step": "updates per policy step",
    "updates_per_frame": "updates per frame",
    "total_updates": "updates in the whole run",
}


def schedule(config: Config) -> Schedule:
    """What the settings of a run mean."""
    window = config.replay_context + config.batch_length
    envs = config.run.envs
    full = first_full_step(envs, config.batch_steps, window)
    return Schedule(
        train_ratio=exact(config.run.train_ratio),
        batch_steps=config.batch_steps,
        action_repeat=config.action_repeat,
        steps=config.run.steps,
        envs=envs,
        first_step=full - envs + 1,
    )
