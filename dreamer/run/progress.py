"""How far a run is: one live line in a terminal, plain lines elsewhere.

The counters come from the caller; speeds and the time left are computed here
from the last minute or so, since a run is faster before its first update.
The same numbers go to files by `dreamer.run.logger`.
"""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dreamer.units import duration

REDRAW = 0.5  # seconds between two drawings of the live line
WINDOW = 60.0  # seconds that speeds are averaged over, at least


@dataclass(frozen=True, slots=True)
class _Counters:
    """What `Progress.update` was told, and when."""

    seconds: float  # of a monotonic clock
    policy_steps: int
    frames: int
    updates: int
    ratio: float
    score: float | None


class Progress:
    """Shows the counters of a run; use it as a context manager.

    Args:
        policy_steps: Policy steps of the whole run, over all environments.
        updates: Updates expected of the whole run.
        every: Seconds between two plain lines where there is no terminal.
        stream: Stream to write to; by default the standard output.
        clock: Function that returns seconds; other than in tests, a
          monotonic clock.
        quiet: True to show no counters, where another process of the run
          does.
    """

    def __init__(
        self,
        policy_steps: int,
        updates: int,
        every: float,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        quiet: bool = False,
    ) -> None:
        self._total = (policy_steps, updates)
        self._compiled = not updates  # whether updates have their usual speed
        self._clock = clock
        out = stream or sys.stdout
        self._console = Console(file=out, highlight=False)
        self._latest: _Counters | None = None
        self._shown: _Counters | None = None
        self._samples: deque[_Counters] = deque()
        self._due = -math.inf
        self._live: Live | None = None
        self._every = every
        self._quiet = quiet
        # A dumb terminal cannot redraw a line.
        console = self._console
        redraws = console.is_terminal and not console.is_dumb_terminal
        if redraws and not quiet:
            self._every = REDRAW
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def update(
        self,
        policy_steps: int,
        frames: int,
        updates: int,
        ratio: float,
        score: float | None = None,
    ) -> None:
        """Takes the counters, and shows them when it is time to.

        Cheap enough for every step of the loop.

        Args:
            policy_steps: Policy steps done so far.
            frames: Frames emulated so far.
            updates: Updates made so far.
            ratio: Realised train ratio: steps replayed per policy step.
            score: Score of the last episode that ended, if one has.
        """
        if self._quiet:
            return
        now = self._clock()
        self._latest = _Counters(
            now, policy_steps, frames, updates, ratio, score
        )
        if now < self._due:
            return
        first = not self._samples
        self._due = now + self._every
        self._take(self._latest)
        # Where lines stay, one without any speed yet says nothing.
        if self._live or not first:
            self._show()

    def restart(self) -> None:
        """Forgets the past: speeds count from the next update on.

        Call it when nothing is left to be compiled; before that, no time left
        is shown, as it would be one of compiling.
        """
        self._samples.clear()
        self._compiled = True

    def print(self, text: str) -> None:
        """Prints lines that stay, above the live line if there is one."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Shows the last counters once more and leaves them standing."""
        if self._latest and self._latest is not self._shown:
            self._take(self._latest)
            self._show()
        if self._live:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _show(self) -> None:
        self._shown = self._samples[-1]
        if self._live:
            text = _fill(self._fields(), self._console.width)
            self._live.update(Text(text), refresh=True)
        else:
            self.print("  ".join(self._fields()))
            self._console.file.flush()

    def _fields(self) -> list[str]:
        now = self._samples[-1]
        score = "-" if now.score is None else f"{now.score:,.6g}"
        steps_rate, updates_rate = self._rates()
        return [
            f"policy steps {now.policy_steps:,}/{self._total[0]:,}",
            f"frames {now.frames:,}",
            f"updates {now.updates:,}",
            f"ratio {now.ratio:.4g}",
            f"score {score}",
            f"{_number(steps_rate)} steps/s",
            f"{_number(updates_rate)} updates/s",
            f"{duration(self._left())} left",
        ]

    def _take(self, sample: _Counters) -> None:
        self._samples.append(sample)
        # The oldest one kept is the newest that spans the window.
        while (
            len(self._samples) > 2
            and sample.seconds - self._samples[1].seconds >= WINDOW
        ):
            self._samples.popleft()

    def _rates(self) -> tuple[float, float]:
        """Policy steps and updates per second; NaN before any are known."""
        old, new = self._samples[0], self._samples[-1]
        seconds = new.seconds - old.seconds
        if seconds <= 0:
            return math.nan, math.nan
        return (
            (new.policy_steps - old.policy_steps) / seconds,
            (new.updates - old.updates) / seconds,
        )

    def _left(self) -> float:
        """Seconds left by whichever of steps and updates takes longer.

        NaN until both that are still to come have been seen to move, and at
        their usual speed.
        """
        new = self._samples[-1]
        left = 0.0
        for total, done, rate in zip(
            self._total,
            (new.policy_steps, new.updates),
            self._rates(),
            strict=True,
        ):
            if done < total:
                known = self._compiled and rate > 0
                seconds = (total - done) / rate if known else math.nan
                left = seconds if math.isnan(seconds) else max(left, seconds)
                if math.isnan(left):
                    return left
        return left


def _fill(fields: list[str], width: int) -> str:
    """Joins fields, starting new lines between them where width runs out."""
    lines = [fields[0]]
    for field in fields[1:]:
        if len(lines[-1]) + 2 + len(field) <= width:
            lines[-1] += "  " + field
        else:
            lines.append(field)
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits: 1,234 or 56.7 or 0.0891; a dash for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
