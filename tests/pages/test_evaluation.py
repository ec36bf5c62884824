"""Evaluations under other conditions are told apart."""

import pytest

from dreamer.pages.page import page
from dreamer.pages.read import read
from tests.pages import logdirs
from tests.pages.test_page import Outline

STICKY = {"env.atari100k.sticky": "0.25"}
SHORT = {"length": 50, "cut_short": 2}


@pytest.fixture
def played(tmp_path):
    """Adds an evaluation to a run; its rows and the number at the top."""
    logdirs.settings(tmp_path)

    def play(name, scores, **about):
        logdirs.evaluation(tmp_path / f"eval-{name}.json", scores, **about)
        outline = Outline(page(read(tmp_path)))
        names = [x for _, x in outline.all("dt")]
        values = [x for _, x in outline.all("dd")]
        known = dict(zip(names, values, strict=True))
        rows = outline.rows()
        head = next(x for x in rows if "Conditions" in x)
        count = len(read(tmp_path).evaluations)
        start = rows.index(head) + 1
        ends = [(x[3], x[-2], x[-1]) for x in rows[start : start + count]]
        return ends, known.get("Evaluation")

    return play


def test_the_top_shows_the_newest_as_in_training(played):
    _, top = played("100-sample-sticky=0.25", [-21.0], settings=STICKY)
    assert top is None
    played("100-sample-length50", [-20.0, -19.0], **SHORT)
    _, top = played("100-argmax", [-18.0], mode="argmax")
    assert top is None
    _, top = played("100-sample", [1.0, 2.0])
    assert top == "1.52 episodes"
    _, top = played(
        "200-sample-sticky=0.25", [9.0], checkpoint=200, settings=STICKY
    )
    assert top == "1.52 episodes"
    _, top = played("300-sample", [], checkpoint=300)
    assert top == "1.52 episodes"
    _, top = played("200-sample", [4.0], checkpoint=200)
    assert top == "4.01 episode"


def test_of_one_checkpoint_the_top_shows_the_most_episodes(played):
    played("100-sample", [1.0, 2.0])
    _, top = played("100-sample-episodes1", [1.0])
    assert top == "1.52 episodes"
    rows, top = played("100-sample-episodes3", [1.0, 2.0, 6.0])
    assert top == "3.03 episodes"
    assert len(rows) == 3
    _, top = played("200-sample-episodes1", [9.0], checkpoint=200)
    assert top == "9.01 episode"


def test_each_row_says_its_conditions(played):
    played("100-sample-sticky=0.25", [-21.0, -21.0], settings=STICKY)
    played("100-sample-seed7-length50", [-20.0, -19.0], seed=7, **SHORT)
    rows, _ = played("100-sample", [1.0, 2.0])
    # By name; the beginning of a game is not normalised.
    assert rows == [
        ("-19.5", "–", "seed 7; 2 of 2 stopped after 50 policy steps"),
        (
            "-21.0",
            "-1%",
            "seed 0; at most 108,000 policy steps; env.atari100k.sticky=0.25",
        ),
        ("1.5", "63%", "seed 0; at most 108,000 policy steps"),
    ]


def test_odd_conditions_are_cut_and_escaped(played, tmp_path):
    odd = {f"<b>{n}": "x" * 500 for n in range(20)}
    rows, _ = played("1", [1.0], settings=odd, seed="<b>", length=[])
    words = rows[0][2]
    assert words.startswith("<b>0=xxx")
    assert words.endswith("; 12 more settings")
    assert len(words) < 1000
    rows, _ = played("1", [1.0], settings={}, seed=None, length=None)
    assert rows[0][2] == "–"
