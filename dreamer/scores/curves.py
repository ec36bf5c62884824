"""From episodes to a learning curve and a score, over seeds.

The score is that of the paper's tables: the mean over the training episodes
of a run that ended in a window of frames, then over runs. See `published.py`
for the windows. Read next: `aggregate.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreamer.options import ConfigError
from dreamer.scores.published import Curve, Window
from dreamer.scores.runs import Run

MOST_BINS = 10_000  # of a curve


@dataclass(frozen=True)
class Result:
    """Scores of one method in one game by one protocol.

    Attributes:
      scores: Array (seeds,) float, one per run that has episodes to count.
      episodes: Number of episodes behind all scores.
      missing: Runs without such an episode; nothing stands in for them.
    """

    scores: np.ndarray
    episodes: int
    missing: tuple[str, ...]

    @property
    def seeds(self) -> int:
        """Runs that count."""
        return len(self.scores)

    @property
    def mean(self) -> float:
        """Over seeds; NaN without any."""
        return float(self.scores.mean()) if self.seeds else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation over seeds (n - 1); NaN below two of them."""
        return _deviation(self.scores) if self.seeds > 1 else float("nan")


def _deviation(scores: np.ndarray) -> float:
    return float(scores.std(ddof=1))


def training_result(runs: Sequence[Run], window: Window) -> Result:
    """Scores by training episodes that ended after `window[0]`, by [1]."""
    low, high = window
    return _result(
        {
            run.name: run.scores[(run.frames > low) & (run.frames <= high)]
            for run in runs
        }
    )


def evaluation_result(runs: Sequence[Run]) -> Result | None:
    """Scores by evaluation episodes; None if no run has any."""
    found = {run.name: run.evaluation for run in runs}
    return _result(found) if any(map(len, found.values())) else None


def _result(episodes: dict[str, np.ndarray]) -> Result:
    scores = [x.mean() for x in episodes.values() if len(x)]
    missing = tuple(name for name, x in episodes.items() if not len(x))
    total = sum(len(x) for x in episodes.values())
    return Result(np.array(scores, float), total, missing)


def too_long(run: Run, width: float) -> str:
    """Why a run has no curve of such bins, '' if it has one."""
    if not len(run.frames) or run.frames[-1] <= MOST_BINS * width:
        return ""
    return (
        f"{run.name}: {run.frames[-1]:.0f} frames make more than"
        f" {MOST_BINS} bins of {width:g}; --bin FRAMES makes larger ones"
    )


def learning_curve(runs: Sequence[Run], width: float) -> Curve:
    """Mean and standard deviation over runs of the score in bins of frames.

    A bin (i * width, (i + 1) * width] of a run has the mean of its episodes
    that ended there; one without any, between others, lies on the line
    between its neighbours. Where fewer than half of the runs have a value,
    the curve ends: it would show another set of runs.

    Raises:
      ConfigError: A run is `too_long`.
    """
    for run in runs:
        if reason := too_long(run, width):
            raise ConfigError(reason)
    bins = [_binned(run.frames, run.scores, width) for run in runs]
    length = max((len(x) for x in bins), default=0)
    grid = np.full((len(bins), length), np.nan)  # (runs, bins)
    for row, values in zip(grid, bins, strict=True):
        row[: len(values)] = values
    count = np.isfinite(grid).sum(0)
    keep = (count > 0) & (2 * count >= len(runs))
    grid, count = grid[:, keep], count[keep]
    mean = np.nansum(grid, 0) / count
    squares = np.nansum((grid - mean) ** 2, 0)
    several = np.where(count > 1, count - 1, np.nan)
    frames = (np.flatnonzero(keep) + 0.5) * width
    return Curve(frames, mean, np.sqrt(squares / several), len(runs))


def _binned(
    frames: np.ndarray, scores: np.ndarray, width: float
) -> np.ndarray:
    """(bins,) means; NaN before the first episode."""
    if not len(frames):
        return np.empty(0)
    index = np.maximum(np.ceil(frames / width).astype(int) - 1, 0)
    count = np.bincount(index)
    total = np.bincount(index, weights=scores)
    known = np.flatnonzero(count)
    means = total[known] / count[known]
    return np.interp(np.arange(len(count)), known, means, left=np.nan)
