"""Scores on the small tasks as a table and as learning curves.

From the files that collect.py keeps. Read first: prove.py, whose tasks and
verdict these are.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from prove import PROOFS, SOLVED, Result

from dreamer.options import ConfigError
from dreamer.scores.evaluation_file import newest, read_evaluation
from dreamer.scores.figures import GREY, LINES, SETTINGS, STYLES, shape
from dreamer.scores.files import read_lines
from dreamer.settings import load

BINS = 40  # points of a curve


@dataclass(frozen=True)
class Trained:
    """A run of a small task.

    Attributes:
      result: Result of the evaluation.
      episodes: Number of episodes of the evaluation.
      steps: Array (training episodes,) float, frames at their ends.
      scores: Array (training episodes,) float.
    """

    result: Result
    episodes: int
    steps: np.ndarray
    scores: np.ndarray


def read(folder: Path) -> dict[str, list[Trained]]:
    """Runs right below a folder, by task, in the order of seeds.

    Raises:
      ConfigError: A run is of no such task, or a file is damaged.
    """
    names = {proof.task: name for name, proof in PROOFS.items()}
    found: dict[str, list[Trained]] = {name: [] for name in PROOFS}
    for path in sorted(folder.glob("*/config.yaml")):
        config = load(["--configs", str(path)])
        files = path.parent.glob("eval*.json")
        played = newest(map(read_evaluation, files))
        if config.task not in names or played is None:
            raise ConfigError(f"{path.parent}: no evaluation of a small task")
        low, high = played.about.get("ci95") or (float("nan"),) * 2
        mean, name = played.scores.mean(), names[config.task]
        result = Result(name, config.seed, mean, low, high, float("nan"))
        lines = read_lines(path.parent / "scores.jsonl")
        count = len(played.scores)
        run = Trained(result, count, lines.frames, lines.scores)
        found[name].append(run)
    for trained in found.values():
        trained.sort(key=lambda x: x.result.seed)
    return {name: trained for name, trained in found.items() if trained}


def to_csv(found: Mapping[str, Sequence[Trained]]) -> str:
    """One row per run, unrounded."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    heads = "task", "needs", "seed", "random", "score", "low", "high"
    table.writerow([*heads, "best", "way", "solved", "episodes"])
    for name, trained in found.items():
        proof = PROOFS[name]
        for run in trained:
            x = run.result
            numbers = proof.random, x.score, x.low, x.high, proof.best, x.way
            row = [f"{number:.8g}" for number in numbers]
            end = [*row, x.solved, run.episodes]
            table.writerow([name, proof.needs, x.seed, *end])
    return text.getvalue()


def to_markdown(found: Mapping[str, Sequence[Trained]]) -> str:
    """One row per task, and how the numbers came about."""
    lines = [
        "| task | needs | seeds | random | score, mean over seeds | lowest and"
        " highest seed | best | of the way | solved |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, trained in found.items():
        proof, results = PROOFS[name], [x.result for x in trained]
        scores = [x.score for x in results]
        way = np.mean([x.way for x in results])
        solved = sum(x.solved for x in results)
        lines.append(
            f"| {proof.task.removeprefix('gym_')} | {proof.needs} |"
            f" {len(results)} | {proof.random:.4g} | {np.mean(scores):.4g} |"
            f" {min(scores):.4g}, {max(scores):.4g} | {proof.best:.4g} |"
            f" {way:.0%} | {solved} of {len(results)} |"
        )
    counts = {x.episodes for trained in found.values() for x in trained}
    episodes = " or ".join(map(str, sorted(counts)))
    lines += [
        "",
        f"A seed's score is the mean over {episodes} evaluation episodes"
        " after the last step of training, actions sampled. The way is 0% at"
        " the score of random actions and 100% at the best; a seed with"
        f" {SOLVED:.0%} of it counts as solved. Every run is in `proof.csv`.",
    ]
    return "\n".join(lines) + "\n"


def learning_curves(found: Mapping[str, Sequence[Trained]]) -> bytes:
    """One panel per task, one line per seed, as a PNG."""
    with matplotlib.rc_context(SETTINGS):
        columns, lines = shape(len(found))
        size = max(3.3 * columns, 6.6), 2.5 * lines + 0.5
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).flat
        for panel in panels[len(found) :]:
            panel.set_axis_off()
        for panel, (name, trained) in zip(panels, found.items(), strict=False):
            _panel(panel, name, trained)
        _legend(figure, found)
        figure.supxlabel("policy steps", fontsize=9)
        figure.supylabel("score of an episode", fontsize=9)
        file = io.BytesIO()
        figure.savefig(file, dpi=150, metadata={"Software": None})
    return file.getvalue()


def _panel(panel: Axes, name: str, trained: Sequence[Trained]) -> None:
    proof = PROOFS[name]
    # Of runs that ended before their first episode did there is no curve.
    ends = [run.steps[-1] for run in trained if len(run.steps)]
    right = max(ends, default=1.0)
    for run in trained:
        style = _style(run.result.seed)
        steps, means = _binned(run.steps, run.scores, right)
        panel.plot(steps, means, **style)
        dot = dict(color=style["color"], clip_on=False, zorder=4)
        panel.plot([right], [run.result.score], "o", markersize=5, **dot)
    for score, word in ((proof.best, "best"), (proof.random, "random")):
        panel.axhline(score, **LINES["random"])
        panel.annotate(
            f"{word}\n{score:.4g}",
            (1, score),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),  # beside the panel, where no curve is
            textcoords="offset points",
            va="center",
            color=GREY,
            fontsize=8,
        )
    panel.set_title(f"{name.title()}: {proof.needs}", loc="left")
    panel.set_xlim(0, right)
    panel.margins(y=0.12)
    panel.locator_params(axis="both", nbins=5)


def _legend(figure: Figure, found: Mapping[str, Sequence[Trained]]) -> None:
    """What is drawn, and the line of every seed."""
    seeds = sorted({x.result.seed for y in found.values() for x in y})
    figure.legend(
        handles=[
            Line2D([], [], label=f"seed {x}", **_style(x)) for x in seeds
        ],
        loc="outside upper left",
        ncols=8,
        frameon=False,
        handlelength=3,
        title=f"Training episodes, means over {1 / BINS:.1%} of the steps;"
        " dots: evaluation after the last step",
        title_fontsize=10,
        alignment="left",
    )


def _style(seed: int) -> dict:
    """The same in all panels; a seventh seed has other dashes than the first.

    From the 37th on they begin again.
    """
    again, at = divmod(seed, len(STYLES))
    line = STYLES[(at + again) % len(STYLES)].line
    return dict(color=STYLES[at].color, linestyle=line, linewidth=1.3)


def _binned(
    steps: np.ndarray, scores: np.ndarray, right: float
) -> tuple[np.ndarray, np.ndarray]:
    """Middles of bins that hold episodes, and the mean of each."""
    edges = np.linspace(0, right, BINS + 1)
    counts, _ = np.histogram(steps, edges)
    sums, _ = np.histogram(steps, edges, weights=scores)
    held = counts > 0
    return ((edges[1:] + edges[:-1]) / 2)[held], sums[held] / counts[held]
