"""The scores of a comparison as CSV and as Markdown.

Every number stands beside the seeds and episodes that it comes from. Read
`comparison.py` first.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dreamer.scores.aggregate import STATISTICS, Aggregate
from dreamer.scores.comparison import (
    TRAINING,
    Average,
    Comparison,
    Group,
    normalised,
    published_average,
)
from dreamer.scores.published import SOURCE, Window, curves, references

Row = dict[str, Any]


def rows(comparison: Comparison) -> Iterator[Row]:
    """One row per method, protocol and game; None where nothing is known."""
    low, high = comparison.window
    for group in comparison.groups:
        training = group.protocol == TRAINING
        for game, result in group.results.items():
            reference = references()[game]
            known = comparison.finals.get(game)
            best = float(known.scores.mean()) if known else None
            mean = result.mean if result.seeds else None
            yield {
                "benchmark": comparison.benchmark.name,
                "method": group.method,
                "protocol": group.protocol,
                "from_frames": low if training else None,
                "to_frames": high if training else None,
                "game": game,
                "random": reference.random,
                "human": reference.human,
                "published": best,
                "published_seeds": len(known.scores) if known else None,
                "published_episodes": known.episodes if known else None,
                "mean": mean,
                "standard_deviation": result.spread,
                "seeds": result.seeds,
                "episodes": result.episodes,
                "missing_runs": len(result.missing),
                "human_normalised": _normalised(game, mean),
                "published_human_normalised": _normalised(game, best),
            }


def _normalised(game: str, score: float | None) -> float | None:
    return None if score is None else float(normalised(game, score))


def to_csv(comparison: Comparison) -> str:
    """All rows, unrounded; empty cells for what is not known."""
    found = list(rows(comparison))
    text = io.StringIO()
    table = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    table.writeheader()
    for row in found:
        table.writerow({k: _bare(v) for k, v in row.items()})
    return text.getvalue()


def _bare(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.8g}" if math.isfinite(value) else ""
    return value


def to_markdown(comparison: Comparison) -> str:
    """A page: how scores are made, tables per method, averages over games."""
    found = list(rows(comparison))
    lines = [f"# {comparison.benchmark.title}", "", *_preface(comparison)]
    for group in comparison.groups:
        lines += ["", f"## {heading(group, comparison.window)}", ""]
        lines += _games([x for x in found if _belongs(x, group)])
        lines += ["", *_averages(group, comparison), *_missing(group)]
    return "\n".join(lines) + "\n"


def _belongs(row: Row, group: Group) -> bool:
    return (row["method"], row["protocol"]) == (group.method, group.protocol)


def heading(group: Group, window: Window) -> str:
    """A method and its protocol, in words."""
    return f"{group.method}: {protocol_words(group.protocol, window)}"


def protocol_words(protocol: str, window: Window) -> str:
    """What made a score."""
    if protocol == TRAINING:
        low, high = map(short, window)
        return f"training episodes ended in {low}-{high} frames"
    return "evaluation episodes"


def short(number: float) -> str:
    """A number as an axis shows it: 400K, 1.5M, -20, 1e+12."""
    for size, unit in ((1e6, "M"), (1e3, "K")):
        if size <= abs(number) < 1e9:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _preface(comparison: Comparison) -> Iterator[str]:
    yield (
        "A seed's score is the mean over its episodes; shown are the mean"
        " over seeds ± their standard deviation (n - 1). Human-normalised:"
        " (score - random) / (human - random)."
    )
    if comparison.finals:
        counted = "episodes"
        if comparison.benchmark.name == "atari200m":
            counted = "points of 400K frames each, counted as episodes here"
        yield (
            f"Published: DreamerV3 (arXiv 2301.04104v2), {SOURCE};"
            f" {protocol_words(TRAINING, comparison.window)} ({counted})."
        )
    else:
        known = ", ".join(
            f"{low:.0f},{high:.0f}"
            for low, high in comparison.benchmark.windows
        )
        yield f"Published scores are known for --window {known} only."


def _games(found: Sequence[Row]) -> Iterator[str]:
    yield from _header(
        "game",
        "random",
        "human",
        "published",
        "its seeds, episodes",
        "ours",
        "our seeds, episodes",
        "ours, human-normalised",
        "published, human-normalised",
    )
    for row in found:
        yield _line(
            row["game"],
            _score(row["random"]),
            _score(row["human"]),
            _score(row["published"]),
            _counts(row["published_seeds"], row["published_episodes"]),
            _score(row["mean"], row["standard_deviation"]),
            _counts(row["seeds"], row["episodes"]),
            percent(row["human_normalised"]),
            percent(row["published_human_normalised"]),
        )


def _averages(group: Group, comparison: Comparison) -> Iterator[str]:
    """Statistics over games, beside the published ones."""
    if group.average is None:
        yield "No episode counts, so there is no average over games."
        return
    name = comparison.benchmark.name
    total = len(curves(name))
    yield (
        f"Human-normalised {over(group.average, name)}, with 95% intervals"
        " from a bootstrap over seeds within each game:"
    )
    yield ""
    yield from _header("", "runs", "episodes", *STATISTICS)
    yield _average(group.method, group.average)
    whole = published_average(comparison.benchmark, comparison.window)
    if group.published is not None:
        yield _average("published, the same games", group.published)
    if whole is not None and len(group.average.games) < total:
        yield _average(f"published, all {total} games", whole)
    single = ", ".join(group.average.single)
    if len(group.average.single) == len(group.average.games):
        yield ""
        yield "Without an interval, as every game has one seed."
    elif single:
        yield ""
        yield (
            "With one seed, so that its spread is not seen and the interval"
            f" too narrow: {single}."
        )


def over(average: Average, benchmark: str) -> str:
    """How many games stand behind an average, of those of the benchmark."""
    count, known = len(average.games), set(curves(benchmark))
    words = f"{count} {'game' if count == 1 else 'games'}"
    if set(average.games) == known:
        return f"over all {words}"
    if known.issuperset(average.games):
        return f"over {words} of {len(known)}"
    return f"over {words}"


def _average(name: str, average: Average) -> str:
    cells = (interval(average.statistics[x]) for x in STATISTICS)
    runs, episodes = f"{average.runs:,}", f"{average.episodes:,}"
    return _line(name, runs, episodes, *cells)


def _missing(group: Group) -> Iterator[str]:
    names = [x for y in group.results.values() for x in y.missing]
    if names:
        yield ""
        yield "Missing, as no such episode is there:"
        yield ""
        yield from (f"- {name}" for name in names)


def interval(x: Aggregate) -> str:
    """A statistic with its interval, in percent."""
    if math.isnan(x.low):
        return percent(x.value)
    return f"{percent(x.value)} [{100 * x.low:.0f}, {100 * x.high:.0f}]"


def percent(number: float | None) -> str:
    """1.25 as 125%."""
    return "-" if number is None else f"{100 * number:.0f}%"


def _score(mean: float | None, spread: float = math.nan) -> str:
    if mean is None:
        return "-"
    return f"{mean:,.1f}" + ("" if math.isnan(spread) else f" ± {spread:,.1f}")


def _counts(seeds: int | None, episodes: int | None) -> str:
    return "-" if seeds is None else f"{seeds}, {episodes}"


def _header(*names: str) -> Iterable[str]:
    numbers = len(names) - 1
    return _line(*names), _line("---", *["---:"] * numbers)


def _line(*cells: str) -> str:
    return "| " + " | ".join(x.replace("|", "\\|") for x in cells) + " |"
