"""What the figures hold: lines, limits, labels. No pixels."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from dreamer.options import ConfigError
from dreamer.scores.averages import averages
from dreamer.scores.comparison import compare
from dreamer.scores.figures import SETTINGS, learning_curves, shape
from dreamer.scores.labels import spread_out
from dreamer.scores.published import BENCHMARKS, curves, references
from dreamer.scores.runs import Run

ATARI100K = BENCHMARKS["atari100k"]


def runs(games, method="size12m", factor=1.0, last=400_000):
    frames = np.arange(15_000.0, last, 20_000)
    return [
        Run(
            f"{game}-{seed}", "atari100k", game, method, seed, frames,
            factor * np.linspace(0, 10, len(frames)) + seed,
        )
        for game in games
        for seed in range(3)
    ]  # fmt: skip


def drawn(figure):
    """All text of a figure, once it is drawn."""
    file = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(file, format="svg")
    return file.getvalue()


def lines(panel):
    return {x.get_label(): x for x in panel.lines}


def test_a_panel_holds_ours_published_and_references():
    figure = learning_curves(compare(runs(["pong"]), ATARI100K))
    (panel,) = figure.axes
    found = lines(panel)
    assert set(found) == {"size12m", "published", "human", "random"}
    ours = found["size12m"].get_ydata()
    assert ours == pytest.approx(np.linspace(0, 10, 20) + 1)
    known = curves("atari100k")["pong"]
    assert list(found["published"].get_ydata()) == list(known.mean)
    assert list(found["published"].get_xdata()) == list(known.frames)
    assert found["human"].get_ydata()[0] == references()["pong"].human
    band = panel.collections[0].get_datalim(panel.transData)
    assert (band.ymin, band.ymax) == pytest.approx((0, 12))
    low, high = panel.get_ylim()
    assert low < -20.7
    assert high > 14.6
    assert panel.get_xlim() == (0, 400_000)
    text = drawn(figure)
    for words in ("Pong", "size12m (3)", "published (5)", "human", "400K"):
        assert f">{words}<" in text


def test_a_human_far_above_is_said_and_not_drawn():
    (panel,) = learning_curves(compare(runs(["hero"]), ATARI100K)).axes
    # Published hero reaches 13K, the human 31K.
    assert "human" not in lines(panel)
    assert "random" in lines(panel)
    assert panel.get_ylim()[1] < 20_000
    assert "human 30,826.4 ↑" in [x.get_text() for x in panel.texts]


def test_a_game_that_was_not_published():
    (panel,) = learning_curves(compare(runs(["bowling"]), ATARI100K)).axes
    assert set(lines(panel)) == {"size12m", "random"}


def test_26_games():
    games = list(curves("atari100k"))
    comparison = compare(runs(games), ATARI100K)
    figure = learning_curves(comparison)
    used = [x for x in figure.axes if x.axison]
    assert [x.get_title(loc="left") for x in used][-1] == "Up N Down"
    assert len(used) == 26
    (legend,) = figure.legends
    names = [x.get_text() for x in legend.get_texts()]
    assert names == ["size12m", "published", "human", "random"]


def test_methods_differ_without_colour():
    both = runs(["pong"]) + runs(["pong"], "$other$", 2.0)
    (panel,) = learning_curves(compare(both, ATARI100K)).axes
    found = lines(panel)
    kinds = {
        (x.get_linestyle(), str(x._dash_pattern), x.get_linewidth())
        for x in found.values()
    }
    assert len(kinds) == len(found) == 5
    assert ">$other$ (3)<" in drawn(panel.figure)


def test_long_names_leave_room_for_the_panels():
    first, other = "first-" + "x" * 60 + "-one", "first-" + "x" * 60 + "-two"
    both = runs(["pong"], first) + runs(["pong"], other, 2.0)
    figure = learning_curves(compare(both, ATARI100K))
    text = drawn(figure)
    for end in ("one", "two"):
        assert f">first-xxxxxxxx…xxxxxxxxxx-{end} (3)<" in text
    assert figure.axes[0].get_position().width > 0.6
    assert "x" * 60 in figure.get_suptitle()  # broken over lines
    games = list(curves("atari100k"))[:7]
    many = runs(games, first) + runs(games, other)
    (legend,) = learning_curves(compare(many, ATARI100K)).legends
    names = [x.get_text() for x in legend.get_texts()]
    assert names[0].endswith("-one")
    assert names[1].endswith("-two")


def test_lines_that_end_early_are_named_in_a_legend():
    """Where they end, names would lie on one another."""
    early = [y for x in "abc" for y in runs(["pong"], x, last=100_000)]
    figure = learning_curves(compare(early, ATARI100K))
    (legend,) = figure.legends
    names = [x.get_text() for x in legend.get_texts()]
    assert names == ["a", "b", "c", "published", "human", "random"]
    assert [x.get_text() for x in figure.axes[0].texts] == []
    late = runs(["pong"], "a", last=380_000)
    assert learning_curves(compare(late, ATARI100K)).legends == []
    # Published and others end early beside a longer run.
    longer = runs(["pong"], "b", last=600_000)
    assert learning_curves(compare(late + longer, ATARI100K)).legends


@pytest.mark.parametrize("last", [100_000, 400_000])
def test_nothing_is_clipped(last):
    names = [f"SIZE{x}00M ratio 128" for x in range(1, 7)]
    many = [y for x in names for y in runs(["pong"], x, last=last)]
    with matplotlib.rc_context(SETTINGS):
        figure = learning_curves(compare(many, ATARI100K))
        figure.draw_without_rendering()
        texts = [x for x in figure.findobj(Text) if len(x.get_text()) > 4]
        boxes = [x.get_window_extent() for x in texts]
    assert len(boxes) > 8
    for box in boxes:
        assert box.x0 >= figure.bbox.x0
        assert box.x1 <= figure.bbox.x1


def test_names_that_are_those_of_other_lines():
    pong = runs(["pong"], "published") + runs(["pong"], "human", 2.0)
    found = drawn(learning_curves(compare(pong, ATARI100K)))
    for words in ("published (3)", "published (5)", "human (3)", "human"):
        assert found.count(f">{words}<") == 1
    many = [
        x for y in list(curves("atari100k"))[:7] for x in runs([y], "human")
    ]
    (legend,) = learning_curves(compare(many, ATARI100K)).legends
    names = [x.get_text() for x in legend.get_texts()]
    assert names == ["human", "published", "human", "random"]


def test_too_many_methods_are_refused():
    many = [x for i in range(7) for x in runs(["pong"], f"m{i}")]
    with pytest.raises(ConfigError, match="7 methods, expected at most 6"):
        learning_curves(compare(many, ATARI100K))


def test_averages():
    comparison = compare(runs(["pong", "boxing"]), ATARI100K)
    figure = averages(comparison)
    (group,) = comparison.groups
    panels = figure.axes
    assert [x.get_title(loc="left") for x in panels] == [
        "mean",
        "median",
        "IQM",
    ]
    labels = [x.get_text() for x in panels[0].get_yticklabels()]
    assert labels == [
        "size12m\n2 games, 6 runs",
        "published, the same games\n2 games, 9 runs",
    ]
    value = group.average.statistics["IQM"]
    bar, point = panels[2].lines[:2]
    assert list(bar.get_xdata()) == [value.low, value.high]
    assert list(point.get_xdata()) == [value.value]
    assert "over 2 games of 26" in drawn(figure)


def test_averages_say_whose_games_the_published_runs_are_of():
    both = runs(["pong", "boxing"]) + runs(["pong"], "other")
    figure = averages(compare(both, ATARI100K))
    labels = [x.get_text() for x in figure.axes[0].get_yticklabels()]
    assert labels[2:] == [
        "published, the games of\nother\n1 game, 4 runs",
        "published, the games of\nsize12m\n2 games, 9 runs",
    ]


def test_the_line_of_a_human_is_named():
    figure = averages(compare(runs(["pong"], factor=1.5), ATARI100K))
    for panel in figure.axes:
        dashed = [x for x in panel.lines if list(x.get_xdata()) == [1, 1]]
        names = [x for x in panel.texts if x.get_text() == "human"]
        assert len(dashed) == len(names) == 1
        numbers = [x for x in panel.texts if x not in names]
        assert all(x.zorder > dashed[0].zorder for x in numbers)


def test_averages_of_all_games():
    games = list(curves("atari100k"))
    figure = averages(compare(runs(games), ATARI100K))
    labels = [x.get_text() for x in figure.axes[0].get_yticklabels()]
    assert labels[1] == "published\n26 games, 122 runs"
    assert "over all 26 games" in drawn(figure)


def test_no_averages_without_a_score():
    comparison = compare(runs(["pong"]), ATARI100K, (399_999, 400_000))
    assert averages(comparison) is None


@pytest.mark.parametrize(
    ("panels", "grid"),
    [(1, (1, 1)), (2, (2, 1)), (5, (3, 2)), (26, (6, 5)), (57, (6, 10))],
)
def test_shape(panels, grid):
    assert shape(panels) == grid


def test_labels_that_touch_are_moved_apart():
    assert spread_out([0.5, 0.9, 0.1], 0.1) == [0.5, 0.9, 0.1]
    assert spread_out([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread_out([0.6, 0.5, 0.52], 0.1) == pytest.approx(
        [0.64, 0.44, 0.54]
    )
    assert spread_out([], 0.1) == []
