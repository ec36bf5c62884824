"""The part of a page on the scores of training episodes.

Read `summary.py` and `charts.py` first; the scores beside which a run is
shown are in `dreamer/scores/published.py`.
"""

import math
from collections.abc import Iterator

import numpy as np

from dreamer.pages.charts import Line, chart
from dreamer.pages.elements import Html, section, table, tag
from dreamer.pages.read import Logdir
from dreamer.pages.summary import RECENT, UNKNOWN, Summary
from dreamer.scores.curves import learning_curve, training_result
from dreamer.scores.published import Curve, curves, finals
from dreamer.scores.runs import Run
from dreamer.scores.table import protocol_words, short

MOST_POINTS = 1000  # of a curve, however long the run
MOST_DOTS = 1000  # episodes that are drawn one by one
BINS, FEWEST = 20, 3  # points of a short run, at most; episodes for each
SCORED = (
    "Training episodes",
    "Episodes",
    "Score",
    "Normalised",
    "Published",
    "Published, normalised",
)


def scores(found: Logdir, summary: Summary) -> Html:
    """The learning curve, and the scores by every protocol there is."""
    title = "Score"
    if not len(found.scores):
        words = "No episode has ended yet."
        if found.unscored:
            words = f"{_episodes(found.unscored)} ended, none with a finite"
            words += " score."
        return section(title, tag("p", words))
    last = max(summary.frames, float(found.frames[-1])) or 1.0
    run = _as_run(found, summary)
    curve = learning_curve([run], _bin(summary, last, len(found.scores)))
    published = _published(summary, last)
    lines: list[Line] = []
    if len(found.scores) <= MOST_DOTS:
        lines.append(
            Line("episode", found.frames, found.scores, "episodes", dots=True)
        )
    if published is not None:
        name = f"published, {published.seeds} seeds"
        lines.append(Line(name, published.frames, published.mean, "published"))
    if len(curve.frames) > 1 or len(found.scores) > MOST_DOTS:
        lines.append(Line("mean of this run", curve.frames, curve.mean))
    rules = {}
    if summary.reference is not None:
        rules = vars(summary.reference)
    described = _described(curve, published, last, rules)
    heading = "Score of training episodes, over frames"
    return section(
        title,
        chart(heading, described, lines, last, rules),
        _protocols(run, summary),
        _sources(summary, published is not None),
        _left_out(found.unscored),
    )


def _left_out(unscored: int) -> Html | None:
    """What is not in the numbers above."""
    if not unscored:
        return None
    words = f"Left out: {_episodes(unscored)} whose score was not finite."
    return tag("p", words, class_="soft")


def _episodes(count: int) -> str:
    return "1 episode" if count == 1 else f"{count:,} episodes"


def _as_run(found: Logdir, summary: Summary) -> Run:
    """In the form that curves are averaged in."""
    name = summary.benchmark.name if summary.benchmark else ""
    return Run(
        found.path.name,
        name,
        summary.game,
        "",
        found.config.seed,
        found.frames,
        found.scores,
    )


def _bin(summary: Summary, last: float, episodes: int) -> float:
    """Frames that a point averages over: the benchmark's, if they fit."""
    usual = summary.benchmark.bin if summary.benchmark else math.inf
    points = min(max(episodes // FEWEST, 1), BINS)
    return max(min(usual, last / points), last / MOST_POINTS, 1)


def _published(summary: Summary, last: float) -> Curve | None:
    """The curve to compare with, if the run is long enough to see it."""
    if summary.benchmark is None:
        return None
    known = curves(summary.benchmark.name).get(summary.game)
    return None if known is None or last < known.frames[1] else known


def _described(
    curve: Curve, published: Curve | None, last: float, rules: dict[str, float]
) -> str:
    """The chart in a sentence or two."""
    first, end, best = curve.mean[0], curve.mean[-1], curve.mean.argmax()
    text = (
        f"Line chart. The mean score begins at {first:,.1f}, is highest at"
        f" {curve.mean[best]:,.1f} around {short(round(curve.frames[best]))}"
        f" frames and ends at {end:,.1f} around"
        f" {short(round(curve.frames[-1]))} frames."
    )
    if published is not None:
        there = float(np.interp(last, published.frames, published.mean))
        text += f" The published curve is then at {there:,.1f}."
    for name, value in rules.items():
        text += f" {name.capitalize()} score: {value:,.1f}."
    return text


def _protocols(run: Run, summary: Summary) -> Html:
    heads, rows = list(SCORED), list(_scored(run, summary))
    if len(rows) == 1:  # with no window, there is nothing published
        del heads[4:]
    if summary.reference is None:
        del heads[3:]
    cut = [x[: len(heads)] for x in rows]
    return table("Mean scores of this run", heads, cut)


def _scored(run: Run, summary: Summary) -> Iterator[list[str]]:
    """Rows: a protocol, its episodes and scores."""
    count = min(RECENT, len(run.scores))
    recent = float(run.scores[-RECENT:].mean())
    yield [
        f"the last {count}",
        str(count),
        f"{recent:,.1f}",
        summary.normalised(recent),
        UNKNOWN,
        UNKNOWN,
    ]
    if summary.benchmark is None:
        return
    for window in summary.benchmark.windows:
        result = training_result([run], window)
        if not result.seeds:
            continue
        known = finals(summary.benchmark.name, window).get(summary.game)
        best = float(known.scores.mean()) if known else None
        words = protocol_words("training", window)
        yield [
            words.removeprefix("training episodes "),
            str(result.episodes),
            f"{result.mean:,.1f}",
            summary.normalised(result.mean),
            UNKNOWN if best is None else f"{best:,.1f}",
            UNKNOWN if best is None else summary.normalised(best),
        ]


def _sources(summary: Summary, published: bool) -> Html | None:
    if summary.reference is None:
        return None
    words = (
        f"Random {summary.reference.random:,.1f}, human"
        f" {summary.reference.human:,.1f}; normalised is (score - random) /"
        " (human - random)."
    )
    if published:
        words += (
            " Published: DreamerV3, arXiv 2301.04104v2, training episodes,"
            " mean over seeds."
        )
    return tag("p", words, class_="soft")
