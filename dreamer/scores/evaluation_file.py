"""The file of an evaluation: its name, its contents, and how it is read.

`eval*.json` holds {"episodes": [{"score": number, ...}, ...]} and how they
were played. `dreamer.evaluate` writes it; plots, pages and results read it,
and files of others in the same form. Next: `evaluation.py` for the statistics
in it.
"""

import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import dreamer
from dreamer.options import ConfigError
from dreamer.scores.evaluation import finite, summary
from dreamer.scores.files import ODD, as_numbers, content
from dreamer.whole import write_whole

FORMAT = 1  # of the file
PACKAGES = ("jax", "numpy", "gymnasium", "ale-py")
EXPECTED = 'expected {"episodes": [{"score": number}, ...]}'
LONGEST = 40  # characters of a setting in the file's name


@dataclass(frozen=True)
class Conditions:
    """How the episodes of a file were played.

    Attributes:
      task: Name of the task, as in `atari100k_pong`.
      checkpoint: Policy steps of the agent.
      frames: Frames that the agent was trained on.
      updates: Updates that made the agent.
      mode: Way in which actions were taken, 'sample' or 'argmax'.
      seed: Seed of environments and actions.
      envs: Number of environments in parallel.
      length: Policy steps of an episode at most.
      settings: Values by key, as text, that differed from the run's.
    """

    task: str
    checkpoint: int
    frames: int
    updates: int
    mode: str
    seed: int
    envs: int
    length: int
    settings: Mapping[str, str]


def name(conditions: Conditions, usual_length: int, count: int | None) -> str:
    """The name of the file: results that mean something else have another.

    Args:
      conditions: Conditions that the episodes are played under.
      usual_length: Policy steps at most that go without saying.
      count: Number of episodes, None if that goes without saying.
    """
    parts = ["eval", str(conditions.checkpoint), conditions.mode]
    if conditions.seed:
        parts.append(f"seed{conditions.seed}")
    if conditions.length != usual_length:
        parts.append(f"length{conditions.length}")
    if count is not None:  # a film or two must not replace a hundred scores
        parts.append(f"episodes{count}")
    for key, value in conditions.settings.items():
        if key.startswith("env."):
            text = f"{key.rpartition('.')[2]}={value}"
            parts.append(re.sub(r"[^\w.=]", "_", text)[:LONGEST])
    return "-".join(parts) + ".json"


def results(
    conditions: Conditions,
    episodes: Sequence[Mapping[str, Any]],
    videos: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """The contents of the file; None where something is not known.

    Args:
      conditions: Conditions that the episodes were played under.
      episodes: Score and length of each, and whatever else is to be kept.
      videos: Films of the first episodes, relative to the file's folder.
      seconds: Time that playing took.
    """
    cut = [x for x in episodes if x["length"] >= conditions.length]
    rows = [{**x, "score": finite(x["score"])} for x in episodes]
    for row, video in zip(rows, videos, strict=False):
        row["video"] = video
    # Nobody knows what a human scores in the beginning of a game.
    task = "" if cut else conditions.task
    return {
        "format": FORMAT,
        **asdict(conditions),
        "episodes": rows,
        "cut_short": len(cut),
        **summary([x["score"] for x in episodes], task),
        "seconds": round(seconds, 1),
        "versions": {
            "dreamer": dreamer.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def write(path: Path, contents: Mapping[str, Any]) -> None:
    """Writes a file of JSON, all of it or nothing.

    Raises:
      OSError: The disk does not take it.
    """
    text = json.dumps(contents, indent=1, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


class Evaluated(NamedTuple):
    """What a file says.

    Attributes:
      path: Place of the file.
      scores: Array (episodes,) float.
      checkpoint: Policy steps of the agent, 0 if the file does not say.
      usual: True if actions were sampled, the environment was the run's own,
        and all episodes were played to their end.
      about: Contents of the file, unchecked.
    """

    path: Path
    scores: np.ndarray
    checkpoint: int
    usual: bool
    about: dict[str, Any]


def read_evaluation(path: Path) -> Evaluated:
    """Scores of evaluation episodes.

    Raises:
      ConfigError: The file is not as expected.
      OSError: The file cannot be opened.
    """
    text = content(path)
    try:
        about = json.loads(text)
        scores = [as_numbers(0, x["score"])[1] for x in about["episodes"]]
        changes = [x for x in about.get("settings", {}) if x[:4] == "env."]
        sampled = about.get("mode", "sample") == "sample"
        usual = sampled and not changes and not about.get("cut_short")
        checkpoint = int(about.get("checkpoint", 0))
    except ODD:
        raise ConfigError(f"{path}: {EXPECTED}") from None
    return Evaluated(path, np.array(scores, float), checkpoint, usual, about)


def newest(found: Iterable[Evaluated]) -> Evaluated | None:
    """That of the newest checkpoint under the usual conditions.

    Of several, that with the most episodes. None if no episode is usual.
    """
    return max(
        (x for x in found if x.usual and len(x.scores)),
        key=lambda x: (x.checkpoint, len(x.scores), x.path.name),
        default=None,
    )
