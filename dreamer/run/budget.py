"""How many updates the policy steps so far have bought, and what is left.

`ratio.py` says how many updates a policy step buys; here is what a run does
with it: nothing is bought before the replay holds enough for a batch, and
updates that an interrupted run still owes are made by the run that continues
it.
Next: state.py, which pays.
"""

from typing import Any

from dreamer.options import ConfigError
from dreamer.ratio import Ratio
from dreamer.train_ratio import updates_owed


class UpdateBudget:
    """Updates bought by policy steps and not made yet.

    Args:
      train_ratio: time steps trained on per policy step.
      batch_steps: time steps that an update trains on, B * T.

    Attributes:
      owed: updates that are bought and not made yet.
    """

    def __init__(self, train_ratio: float, batch_steps: int) -> None:
        self._ratio = Ratio(updates_owed(train_ratio, batch_steps))
        self._batch_steps = batch_steps
        self.owed = 0
        # Policy steps that have been looked at, whether they bought or not.
        self._asked = 0
        # Policy step of the first update, from which on ratios count.
        self._first_update: int | None = None

    def spend(self, policy_steps: int, windows: int) -> None:
        """Buys updates with the policy steps taken since the last call.

        Args:
          policy_steps: number taken so far.
          windows: start positions that the replay can draw from; while they
            are fewer than the time steps of a batch, nothing is bought, and
            nothing is owed for these steps later. That may be so again where
            a damaged replay was read without its lost steps.
        """
        new, self._asked = self._asked + 1, policy_steps
        if windows < self._batch_steps:
            if self._first_update is not None:
                self._ratio(policy_steps)
            self.owed = 0
            return
        for step in range(new, policy_steps + 1):
            bought = self._ratio(step)
            if bought and self._first_update is None:
                self._first_update = step
            self.owed += bought

    def realised(self, policy_steps: int, updates: int) -> float:
        """Time steps trained on per policy step since the first update.

        Comparable with `run.train_ratio`; the first update is free.
        """
        if self._first_update is None or updates < 2:
            return 0.0
        steps = policy_steps - self._first_update
        return (updates - 1) * self._batch_steps / max(steps, 1)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON can hold it."""
        return {
            "ratio": self._ratio.state(),
            "asked": self._asked,
            "owed": self.owed,
            "first_update": self._first_update,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where another budget stood.

        Args:
          state: the dict that its `state()` returned, maybe among others.

        Raises:
          ConfigError: it had another ratio.
        """
        try:
            self._ratio.restore(state["ratio"])
        except ValueError as error:
            raise ConfigError(f"the checkpoint: {error}") from error
        self._asked = state["asked"]
        self.owed = state["owed"]
        self._first_update = state.get("first_update")
