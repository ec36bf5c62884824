"""Averages over games, against a slow obvious model."""

import numpy as np
import pytest

from dreamer.scores.aggregate import DRAWS, SEED, STATISTICS, aggregates


def slow(games):
    """Mean, median and IQM of lists of scores per game."""
    means = [sum(x) / len(x) for x in games]
    runs = sorted(score for x in games for score in x)
    quarter = len(runs) // 4
    middle = runs[quarter : len(runs) - quarter]
    means = sorted(means)
    half = len(means) // 2
    odd = len(means) % 2
    median = means[half] if odd else (means[half - 1] + means[half]) / 2
    return sum(means) / len(means), median, sum(middle) / len(middle)


def slow_intervals(games):
    """A loop over draws, games and seeds; the 95% in the middle."""
    random = np.random.default_rng(SEED)
    picks = [random.integers(len(x), size=(DRAWS, len(x))) for x in games]
    draws = [
        slow(
            [
                [x[i] for i in pick[n]]
                for x, pick in zip(games, picks, strict=True)
            ]
        )
        for n in range(DRAWS)
    ]
    for values in zip(*draws, strict=True):
        values = sorted(values)
        # Linear between the two values around the place.
        for share in (0.025, 0.975):
            place = share * (DRAWS - 1)
            below = int(place)
            step = values[below + 1] - values[below]
            yield values[below] + (place - below) * step


@pytest.fixture
def games():
    random = np.random.default_rng(7)
    return [
        list(random.normal(i, 2, size=n)) for i, n in enumerate((5, 3, 4, 1))
    ]


def test_as_the_slow_model(games):
    found = aggregates({str(i): np.array(x) for i, x in enumerate(games)})
    assert tuple(found) == STATISTICS
    assert [x.value for x in found.values()] == pytest.approx(slow(games))
    intervals = [y for x in found.values() for y in (x.low, x.high)]
    assert intervals == pytest.approx(list(slow_intervals(games)))
    assert all(x.low < x.value < x.high for x in found.values())


def test_by_hand():
    found = aggregates(
        {"a": np.array([0.0, 1, 2, 100]), "b": np.array([4.0, 5, 6, 7])}
    )
    assert found["mean"].value == (25.75 + 5.5) / 2
    assert found["median"].value == (25.75 + 5.5) / 2
    assert found["IQM"].value == (2 + 4 + 5 + 6) / 4


def test_seeds_are_drawn_within_their_game():
    # Seeds agree within each game, so that nothing varies.
    found = aggregates({"a": np.full(3, 0.0), "b": np.full(3, 1.0)})
    for x in found.values():
        assert (x.low, x.value, x.high) == (0.5, 0.5, 0.5)


def test_one_seed_has_no_interval():
    found = aggregates({"a": np.array([1.0]), "b": np.array([3.0])})
    assert found["mean"].value == 2
    assert np.isnan([found["mean"].low, found["mean"].high]).all()


def test_the_same_scores_have_the_same_interval(games):
    scores = {str(i): np.array(x) for i, x in enumerate(games)}
    assert aggregates(scores) == aggregates(scores)
