"""The part of a page on evaluation: scores, conditions and films.

Read `summary.py` first; `dreamer/evaluate.py` writes the files.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.options import cut, one_line
from dreamer.pages.elements import Html, command, section, table, tag
from dreamer.pages.films import films
from dreamer.pages.read import Logdir, is_number
from dreamer.pages.summary import UNKNOWN, Summary
from dreamer.scores.evaluation_file import Evaluated

HEADS = (
    "Checkpoint (policy steps)",
    "Actions",
    "Episodes",
    "Mean",
    "95% interval",
    "Median",
)
MOST_SETTINGS = 8  # that are named
CAPTION = (
    "Evaluation episodes, by checkpoint. At the top of the page stands the"
    " newest with the run's own environment, sampled actions and episodes"
    " played to their end; of several, that with the most episodes."
)


def evaluations(found: Logdir, summary: Summary) -> Html:
    """Scores and films of evaluation episodes."""
    title = "Evaluation"
    if not found.evaluations:
        return section(title, *_none_yet(found, summary))
    normalised = ["Normalised"] if summary.reference else []
    heads = [*HEADS, *normalised, "Conditions"]
    rows = [_row(x, summary) for x in found.evaluations]
    shown = [
        (path, _caption(path, score))
        for x in reversed(found.evaluations)
        for path, score in videos(x).items()
    ]
    return section(
        title,
        table(CAPTION, heads, rows),
        films(shown) if shown else None,
    )


def _none_yet(found: Logdir, summary: Summary) -> Iterator[Html]:
    """What makes an evaluation, with a film where there is a picture."""
    seen = summary.benchmark is not None or bool(found.dreams)
    film, flags = (", with a video", " --video 1") if seen else ("", "")
    yield tag("p", f"There is none yet. This makes one{film}:")
    where = shlex.quote(str(found.path))
    yield command(f"python -m dreamer.evaluate --logdir {where}{flags}")


def videos(evaluation: Evaluated) -> dict[Path, float]:
    """Scores by video, of the videos of episodes that are there."""
    folder = evaluation.path.parent / "videos"
    episodes = evaluation.about["episodes"]
    named = {
        folder / episode["video"].rpartition("/")[2]: float(score)
        for episode, score in zip(episodes, evaluation.scores, strict=True)
        if isinstance(episode.get("video"), str)
    }
    return {
        path: score
        for path, score in named.items()
        if path.suffix == ".mp4" and path.is_file()
    }


def _row(evaluation: Evaluated, summary: Summary) -> list[object]:
    scores, about = evaluation.scores, evaluation.about
    steps = about.get("checkpoint")
    row: list[object] = [
        f"{steps:,}" if is_number(steps) else evaluation.path.name
    ]
    row += [_actions(about.get("mode")), str(len(scores))]
    mean = float(scores.mean()) if len(scores) else None
    if mean is None:
        row += [UNKNOWN] * 3
    else:
        row += [f"{mean:,.1f}", _interval(about.get("ci95"))]
        row.append(f"{np.median(scores):,.1f}")
    if summary.reference is not None:
        # Nobody knows what a human scores in the beginning of a game.
        known = mean is not None and not about.get("cut_short")
        row.append(summary.normalised(mean) if known else UNKNOWN)
    conditions = "; ".join(_conditions(about, len(scores))) or UNKNOWN
    return [*row, tag("span", conditions, class_="words")]


def _actions(mode: Any) -> str:
    words = {"sample": "sampled", "argmax": "most probable"}
    return words.get(mode, UNKNOWN) if isinstance(mode, str) else UNKNOWN


def _interval(ends: Any) -> str:
    if isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)):
        return f"{ends[0]:,.1f} to {ends[1]:,.1f}"
    return UNKNOWN


def _conditions(about: Mapping[str, Any], count: int) -> Iterator[str]:
    """Seed, length of episodes, and settings that are not the run's."""
    seed, length = about.get("seed"), about.get("length")
    stopped = about.get("cut_short")
    if is_number(seed):
        yield f"seed {seed}"
    if is_number(length):
        limit = f"{length:,} policy steps"
        if is_number(stopped) and stopped:
            yield f"{stopped} of {count} stopped after {limit}"
        else:
            yield f"at most {limit}"
    elif stopped:
        yield "stopped early"
    changes = about.get("settings")
    if isinstance(changes, Mapping):
        named = [cut(one_line(f"{k}={x}")) for k, x in changes.items()]
        yield from named[:MOST_SETTINGS]
        if len(named) > MOST_SETTINGS:
            yield f"{len(named) - MOST_SETTINGS} more settings"


def _caption(path: Path, score: float) -> str:
    return (
        f"Evaluation episode with score {score:,.1f} ({path.name}): the real"
        " frames, what the agent sees of them, and what its world model makes"
        " of that."
    )
