"""Statistics of evaluation episodes, by hand."""

import json

import numpy as np
import pytest

from dreamer.scores.evaluation import interval, summary, words


def test_by_hand():
    found = summary([1.0, 2.0, 6.0], "gym_CartPole-v1")
    assert (found["mean"], found["median"]) == (3.0, 2.0)
    assert found["std"] == pytest.approx(7**0.5)
    assert found["human_normalized"] is None
    assert (found["random"], found["human"]) == (None, None)


def test_normalised_by_the_published_scores():
    for task in ("atari_pong", "atari100k_pong"):
        found = summary([-20.7, 14.6, 14.6], task)
        assert (found["random"], found["human"]) == (-20.7, 14.6)
        assert found["human_normalized"] == {
            "mean": pytest.approx(2 / 3),
            "median": pytest.approx(1.0),
        }
    assert summary([0.0], "atari_seaquest")["random"] is not None
    assert summary([0.0], "")["human_normalized"] is None


def test_the_interval_is_that_of_the_mean():
    scores = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(scores)
    # Of a normal distribution, 1.96 standard errors to both sides.
    assert low == pytest.approx(scores.mean() - 0.196, abs=0.02)
    assert high == pytest.approx(scores.mean() + 0.196, abs=0.02)
    assert [low, high] == interval(scores)
    assert interval(np.array([3.0, 3.0])) == [3.0, 3.0]


def test_a_single_episode_has_no_spread():
    found = summary([4.0], "atari_pong")
    assert found["mean"] == found["median"] == 4.0
    assert found["std"] is found["ci95"] is None


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_finite_is_not_known():
    found = summary([1.0, float("inf")], "atari_pong")
    assert found["mean"] is None
    json.dumps(found, allow_nan=False)
    assert "not finite" in words({**found, "episodes": [1, 2], "cut_short": 0})


def test_a_line_for_a_person():
    found = summary([-20.7, 14.6], "atari_pong")
    line = words({**found, "episodes": [1, 2], "cut_short": 1})
    assert line == (
        "Mean score -3.05 (95% interval -20.7 to 14.6), median -3.05,"
        " human-normalised 50.0% (random -20.7, human 14.6), over 2 episodes,"
        " of which 1 reached the limit of --length"
    )


def test_a_game_by_another_of_its_names_is_normalised_too():
    found, same = (
        summary([400.0], f"atari100k_{game}")
        for game in ("james_bond", "jamesbond")
    )
    assert found == same
    assert found["human_normalized"] is not None
