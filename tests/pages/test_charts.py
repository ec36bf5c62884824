"""Charts: ticks, scales, and what is drawn where."""

import re

import numpy as np
import pytest

from dreamer.pages.charts import Line, chart, nice


def line(frames, values, **kwargs):
    return Line("ours", np.array(frames, float), np.array(values), **kwargs)


def draw(*lines, last=100.0, **kwargs):
    return chart("Title", "In words", lines, last, **kwargs)


def paths(made, look):
    """Those of a class, the legend's left out."""
    plot = made[made.index('role="img"') :]
    return re.findall(rf'<path d="([^"]*)" class="{look}"', plot)


def labels(made, edge):
    found = re.findall(rf'style="{edge}:([\d.]+)%">([^<]*)<', made)
    return {text: float(place) for place, text in found}


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 100, 4, [0, 20, 40, 60, 80, 100]),
        (-21, 15, 4, [-20, -10, 0, 10]),
        (0, 440_000, 3, [0, 200_000, 400_000]),
        (0.031, 0.052, 4, [0.035, 0.04, 0.045, 0.05]),
        (-1e100, 1e100, 2, [-1e100, 0, 1e100]),
    ],
)
def test_ticks_are_round(low, high, most, ticks):
    assert nice(low, high, most) == ticks


def test_a_line_runs_from_corner_to_corner():
    made = draw(line([0, 50, 100], [1.0, 3.0, 2.0]))
    # The margin is 6% of the range, so 1.12 times the range is 1000 high.
    assert paths(made, "line ours") == ["M0 946L500 54L1000 500"]
    assert labels(made, "left") == {
        "0": 0,
        "20": 20,
        "40": 40,
        "60": 60,
        "80": 80,
        "100": 100,
    }
    # 3 at the top, in percent from above.
    assert labels(made, "top")["3"] == 5.4
    assert 'role="img" aria-label="In words"' in made
    assert "<figcaption>Title<ul" in made


def test_dots_and_single_points_are_seen():
    made = draw(line([0, 100], [1.0, 2.0], look="episodes", dots=True))
    assert paths(made, "dots episodes") == ["M0 946h0M1000 54h0"]
    assert paths(draw(line([50], [7.0])), "dots ours") == ["M500 500h0"]


def test_what_lies_beyond_the_run_is_cut_off():
    made = draw(line([0, 100], [1.0, 2.0]), line([50, 200], [1.5, 900.0]))
    assert paths(made, "dots ours") == ["M500 500h0"]


def test_long_lines_are_averaged():
    made = draw(line(np.arange(1000) / 10, np.tile([0.0, 1.0], 500)))
    (path,) = paths(made, "line ours")
    assert path.count("L") == 299


def test_far_rules_are_named_and_not_drawn():
    rules = {"human": 40.0, "random": 0.5}
    made = draw(line([0, 100], [1.0, 2.0]), rules=rules)
    assert paths(made, "rule random") == ["M0 946H1000"]
    assert not paths(made, "rule human")
    assert "human 40.0, outside the chart" in made
    assert "random 0.5<" in made


def test_logarithmic_where_values_differ_much():
    steep, flat = line([0, 100], [1.0, 1000.0]), line([0, 100], [1.0, 2.0])
    made = draw(steep, small=True, log=True)
    assert "on a logarithmic scale" in made
    # Each power of ten is a third of the range, 1 / 1.1 of the height.
    places = labels(made, "top")
    assert list(places) == ["1", "10", "100", "1K"]
    assert np.diff(list(places.values())) == pytest.approx(-30.3, abs=0.11)
    assert "logarithmic" not in draw(flat, small=True, log=True)
    assert "logarithmic" not in draw(steep, small=True)
    assert "logarithmic" not in draw(line([0, 1], [0.0, 9.0]), log=True)


@pytest.mark.parametrize(
    "values",
    [[0.0, 0.0], [1e100, -1e100], [5e-324, 0.0], [1e-300, 1e100], [-7.0, -7]],
)
@pytest.mark.parametrize("log", [False, True])
def test_odd_values_are_drawn(values, log):
    made = draw(line([0, 100], values), log=log)
    (path,) = paths(made, "line ours")
    numbers = [float(x) for x in re.findall(r"-?[\d.]+", path)]
    assert len(numbers) == 4
    assert all(0 <= x <= 1000 for x in numbers)
    assert len(labels(made, "top")) < 10
