"""The page of one run: what came of it first, then what was run.

`write` is all that others need. The other parts: `results.py` (scores),
`evaluation.py`, `learning.py` (dreams, losses), `origin.py` (command,
settings, versions). Read next: `read.py`, for what a logdir holds.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from dreamer.pages import evaluation, learning, results
from dreamer.pages.elements import (
    Html,
    document,
    facts,
    join,
    section,
    table,
    tag,
)
from dreamer.pages.origin import UNKNOWN, origin
from dreamer.pages.read import Logdir, read
from dreamer.pages.state import time_text
from dreamer.pages.summary import Summary, summarise
from dreamer.train_ratio import schedule
from dreamer.units import duration
from dreamer.whole import write_whole

FILE = "report.html"


def write(logdir: Path) -> Path:
    """Writes the page of a run into its folder, all of it or nothing.

    Returns:
      The file.

    Raises:
      ConfigError: The folder holds no run, or one that cannot be read.
      OSError: A file cannot be read or written.
    """
    return write_page(read(logdir))


def write_page(found: Logdir) -> Path:
    """The same for a run that was read."""
    path = found.path / FILE
    write_whole(path, page(found))
    return path


def page(found: Logdir) -> str:
    """The page's HTML."""
    summary = summarise(found)
    return document(
        f"{summary.title}, seed {found.config.seed}: report",
        _head(found, summary),
        results.scores(found, summary),
        evaluation.evaluations(found, summary),
        learning.dreams(found),
        learning.losses(found),
        _plan(found, summary),
        origin(found),
        _files(found),
        footer(),
    )


def footer() -> Html:
    """When the page was made, and how it is made again."""
    made = f"Made by python -m dreamer.report, {time_text(time.time())}."
    return tag("footer", tag("p", made))


def _head(found: Logdir, summary: Summary) -> Html:
    config = found.config
    where = found.path.resolve().name
    lead = f"{summary.suite}, seed {config.seed}, {summary.model}, in {where}"
    state, notes = _state(found, summary), " ".join(found.notes)
    return tag(
        "header",
        tag("h1", summary.title),
        tag("p", lead, class_="lead"),
        tag("p", state, class_="warning") if state else None,
        tag("p", notes, class_="warning") if notes else None,
        facts(_key(found, summary), "key"),
    )


def _state(found: Logdir, summary: Summary) -> str:
    """Why this is not the page of a run that is done, '' if it is."""
    if found.state is not None:
        done, steps = summary.policy_steps, found.config.run.steps
        said = found.state.sentence(done, steps)
        if said or summary.finished:
            return said
    if summary.finished:
        return ""
    return (
        f"Not finished: at {summary.done} of its policy steps. It is"
        " running, or goes on when the same command is given again."
    )


def _key(found: Logdir, summary: Summary) -> Iterator[tuple[str, object]]:
    """The few numbers that a reader looks for."""
    if summary.recent is not None:
        count = min(len(found.scores), results.RECENT)
        words = "the last episode" if count == 1 else f"last {count} episodes"
        yield "Score", _value(f"{summary.recent:,.1f}", words)
    if found.evaluation is not None:
        scores = found.evaluation.scores
        words = f"{len(scores)} episode{'s' * (len(scores) > 1)}"
        if 0 < (steps := found.evaluation.checkpoint) < summary.policy_steps:
            words += f", after {steps:,} policy steps"
        yield "Evaluation", _value(f"{scores.mean():,.1f}", words)
    plan = schedule(found.config)
    frames = plan.steps * plan.action_repeat
    yield "Frames", _value(f"{summary.frames:,}", f"of {frames:,}")
    if summary.updates is not None:
        planned = f"of {plan.total_updates:,}"
        yield "Updates", _value(f"{summary.updates:,}", planned)
    if summary.seconds:
        yield "Time", _value(duration(summary.seconds), "of training")


def _value(number: str, about: str) -> Html:
    return join([number, tag("small", about)])


def _plan(found: Logdir, summary: Summary) -> Html:
    plan = schedule(found.config)
    steps, seconds = summary.policy_steps, summary.seconds
    ratio = found.last("replay/replay_ratio")
    waiting = found.series("fps/waiting")[1]
    rows = [
        ("Policy steps", f"{plan.steps:,}", f"{steps:,}"),
        ("Frames", f"{plan.steps * plan.action_repeat:,}", summary.frames),
        ("Updates", f"{plan.total_updates:,}", summary.updates),
        (
            "Train ratio (time steps replayed per policy step)",
            f"{float(plan.replay_ratio):g}",
            None if ratio is None else f"{ratio:.4g}",
        ),
        ("Time of training", "–", duration(seconds) if seconds else None),
        ("Policy steps per second", "–", _rate(steps, seconds)),
        ("Updates per second", "–", _rate(summary.updates, seconds)),
        (
            "Share of the time waiting for data",
            "–",
            f"{waiting.mean():.2%}" if len(waiting) else None,
        ),
    ]
    config = found.config
    return section(
        "Plan and what happened",
        table(
            "What the settings ask for, and what the run has done",
            ("", "Planned", "So far"),
            [(name, planned, _shown(done)) for name, planned, done in rows],
        ),
        tag(
            "p",
            f"An update trains on {config.batch_size} sequences of"
            f" {config.batch_length} time steps. The realised ratio counts"
            " from the first update on; time is that of the training loop,"
            " without pauses between starts.",
            class_="soft",
        ),
    )


def _shown(value: object) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) else str(value)


def _rate(count: int | None, seconds: float) -> str | None:
    return f"{count / seconds:.3g}" if seconds and count is not None else None


def _files(found: Logdir) -> Html:
    """Checkpoints, and what went wrong."""
    counts = found.series("train/opt/nonfinite")[1]
    kept = len(found.nonfinite)
    if counts.sum() or kept:
        health = (
            "Updates that were not applied, because a loss or gradient was"
            f" not finite: {max(counts.sum(), kept):,.0f}. Batches kept in"
            f" nonfinite/: {kept}."
        )
    elif len(counts):
        health = "Every update had a finite loss and gradient."
    else:
        health = "No update is in metrics.jsonl."
    rows = [
        (f"{x.policy_steps:,}", f"{x.bytes / 1e6:,.1f} MB", x.time)
        for x in found.checkpoints
    ]
    return section(
        "State of the run",
        tag("p", health),
        table("Checkpoints", ("Policy steps", "Size", "Written"), rows)
        if rows
        else tag("p", "No checkpoint is here.", class_="soft"),
    )
