"""Learning curves and scores over seeds."""

import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.scores.curves import (
    evaluation_result,
    learning_curve,
    training_result,
)
from dreamer.scores.runs import Run


def run(name, episodes, evaluation=()):
    table = np.array(episodes, float).reshape(-1, 2)
    return Run(
        name, "atari100k", "pong", "m", 0, table[:, 0], table[:, 1],
        np.array(evaluation, float),
    )  # fmt: skip


def test_mean_and_deviation_in_bins():
    first = run("a", [(1, 1), (10, 3), (11, 4), (20, 6)])
    second = run("b", [(5, 4), (15, 9)])
    curve = learning_curve([first, second], 10)
    assert list(curve.frames) == [5, 15]
    assert list(curve.mean) == [3, 7]
    assert curve.spread == pytest.approx([2**0.5, 8**0.5])
    assert curve.seeds == 2


def test_an_empty_bin_lies_between_its_neighbours():
    curve = learning_curve([run("a", [(0, 2), (35, 8)])], 10)
    assert list(curve.mean) == [2, 4, 6, 8]
    assert np.isnan(curve.spread).all()


def test_nothing_is_made_up_before_the_first_episode():
    curve = learning_curve([run("a", [(25, 1)])], 10)
    assert list(curve.frames) == [25]


def test_the_curve_ends_where_fewer_than_half_of_the_runs_are():
    runs = [
        run("a", [(5, 1), (15, 1), (25, 1)]),
        run("b", [(5, 3), (15, 3)]),
        run("c", [(5, 5)]),
    ]
    curve = learning_curve(runs, 10)
    assert list(curve.frames) == [5, 15]
    assert list(curve.mean) == [3, 2]


def test_no_episodes_no_curve():
    assert len(learning_curve([run("a", [])], 10).frames) == 0


def test_too_many_bins_are_refused():
    with pytest.raises(ConfigError, match="a: 1000000 frames make more than"):
        learning_curve([run("a", [(1e6, 1)])], 1)


def test_the_window_holds_what_ended_in_it():
    episodes = [(390, 100), (390.5, 1), (400, 3), (400.5, 100)]
    result = training_result(
        [run("a", episodes), run("b", [(395, 4)])], (390, 400)
    )
    assert list(result.scores) == [2, 4]
    assert (result.mean, result.seeds, result.episodes) == (3, 2, 3)
    assert result.spread == pytest.approx(2**0.5)


def test_an_empty_window_is_missing():
    runs = [run("a", [(389, 50)]), run("b", [(395, 4)])]
    result = training_result(runs, (390, 400))
    assert (result.mean, result.missing) == (4, ("a",))
    assert np.isnan(result.spread)
    assert np.isnan(training_result(runs[:1], (390, 400)).mean)


def test_evaluation_episodes():
    runs = [run("a", [], [1, 3]), run("b", [(1, 1)])]
    result = evaluation_result(runs)
    assert (result.mean, result.seeds, result.episodes) == (2, 1, 2)
    assert result.missing == ("b",)
    assert evaluation_result(runs[1:]) is None
