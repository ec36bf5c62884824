"""How a run stands, by the status.json that it keeps writing.

`dreamer/status.py` reads it; nothing of it is trusted to be what that module
would write. Read next: `page.py`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dreamer import status
from dreamer.options import one_line
from dreamer.scores.files import MOST_FRAMES, ODD

RUNNING, DONE, INTERRUPTED = "running", "done", "interrupted"
FAILED, SILENT = "failed", "silent"
AGAIN = "It goes on when the same command is given again."


@dataclass(frozen=True)
class State:
    """What the file says.

    Attributes:
      word: State: RUNNING, DONE, INTERRUPTED or FAILED; SILENT for a run
        that says RUNNING and has not said so for long.
      error: Reason of a failure, in one line; '' if that is not known.
      time: Seconds since 1970 at which the run said so.
      policy_steps: Policy steps done by then.
      updates: Updates made by then; None if the run does not say.
    """

    word: str
    error: str
    time: float
    policy_steps: int
    updates: int | None

    def sentence(self, done: int, steps: int) -> str:
        """The state for a reader, '' for a run that is done."""
        place = f"at {done:,} of {steps:,} policy steps"
        if self.word == FAILED:
            return f"Failed {place}: {self.error or 'it does not say why'}"
        if self.word == SILENT:
            return (
                f"Silent since {time_text(self.time)}, {place}: it was killed,"
                f" or the machine is off. {AGAIN}"
            )
        if self.word == INTERRUPTED:
            return f"Interrupted {place}. {AGAIN}"
        if self.word == RUNNING:
            return f"Running when this page was made, {place}."
        return ""


def read(logdir: Path) -> State | None:
    """The state of a run; None where no file says it."""
    values = status.read(logdir)
    if values is None:
        return None
    try:
        word, said = values["state"], float(values["time"])
        time_text(said)  # of a year that there is
        error = values.get("error")
        steps = _count(values.get("policy_steps")) or 0
        updates = _count(values.get("updates"))
    except (*ODD, OSError):  # of a date that a machine cannot hold
        return None
    if word == RUNNING and not values["silent"] < status.SILENCE:
        word = SILENT
    if word not in (RUNNING, DONE, INTERRUPTED, FAILED, SILENT):
        return None
    error = one_line(error) if isinstance(error, str) else ""
    return State(word, error, said, steps, updates)


def _count(value: Any) -> int | None:
    known = isinstance(value, int | float) and 0 <= value <= MOST_FRAMES
    return int(value) if known else None


def time_text(seconds: float) -> str:
    """Seconds since 1970 as a date and a time."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
