"""Human-normalised mean, median and IQM over games, with intervals.

After "Deep reinforcement learning at the edge of the statistical precipice"
(Agarwal et al., 2021, arXiv 2108.13264): the interquartile mean takes the
middle half of all runs of all games; the intervals come from a bootstrap that
draws seeds anew within each game (stratified).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

STATISTICS = ("mean", "median", "IQM")
DRAWS = 2000
SEED = 0  # the same scores always have the same interval
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Aggregate:
    """A statistic over games; the interval is NaN without two seeds."""

    value: float
    low: float
    high: float


def aggregates(scores: Mapping[str, np.ndarray]) -> dict[str, Aggregate]:
    """Each of `STATISTICS` over games.

    Args:
      scores: Human-normalised scores (seeds,) by game. At least one game,
        and one seed in each.

    Returns:
      The statistics with their 95% percentile intervals. Mean and median are
      those over games of the mean over seeds.
    """
    games = [np.asarray(x, float)[None] for x in scores.values()]
    values = _statistics(games)
    # Alone, a seed can only be drawn again: that is no interval.
    if max(x.shape[1] for x in games) < 2:
        return {
            k: Aggregate(float(v[0]), np.nan, np.nan)
            for k, v in values.items()
        }
    random = np.random.default_rng(SEED)
    drawn = []
    for (x,) in games:
        picks = random.integers(len(x), size=(DRAWS, len(x)))
        drawn.append(x[picks])  # (DRAWS, seeds)
    tail = 100 * (1 - CONFIDENCE) / 2
    spread = {
        k: np.percentile(v, (tail, 100 - tail))
        for k, v in _statistics(drawn).items()
    }
    return {
        k: Aggregate(float(v[0]), *map(float, spread[k]))
        for k, v in values.items()
    }


def _statistics(games: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Each statistic of each draw: (draws, seeds) per game -> (draws,)."""
    means = np.stack([x.mean(1) for x in games], 1)  # (draws, games)
    runs = np.sort(np.concatenate(games, 1), 1)  # (draws, all runs)
    cut = runs.shape[1] // 4
    middle = runs[:, cut : runs.shape[1] - cut]
    found = means.mean(1), np.median(means, 1), middle.mean(1)
    return dict(zip(STATISTICS, found, strict=True))
