"""Plots and tabulates scores of runs beside the published ones.

`python -m dreamer.plot --help` says how. `dreamer/scores/` does the work; its
`__init__.py` is what to read next.
"""

import argparse
import io
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib

from dreamer.command import Parser, say
from dreamer.options import ConfigError, shown
from dreamer.places import given, home
from dreamer.scores.averages import averages
from dreamer.scores.comparison import Comparison, compare
from dreamer.scores.curves import too_long
from dreamer.scores.figures import SETTINGS, learning_curves
from dreamer.scores.published import BENCHMARKS, Window
from dreamer.scores.runs import Run, read
from dreamer.scores.table import heading, to_csv, to_markdown

PROGRAM = "dreamer.plot"
DESCRIPTION = """\
Draws learning curves of Atari 100K and Atari 200M, one panel per game, and
averages over games, beside published scores; writes them as tables too.
Written for each benchmark: BENCHMARK.csv, BENCHMARK.md, BENCHMARK-curves.png
and .svg, BENCHMARK-averages.png and .svg.

Runs are averaged that have the same method: the preset with the model's size
(and the train_ratio, if unusual), or else the name of DIR.
"""
# Of figures, and what would make the same one another file.
KINDS = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(f"python -m {PROGRAM}", DESCRIPTION)
    add = parser.add_argument
    add(
        "dirs",
        metavar="DIR",
        nargs="*",
        type=home,
        help="where runs are, at any depth: folders with scores.jsonl and"
        " config.yaml, or .json.gz files with the authors' curves; such a"
        " file (.json too) can be named itself",
    )
    about = "the same as DIR"
    add("--logdir", metavar="DIR", action="append", type=home, help=about)
    add(
        "--out",
        metavar="FOLDER",
        type=home,
        default=Path("plots"),
        help="where to write (default: plots)",
    )
    add(
        "--label",
        metavar="NAMES",
        default="",
        help="the method: one name for all runs, or one for each DIR,"
        " separated by commas",
    )
    add(
        "--window",
        metavar="FROM,TO",
        type=_window,
        help="frames in which training episodes that make a score end"
        " (default: 390000,400000 as in the paper, and 198000000,200000000;"
        " steadier on Atari 100K: 360000,400000)",
    )
    add(
        "--bin",
        metavar="FRAMES",
        type=_frames,
        help="frames that a point of a curve averages over (default: 20000,"
        " and 5000000)",
    )
    return parser


def _frames(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1 <= number <= 1e12:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}: expected 1 to 1e12 frames"
        )
    return number


def _window(text: str) -> Window:
    low, comma, high = text.partition(",")
    try:
        window = float(low), float(high)
    except ValueError:
        window = 0.0, 0.0
    if not comma or not 0 <= window[0] < window[1] <= 1e12:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}: expected two numbers of frames, FROM,TO"
        )
    return window


def main(argv: Sequence[str]) -> None:
    """Read, compute and draw everything, then write it."""
    try:
        flags = _parser().parse_args(argv)
        if flags.out.exists() and not flags.out.is_dir():
            raise ConfigError(f"--out {flags.out}: expected a folder")
        dirs = given(flags.dirs, flags.logdir)
        left_out: list[str] = []
        runs = _read(dirs, _labels(flags.label, len(dirs)), left_out)
        runs = _drawable(runs, flags.bin, left_out)
        comparisons = [
            compare(runs, benchmark, flags.window, flags.bin)
            for benchmark in BENCHMARKS.values()
            if any(run.benchmark == benchmark.name for run in runs)
        ]
        files = dict(x for y in comparisons for x in _files(y))
        flags.out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (flags.out / name).write_bytes(content)
    except (OSError, ConfigError) as error:
        say(PROGRAM, error)
        raise SystemExit(2) from None
    for line in [*_remarks(runs, left_out), *_results(comparisons)]:
        print(line)
    print(f"Written: {', '.join(str(flags.out / name) for name in files)}")


def _labels(text: str, dirs: int) -> list[str]:
    """A method for each DIR, '' for what its runs say."""
    names = [x.strip() for x in text.split(",")]
    if len(names) == 1:
        return names * dirs
    if len(names) != dirs or not all(names):
        raise ConfigError(
            f"--label {text}: expected one name, or {dirs} as there are DIRs"
        )
    return names


def _read(
    dirs: Iterable[Path], labels: Iterable[str], left_out: list[str]
) -> list[Run]:
    """All runs; one that is found twice counts once."""
    found: dict[str, Run] = {}
    for path, label in zip(dirs, labels, strict=True):
        for run in read(path.resolve(), label, left_out):
            found.setdefault(run.name, run)
    return list(found.values())


def _drawable(
    runs: Iterable[Run], width: float | None, left_out: list[str]
) -> list[Run]:
    """Those with a curve in bins of a width, which is the usual if None."""
    kept: list[Run] = []
    for run in runs:
        reason = too_long(run, width or BENCHMARKS[run.benchmark].bin)
        if reason:
            left_out.append(reason)
        else:
            kept.append(run)
    if not kept:
        raise ConfigError(left_out[-1])
    return kept


def _files(comparison: Comparison) -> Iterator[tuple[str, bytes]]:
    """Names and contents."""
    name = comparison.benchmark.name
    yield f"{name}.csv", to_csv(comparison).encode()
    yield f"{name}.md", to_markdown(comparison).encode()
    for what, draw in (("curves", learning_curves), ("averages", averages)):
        with matplotlib.rc_context(SETTINGS):
            figure = draw(comparison)
            if figure is None:
                continue
            for kind, metadata in KINDS.items():
                file = io.BytesIO()
                figure.savefig(file, format=kind, dpi=150, metadata=metadata)
                yield f"{name}-{what}.{kind}", file.getvalue()


def _remarks(runs: Sequence[Run], left_out: Iterable[str]) -> Iterable[str]:
    """What a person should know of the runs that were found."""
    yield f"Runs: {len(runs)}"
    reasons = list(dict.fromkeys(left_out))  # a DIR may be given twice
    if reasons:
        yield f"Left out: {len(reasons)}"
        yield from (f"  {reason}" for reason in reasons)
    broken = [run for run in runs if run.broken]
    if broken:
        lines = sum(run.broken for run in broken)
        places = ", ".join(f"{x.name} ({x.broken})" for x in broken)
        yield f"Broken lines left out: {lines}, in {places}"
    groups = defaultdict(list)
    for run in runs:
        groups[run.benchmark, run.method, run.game].append(run)
    for (_, method, game), group in groups.items():
        for seed, count in Counter(x.seed for x in group).items():
            if count > 1:
                yield (
                    f"{method}, {game}: {count} runs have seed {seed}, and"
                    " each of them counts"
                )
    yield from _differences(runs)
    yield from _checkpoints(runs)


def _checkpoints(runs: Sequence[Run]) -> Iterable[str]:
    """Evaluations averaged of agents with more and with less training."""
    steps = defaultdict(set)
    for run in runs:
        if len(run.evaluation):
            steps[run.benchmark, run.method].add(run.checkpoint)
    for (_, method), found in steps.items():
        if len(found) > 1:
            yield (
                f"{method}: evaluation episodes are averaged, though played"
                f" after {min(found):,} to {max(found):,} policy steps"
            )


SAME_METHOD = ("task", "seed", "logdir", "logger.", "jax.", "run.", "replay.")


def _differences(runs: Sequence[Run]) -> Iterable[str]:
    """Settings that differ among runs that are averaged."""
    values = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for key, value in run.settings.items():
            if not key.startswith(SAME_METHOD) or key == "run.train_ratio":
                values[run.benchmark, run.method][key].add(repr(value))
    for (_, method), settings in values.items():
        keys = [key for key, found in settings.items() if len(found) > 1]
        if keys:
            more = ", ..." if len(keys) > 5 else ""
            yield (
                f"{method}: averaged, though runs differ in"
                f" {', '.join(keys[:5])}{more}"
            )


def _results(comparisons: Iterable[Comparison]) -> Iterable[str]:
    """Runs that do not count, for each method and protocol."""
    for comparison in comparisons:
        for group in comparison.groups:
            results = group.results.values()
            missing = sum(len(x.missing) for x in results)
            total = missing + sum(x.seeds for x in results)
            if missing:
                yield (
                    f"{heading(group, comparison.window)}: {missing} of"
                    f" {total} runs have none and do not count"
                    f" ({comparison.benchmark.name}.md names them)"
                )


if __name__ == "__main__":
    main(sys.argv[1:])
