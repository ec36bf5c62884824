"""Figures of a comparison: learning curves per game, averages over games.

Methods differ by line style as well as by colours that colour-blind people
tell apart, so that a figure is read in black and white too. Drawn without
pyplot: nothing global, no window. Read `comparison.py` first.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dreamer.options import ConfigError
from dreamer.scores.comparison import Comparison
from dreamer.scores.labels import End, label_ends
from dreamer.scores.published import Curve, Reference, curves, references
from dreamer.scores.table import short

SETTINGS = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.linewidth": 0.8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dreamer",  # the same figure, the same file
}
PUBLISHED = "published"
GREY = "0.45"
FEW = 6  # panels, up to which they are large, and lines labelled at the end
NEAR = 1.0  # times the range of the curves, that a score may lie beyond it
SIZE, FEW_SIZE = (2.5, 1.9), (4.4, 2.9)  # inches of a panel
HEAD, LINE = 0.75, 0.17  # inches: the title, and a line of the legend
LETTERS = 11  # of a title in an inch, if many are digits and capitals
HANDLE = 7  # letters that a line and the gaps beside a name have room for
LATE = 0.85  # of the width, from which on a line is labelled beside the panel
LONGEST = 28  # letters of a name beside a line, which takes room from panels


@dataclass(frozen=True)
class Style:
    """How a method is drawn; the colours are those of Okabe and Ito."""

    color: str
    line: Any
    marker: str


STYLES = (
    Style("#0072B2", "-", "o"),
    Style("#D55E00", (0, (5, 1.5)), "s"),
    Style("#009E73", (0, (4, 1, 1, 1)), "^"),
    Style("#CC79A7", (0, (1.5, 1)), "D"),
    Style("#E69F00", (0, (7, 1, 1, 1, 1, 1)), "v"),
    Style("#56B4E9", (0, (9, 3)), "P"),
)
LINES: Mapping[str, dict[str, Any]] = {
    PUBLISHED: dict(color="black", linestyle="-", linewidth=0.9, zorder=3),
    "human": dict(color=GREY, linestyle=(0, (6, 3)), linewidth=0.9),
    "random": dict(color=GREY, linestyle=(0, (2, 3)), linewidth=0.9),
}


def styles(comparison: Comparison) -> dict[str, Style]:
    """By method.

    Raises:
      ConfigError: They are too many to be told apart.
    """
    methods = list(comparison.curves)
    if len(methods) > len(STYLES):
        raise ConfigError(
            f"{comparison.benchmark.title}: {len(methods)} methods, expected"
            f" at most {len(STYLES)}; --label NAME makes them one"
        )
    return dict(zip(methods, STYLES, strict=False))


def learning_curves(comparison: Comparison) -> Figure:
    """One panel per game: ours, published, human and random.

    Call it, and save the figure, within `matplotlib.rc_context(SETTINGS)`.
    """
    games = comparison.games
    columns, lines = shape(len(games))
    few = len(games) <= FEW
    wide, high = (7.0, 4.2) if len(games) == 1 else FEW_SIZE if few else SIZE
    figure = Figure(
        figsize=(columns * wide, lines * high + HEAD), layout="constrained"
    )
    look = styles(comparison)
    labelled = few and all(_late(x, comparison) for x in games)
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for place, panel in enumerate(panels):
        if place >= len(games):
            panel.set_axis_off()
            continue
        _panel(panel, games[place], comparison, look, labelled)
        if place + columns < len(games):
            panel.tick_params(labelbottom=False)
    room = int(columns * wide * LETTERS)
    heading = "\n".join(textwrap.fill(x, room) for x in title(comparison))
    if labelled:
        figure.suptitle(heading, x=0.01, ha="left", fontsize=10)
    else:
        _legend(figure, look, heading, room)
    figure.supxlabel("frames", fontsize=9)
    figure.supylabel("score of an episode", fontsize=9)
    return figure


def shape(panels: int) -> tuple[int, int]:
    """Columns and lines of a grid."""
    columns = next(
        width
        for most, width in ((3, panels), (4, 2), (6, 3), (12, 4), (20, 5))
        + ((10**9, 6),)
        if panels <= most
    )
    return columns, math.ceil(panels / columns)


def title(comparison: Comparison) -> tuple[str, str]:
    """What is drawn, and by which seeds."""
    counts = [
        f"{plain(method)}: {_range(x.seeds for x in games.values())}"
        for method, games in comparison.curves.items()
    ]
    known = curves(comparison.benchmark.name)
    seeds = [known[x].seeds for x in comparison.games if x in known]
    if seeds:
        counts.append(f"{PUBLISHED}: {_range(seeds)}")
    return (
        f"{comparison.benchmark.title}: training episodes, mean over seeds;"
        " band: ± 1 standard deviation",
        f"Seeds per game – {', '.join(counts)}",
    )


def _range(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low}-{high}"


def plain(text: str) -> str:
    """A name as text that is no formula."""
    return text.replace("$", r"\$")


def label(method: str) -> str:
    """A method's name where there is little room; titles have all of it."""
    if len(method) > LONGEST:
        half = LONGEST // 2
        method = f"{method[:half]}…{method[-half:]}"
    return plain(method)


def _late(game: str, comparison: Comparison) -> bool:
    """Whether all lines end near the right edge, where names fit."""
    known = curves(comparison.benchmark.name).get(game)
    drawn = [x[game] for x in comparison.curves.values() if game in x]
    drawn += [known] if known is not None else []
    ends = [x.frames[-1] for x in drawn if len(x.frames)]
    right = max([comparison.benchmark.frames, *ends])
    return all(x > LATE * right for x in ends)


def _panel(
    panel: Axes,
    game: str,
    comparison: Comparison,
    look: Mapping[str, Style],
    labelled: bool,
) -> None:
    """Lines, limits and labels of one game."""
    known = curves(comparison.benchmark.name).get(game)
    ends: list[End] = []
    if known is not None:
        panel.plot(
            known.frames, known.mean, label=PUBLISHED, **LINES[PUBLISHED]
        )
        name = f"{PUBLISHED} ({known.seeds})"
        ends.append(End(name, known.mean[-1], "black"))
    drawn = [known] if known is not None else []
    for method, games in comparison.curves.items():
        if game in games and len(games[game].frames):
            curve, style = games[game], look[method]
            _curve(panel, curve, method, style)
            drawn.append(curve)
            name = f"{label(method)} ({curve.seeds})"
            ends.append(End(name, curve.mean[-1], style.color))
    right = max([comparison.benchmark.frames, *(x.frames[-1] for x in drawn)])
    panel.set_xlim(0, right)
    ends += _references(panel, references()[game], drawn)
    panel.set_title(game.replace("_", " ").title(), loc="left")
    panel.xaxis.set_major_formatter(lambda x, _: short(x))
    panel.yaxis.set_major_formatter(lambda y, _: short(round(y, 6)))
    few = len(comparison.games) <= FEW
    panel.locator_params(axis="both", nbins=5 if few else 4)
    panel.tick_params(length=3)
    if labelled:
        label_ends(panel, ends)


def _curve(panel: Axes, curve: Curve, method: str, style: Style) -> None:
    """A mean with its band; points too where there are few."""
    panel.plot(
        curve.frames,
        curve.mean,
        color=style.color,
        linestyle=style.line,
        linewidth=2,
        marker=style.marker if len(curve.frames) < 4 else "",
        label=method,
    )
    low, high = curve.mean - curve.spread, curve.mean + curve.spread
    panel.fill_between(
        curve.frames, low, high, color=style.color, alpha=0.2, linewidth=0
    )


def _references(
    panel: Axes, reference: Reference, drawn: Sequence[Curve]
) -> list[End]:
    """Random and human scores; those far off are said, not drawn.

    A human far above would press the curves flat. Sets the limits of y.
    """
    edges = [reference.random]
    for curve in drawn:
        spread = np.nan_to_num(curve.spread)
        edges += [*(curve.mean - spread), *(curve.mean + spread)]
    low, high = min(edges), max(edges)
    reach = NEAR * (high - low) or math.inf
    ends = []
    for name in ("human", "random"):
        score = getattr(reference, name)
        if low - reach <= score <= high + reach:
            panel.axhline(score, label=name, **LINES[name])
            low, high = min(low, score), max(high, score)
            ends.append(End(name, score, GREY))
        else:
            up = score > high
            panel.annotate(
                f"{name} {score:,.1f} {'↑' if up else '↓'}",
                (0.02, 0.99 if up else 0.01),
                xycoords="axes fraction",
                va="top" if up else "bottom",
                color=GREY,
                fontsize=8,
            )
    margin = 0.06 * (high - low) or 1.0
    panel.set_ylim(low - margin, high + 2 * margin)
    return ends


def _legend(
    figure: Figure, look: Mapping[str, Style], heading: str, room: int
) -> None:
    """A legend above the panels, under the title, `room` letters wide."""
    lines = [
        (label(k), dict(color=x.color, linestyle=x.line, linewidth=2))
        for k, x in look.items()
    ]
    lines += LINES.items()
    longest = max(len(name) for name, _ in lines)
    columns = min(max(room // (longest + HANDLE), 1), 6)
    high = LINE * math.ceil(len(lines) / columns)
    figure.set_figheight(figure.get_figheight() + high)
    figure.legend(
        handles=[Line2D([], [], label=k, **v) for k, v in lines],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=3,
        title=heading,
        title_fontsize=10,
        alignment="left",
    )
