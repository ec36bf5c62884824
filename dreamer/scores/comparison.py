"""Everything about the runs of one benchmark, next to the published scores.

What `table.py` writes and `figures.py` draws. Two protocols make scores:
*training*, episodes that ended in a window of frames, and *evaluation*, the
episodes in a run's eval*.json. The published scores are of the first kind.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from dreamer.scores.aggregate import Aggregate, aggregates
from dreamer.scores.curves import (
    Result,
    evaluation_result,
    learning_curve,
    training_result,
)
from dreamer.scores.published import (
    Benchmark,
    Curve,
    Final,
    Window,
    curves,
    finals,
    references,
)
from dreamer.scores.runs import Run

TRAINING, EVALUATION = "training", "evaluation"


@dataclass(frozen=True)
class Average:
    """Human-normalised statistics over games, and what is behind them."""

    statistics: Mapping[str, Aggregate]
    games: tuple[str, ...]
    runs: int
    episodes: int
    single: tuple[str, ...]  # games with one seed, whose spread is not seen


@dataclass(frozen=True)
class Group:
    """One method by one protocol.

    Attributes:
      method: Name of the method.
      protocol: Kind of episodes, TRAINING or EVALUATION.
      results: Scores by game, also of games without any.
      average: Average over the games with scores; None if there are none.
      published: Average of the published runs over the same games, or None
        if one of them is not known.
    """

    method: str
    protocol: str
    results: Mapping[str, Result]
    average: Average | None
    published: Average | None


@dataclass(frozen=True)
class Comparison:
    """The runs of one benchmark.

    Attributes:
      benchmark: Benchmark that all runs are of.
      window: Frames (from, to] of the training protocol.
      curves: Learning curves by method and game.
      groups: Results of each method, training first.
      finals: Published scores by game; none if not known for the window.
    """

    benchmark: Benchmark
    window: Window
    curves: Mapping[str, Mapping[str, Curve]]
    groups: tuple[Group, ...]
    finals: Mapping[str, Final] = field(default_factory=dict)

    @property
    def games(self) -> tuple[str, ...]:
        """All games that have a run, in order of their names."""
        return tuple(sorted({x for y in self.curves.values() for x in y}))


def compare(
    runs: Iterable[Run],
    benchmark: Benchmark,
    window: Window | None = None,
    width: float | None = None,
) -> Comparison:
    """Curves and scores of all methods.

    Args:
      runs: Runs to be compared; those of other benchmarks are left out.
      benchmark: Benchmark to compare on.
      window: Frames (from, to]; by default the benchmark's first one.
      width: Frames of a curve's bins; by default the benchmark's.
    """
    window = window or benchmark.windows[0]
    methods: dict[str, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda x: (x.method, x.game)):
        if run.benchmark == benchmark.name:
            games = methods.setdefault(run.method, {})
            games.setdefault(run.game, []).append(run)
    known = finals(benchmark.name, window)
    groups = []
    for method, games in methods.items():
        training = {k: training_result(v, window) for k, v in games.items()}
        groups.append(_group(method, TRAINING, training, known))
        found = {k: evaluation_result(v) for k, v in games.items()}
        evaluation = {k: v for k, v in found.items() if v is not None}
        if evaluation:
            groups.append(_group(method, EVALUATION, evaluation, known))
    drawn = {
        method: {
            game: learning_curve(group, width or benchmark.bin)
            for game, group in games.items()
        }
        for method, games in methods.items()
    }
    return Comparison(benchmark, window, drawn, tuple(groups), known)


def published_average(benchmark: Benchmark, window: Window) -> Average | None:
    """The published runs over all games of a benchmark."""
    known = finals(benchmark.name, window)
    return _average(
        {x: known[x] for x in curves(benchmark.name) if x in known}
    )


def _group(
    method: str,
    protocol: str,
    results: Mapping[str, Result],
    known: Mapping[str, Final],
) -> Group:
    counted = {k: v for k, v in results.items() if v.seeds}
    same = {k: known[k] for k in counted if k in known}
    published = _average(same) if len(same) == len(counted) else None
    return Group(method, protocol, results, _average(counted), published)


def _average(results: Mapping[str, Result | Final]) -> Average | None:
    if not results:
        return None
    scores = {k: normalised(k, v.scores) for k, v in results.items()}
    return Average(
        aggregates(scores),
        tuple(scores),
        sum(map(len, scores.values())),
        sum(x.episodes for x in results.values()),
        tuple(k for k, v in scores.items() if len(v) == 1),
    )


def normalised(game: str, scores: np.ndarray) -> np.ndarray:
    """0 for a random player, 1 for a human, of any shape."""
    return np.asarray(references()[game].normalised(scores))
