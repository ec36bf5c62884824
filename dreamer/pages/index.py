"""The page of several runs: one table, each row with a link to a run's page.

Read `page.py` first.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dreamer.pages.elements import document, join, section, table, tag
from dreamer.pages.page import FILE, footer
from dreamer.pages.read import Logdir
from dreamer.pages.summary import RECENT, UNKNOWN, summarise
from dreamer.units import duration

INDEX = "index.html"
HEADS = (
    "Task",
    "Seed",
    "State",
    "Score",
    "Human-normalised",
    "Evaluation",
    "Model",
    "Frames",
    "Done",
    "Time",
)


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
      order: Task, model and seed, by which rows are sorted.
      cells: Contents of the row.
    """

    order: tuple[str, str, int, str]
    cells: tuple[Any, ...]


def entry(found: Logdir, folder: Path) -> Entry:
    """The row of a run, for an index in a folder above it."""
    summary, config = summarise(found), found.config
    href = quote(os.fsencode(os.path.relpath(found.path / FILE, folder)))
    name = os.path.relpath(found.path, folder)
    label = f"{summary.title}, seed {config.seed}, in {name}"
    recent = summary.recent
    tested = found.evaluation
    link = tag("a", summary.title, href=href, aria_label=label)
    cells = (
        join([link, tag("small", name)]),  # of a grid, all else is the same
        str(config.seed),
        _state(found, summary.finished),
        UNKNOWN if recent is None else f"{recent:,.1f}",
        UNKNOWN if recent is None else summary.normalised(recent),
        f"{tested.scores.mean():,.1f}" if tested else UNKNOWN,
        summary.model,
        f"{summary.frames:,}",
        summary.done,
        duration(summary.seconds) if summary.seconds else UNKNOWN,
    )
    order = summary.suite + summary.title, summary.model, config.seed, name
    return Entry(order, cells)


def _state(found: Logdir, finished: bool) -> str:
    """One word; what it failed of stands on its page."""
    if found.state is not None:
        return found.state.word
    return "done" if finished else UNKNOWN


def index(
    folder: Path, entries: Iterable[Entry], failed: Mapping[str, str]
) -> str:
    """The index's HTML.

    Args:
      folder: Folder of the index.
      entries: Rows of the runs that have pages.
      failed: Reasons by folder, for the runs that have no page.
    """
    entries = sorted(entries, key=lambda x: x.order)
    title = f"Runs in {folder.resolve().name}"
    count = len(entries)
    lead = f"{count} run{'s' * (count != 1)}, by task, model and seed"
    caption = (
        "Each task leads to the page of its run. Scores are means: of the last"
        f" {RECENT} training episodes, and of the newest evaluation with the"
        " run's own environment, sampled actions and whole episodes."
    )
    without = section(
        "Without a page",
        tag("ul", *(tag("li", f"{k}: {x}") for k, x in failed.items())),
    )
    return document(
        title,
        tag("header", tag("h1", title), tag("p", lead, class_="lead")),
        table(
            caption,
            HEADS,
            (x.cells for x in entries),
        ),
        without if failed else None,
        footer(),
    )
