"""The figure of averages over games: mean, median and IQM with intervals.

Read `aggregate.py` for what they are, `figures.py` for the other figure.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamer.scores.aggregate import STATISTICS
from dreamer.scores.comparison import TRAINING, Average, Comparison
from dreamer.scores.figures import GREY, LINES, PUBLISHED, Style, label, styles
from dreamer.scores.published import curves
from dreamer.scores.table import interval, over, protocol_words

Row = tuple[str, Average, Style]
BLACK = Style("black", "-", "o")


def averages(comparison: Comparison) -> Figure | None:
    """One panel per statistic, one row per method; None without any score.

    Below the methods stand the published runs over the same games.
    """
    rows = average_rows(comparison)
    if not rows:
        return None
    figure = Figure(figsize=(10, 1.5 + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(STATISTICS), sharey=True)
    for panel, name in zip(panels, STATISTICS, strict=True):
        _panel(panel, name, rows)
    panels[0].set_yticks(range(len(rows)), [x[0] for x in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.75)
    counts = {over(x[1], comparison.benchmark.name) for x in rows}
    games = counts.pop() if len(counts) == 1 else "over the games named"
    words = protocol_words(TRAINING, comparison.window)
    figure.suptitle(
        f"{comparison.benchmark.title}: human-normalised score"
        f" {games}; {words}\n"
        "Bars: 95% intervals, bootstrap over seeds within each game",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


def average_rows(comparison: Comparison) -> list[Row]:
    """What is drawn: name, average and style."""
    look = styles(comparison)
    total = len(curves(comparison.benchmark.name))
    rows: list[Row] = []
    published: dict[tuple[str, ...], tuple[str, Average]] = {}
    for group in comparison.groups:
        if group.average is None:
            continue
        name = label(group.method)
        if group.protocol != TRAINING:
            name += ", evaluation episodes"
        row = _named(name, group.average), group.average, look[group.method]
        rows.append(row)
        if group.published is not None:
            known = name, group.published
            published.setdefault(group.published.games, known)
    for games, (name, average) in published.items():
        words = PUBLISHED
        if len(published) > 1:
            words += f", the games of\n{name}"
        elif len(games) < total:
            words += ", the same games"
        rows.append((_named(words, average), average, BLACK))
    return rows


def _named(name: str, average: Average) -> str:
    games, runs = len(average.games), average.runs
    return (
        f"{name}\n{games} game{'s' * (games > 1)},"
        f" {runs} run{'s' * (runs > 1)}"
    )


def _panel(panel: Axes, name: str, rows: Sequence[Row]) -> None:
    for place, (_, average, style) in enumerate(rows):
        value = average.statistics[name]
        if not math.isnan(value.low):
            panel.plot(
                [value.low, value.high],
                [place, place],
                color=style.color,
                linewidth=2,
            )
        panel.plot(value.value, place, style.marker, color=style.color)
        panel.annotate(
            interval(value),
            (value.value, place),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            zorder=4,  # the line at 100% shall not cross it
            bbox=dict(facecolor="white", edgecolor="none", pad=1),
        )
    panel.set_title(name, loc="left")
    panel.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f}%")
    panel.locator_params(axis="x", nbins=5)
    panel.margins(x=0.25)
    low, high = panel.get_xlim()
    if low < 1 < high:
        panel.axvline(1, **LINES["human"])
        panel.annotate(
            "human",
            (1, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            va="top",
            color=GREY,
            fontsize=8,
        )
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)
