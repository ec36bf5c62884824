"""Numbers in the tables, for runs whose scores are known."""

import csv
import io

import numpy as np
import pytest

from dreamer.scores.aggregate import Aggregate
from dreamer.scores.comparison import compare
from dreamer.scores.published import BENCHMARKS
from dreamer.scores.runs import Run
from dreamer.scores.table import interval, short, to_csv, to_markdown

ATARI100K = BENCHMARKS["atari100k"]


def run(game, seed, score, frames=395e3, evaluation=()):
    return Run(
        f"/runs/{game}-{seed}", "atari100k", game, "size|12m", seed,
        np.array([1.0, frames]), np.array([0.0, score]),
        np.array(evaluation, float),
    )  # fmt: skip


@pytest.fixture
def comparison():
    runs = [
        run("pong", 0, -20.7, evaluation=[14.6, 14.6]),
        run("pong", 1, 14.6),
        run("pong", 2, 99, frames=389e3),
        run("boxing", 0, 12.1),
        run("hero", 0, 5, frames=100e3),
    ]
    return compare(runs, ATARI100K)


def test_csv(comparison):
    found = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    table = {(x["protocol"], x["game"]): x for x in found}
    assert len(table) == len(found) == 4
    pong = table["training", "pong"]
    assert float(pong["mean"]) == pytest.approx(-3.05)
    assert float(pong["standard_deviation"]) == pytest.approx(24.960869)
    assert (pong["seeds"], pong["episodes"]) == ("2", "2")
    assert pong["missing_runs"] == "1"
    assert float(pong["human_normalised"]) == pytest.approx(0.5)
    assert (pong["from_frames"], pong["to_frames"]) == ("390000", "400000")
    assert float(pong["published"]) == pytest.approx(-4.0)
    assert (pong["published_seeds"], pong["published_episodes"]) == ("4", "4")
    hero = table["training", "hero"]
    assert (hero["mean"], hero["seeds"], hero["missing_runs"]) == (
        "",
        "0",
        "1",
    )
    evaluated = table["evaluation", "pong"]
    assert (evaluated["human_normalised"], evaluated["episodes"]) == ("1", "2")
    assert evaluated["missing_runs"] == "2"
    assert evaluated["from_frames"] == ""


def test_markdown(comparison):
    page = to_markdown(comparison)
    lines = page.splitlines()
    training = "training episodes ended in 390K-400K frames"
    assert f"## size|12m: {training}" in lines
    assert "## size|12m: evaluation episodes" in lines
    assert (
        "| pong | -20.7 | 14.6 | -4.0 | 4, 4 | -3.0 ± 25.0 | 2, 2 | 50% |"
        " 47% |" in lines
    )
    heads = next(x for x in lines if x.startswith("| game |")).split(" | ")
    assert len(heads) == len(set(heads)) == 9
    assert any(x.startswith("| boxing | 0.1 | 12.1 | 82.1 |") for x in lines)
    assert any("over 2 games of 26" in x for x in lines)
    assert any("over 1 game of 26" in x for x in lines)
    assert any(x.startswith("| size\\|12m | 3 | 3 | 75% [") for x in lines)
    # An evaluation of one run and two episodes.
    assert "| size\\|12m | 1 | 2 | 100% | 100% | 100% |" in lines
    assert any(
        x.startswith("| published, the same games | 9 |") for x in lines
    )
    assert any(
        x.startswith("| published, all 26 games | 122 |") for x in lines
    )
    assert "- /runs/pong-2" in lines
    assert "- /runs/hero-0" in lines
    assert "the interval too narrow: boxing." in page
    assert page.count("Without an interval, as every game has one seed.") == 1


def test_another_window_has_nothing_published():
    comparison = compare([run("pong", 0, 1)], ATARI100K, (100e3, 400e3))
    page = to_markdown(comparison)
    assert "known for --window 390000,400000, 360000,400000 only" in page
    assert "published, the same games" not in page
    assert "| 1.0 | 1, 1 | 61% | - |" in page


def test_a_game_that_was_not_published():
    runs = [run("pong", 0, 1), run("bowling", 0, 160.7)]
    comparison = compare(runs, ATARI100K)
    assert comparison.groups[0].published is None
    page = to_markdown(comparison)
    assert (
        "| bowling | 23.1 | 160.7 | - | - | 160.7 | 1, 1 | 100% | - |" in page
    )
    assert "Human-normalised over 2 games, with" in page
    assert "published, the same games" not in page


def test_nothing_counts():
    comparison = compare([run("pong", 0, 1, frames=9e3)], ATARI100K)
    assert "No episode counts" in to_markdown(comparison)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (-20, "-20"),
        (390e3, "390K"),
        (1.5e6, "1.5M"),
        (2.5, "2.5"),
        (-999.5e6, "-999.5M"),
        (1e9, "1e+09"),
        (2e12, "2e+12"),
    ],
)
def test_short(number, text):
    assert short(number) == text


def test_an_interval_is_in_percent_as_its_value_is():
    assert interval(Aggregate(0.756, 0.5, 1.25)) == "76% [50, 125]"
    assert interval(Aggregate(0.756, np.nan, np.nan)) == "76%"
