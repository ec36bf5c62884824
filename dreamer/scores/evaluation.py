"""What the scores of evaluation episodes amount to.

`dreamer.evaluate` plays them, and `evaluation_file.py` keeps this. Read
`published.py` for the scores of random and human players.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.envs.games import ALIASES, GAMES
from dreamer.scores.aggregate import CONFIDENCE, DRAWS, SEED
from dreamer.scores.published import references


def summary(scores: Sequence[float], task: str) -> dict[str, Any]:
    """Statistics that JSON can hold.

    Args:
      scores: Sums of rewards of all episodes, at least one.
      task: Name of the task, as in `atari100k_pong`; other names have no
        reference.

    Returns:
      `mean`, `median`; `std` of the sample and `ci95`, the interval of the
      mean, both None for a single episode; `human_normalized`, mean and
      median, `random` and `human`, None for what is no Atari game. A number
      that is not finite is None too.
    """
    values = np.array(scores, float)
    several = len(values) > 1
    suite, _, game = task.partition("_")
    game = ALIASES.get(game, game)
    known = suite in ("atari", "atari100k") and game in GAMES
    reference = references()[game] if known else None
    return {
        **_center(values),
        "std": finite(values.std(ddof=1)) if several else None,
        "ci95": interval(values) if several else None,
        "human_normalized": reference
        and _center(reference.normalised(values)),
        "random": reference and reference.random,
        "human": reference and reference.human,
    }


def _center(values: np.ndarray) -> dict[str, float | None]:
    return {
        "mean": finite(values.mean()),
        "median": finite(np.median(values)),
    }


def interval(values: np.ndarray) -> list[float | None]:
    """The 95% percentile interval of the mean, by a bootstrap."""
    random = np.random.default_rng(SEED)
    count = len(values)
    means = [
        values[random.integers(count, size=count)].mean() for _ in range(DRAWS)
    ]
    tail = 100 * (1 - CONFIDENCE) / 2
    return [finite(x) for x in np.percentile(means, (tail, 100 - tail))]


def finite(value: Any) -> float | None:
    """A float of Python, None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def words(results: Mapping[str, Any]) -> str:
    """A line for a person on the contents of an evaluation's file."""
    count = len(results["episodes"])
    fields = [f"Mean score {_number(results['mean'])}"]
    if results["ci95"]:
        low, high = map(_number, results["ci95"])
        fields[0] += f" (95% interval {low} to {high})"
    fields.append(f"median {_number(results['median'])}")
    if results["human_normalized"]:
        random, human = results["random"], results["human"]
        mean = results["human_normalized"]["mean"]
        share = "?" if mean is None else f"{100 * mean:.1f}%"
        fields.append(
            f"human-normalised {share} (random {random:,.6g}, human"
            f" {human:,.6g})"
        )
    fields.append(f"over {count} episode{'s' * (count > 1)}")
    if cut := results["cut_short"]:
        fields.append(f"of which {cut} reached the limit of --length")
    return ", ".join(fields)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:,.6g}"
