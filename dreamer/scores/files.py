"""Files that hold scores, as arrays.

`scores.jsonl`: one JSON object per line with `step` (frames) and
`episode/score`, as `dreamer/run/logger.py` and the authors' code write it.
`eval*.json`: {"episodes": [{"score": number}, ...]}. The authors' published
curves: `.json` or `.json.gz`, a list of records with `task`, `method`, `seed`,
`xs` (frames) and `ys` (scores, which may be null). All numbers are checked:
files come from anywhere. Read next: `runs.py`.
"""

import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamer.options import cut

FRAMES, SCORE = "step", "episode/score"
LARGEST = 2**30  # bytes of a file, unpacked
MOST = 1e100  # of a score, up or down; their squares stay finite
MOST_FRAMES = 1e12
RECORDS = "expected a list of records with task, method, seed, xs and ys"
EVALUATION = 'expected {"episodes": [{"score": number}, ...]}'
# What reading JSON, and taking something from it, may raise.
ODD = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True)
class Record:
    """One published run: its episodes, or means over some, by frames."""

    task: str
    method: str
    seed: int
    frames: np.ndarray
    scores: np.ndarray


class Episodes(NamedTuple):
    """A file of training episodes.

    Attributes:
      frames: (episodes,) float, in order.
      scores: (episodes,) float.
      broken: Lines that could not be read.
      unscored: Lines of episodes whose score was not finite.
    """

    frames: np.ndarray
    scores: np.ndarray
    broken: int
    unscored: int


def read_lines(path: Path) -> Episodes:
    """The episodes with a finite score.

    A broken line, such as a power cut leaves, is left out and counted.

    Raises:
      ValueError: No line can be read, or the file not at all.
      OSError: It cannot be opened.
    """
    rows, broken, unscored, lines = [], 0, 0, 0
    for line in _content(path).splitlines():
        if not line.strip():
            continue
        lines += 1
        try:
            row = json.loads(line)
            # Lines without an episode may be there; a null score stands for
            # one that was not finite.
            if row.get(SCORE) is not None:
                rows.append(_episode(row[FRAMES], row[SCORE]))
            else:
                unscored += SCORE in row
        except ODD:
            broken += 1
    if broken == lines > 0:
        raise ValueError(
            f'{path}: expected lines as {{"{FRAMES}": 4000, "{SCORE}": 1.0}},'
            " and there is none"
        )
    return Episodes(*_in_order(rows), broken, unscored)


class Evaluated(NamedTuple):
    """A file of `dreamer.evaluate`, or of others in the same form.

    Attributes:
      scores: (episodes,) float.
      checkpoint: Its policy steps, 0 if the file does not say.
      usual: Whether actions were sampled, in the run's own environment, and
        all episodes played to their end.
      about: All that the file says, unchecked.
    """

    scores: np.ndarray
    checkpoint: int
    usual: bool
    about: dict[str, Any]


def read_evaluation(path: Path) -> Evaluated:
    """Scores of evaluation episodes.

    Raises:
      ValueError: It is not as expected.
      OSError: It cannot be opened.
    """
    content = _content(path)
    try:
        about = json.loads(content)
        scores = [_episode(0, x["score"])[1] for x in about["episodes"]]
        changes = [x for x in about.get("settings", {}) if x[:4] == "env."]
        sampled = about.get("mode", "sample") == "sample"
        usual = sampled and not changes and not about.get("cut_short")
        checkpoint = int(about.get("checkpoint", 0))
    except ODD:
        raise ValueError(f"{path}: {EVALUATION}") from None
    return Evaluated(np.array(scores, float), checkpoint, usual, about)


def read_records(path: Path) -> list[Record]:
    """The runs in a file of the authors' form, at least one.

    Raises:
      ValueError: It is not as expected.
      OSError: It cannot be opened.
    """
    content = _content(path)
    try:
        records = [_record(x) for x in json.loads(content)]
    except ODD as error:
        what = f"{type(error).__name__}: {cut(str(error))}"
        raise ValueError(f"{path}: {RECORDS}; {what}") from None
    if not records:
        raise ValueError(f"{path}: {RECORDS}, and there is none")
    return records


def _record(x: dict[str, Any]) -> Record:
    pairs = zip(x["xs"], x["ys"], strict=True)
    rows = [_episode(a, b) for a, b in pairs if b is not None]
    for key in ("task", "method"):
        if not isinstance(x[key], str):
            raise TypeError(f"{key} is no text")
    return Record(x["task"], x["method"], int(x["seed"]), *_in_order(rows))


def _episode(frames: Any, score: Any) -> tuple[float, float]:
    """Both as floats, if they are numbers as they should be."""
    if isinstance(frames, bool) or isinstance(score, bool):
        raise TypeError("true and false are no numbers")
    pair = frames + 0.0, score + 0.0
    if not 0 <= pair[0] <= MOST_FRAMES:
        raise ValueError("frames out of range")
    if not abs(pair[1]) <= MOST:
        raise ValueError("a score that is not finite")
    return pair


def _in_order(
    rows: Iterable[tuple[float, float]],
) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, float).reshape(-1, 2)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return table[:, 0], table[:, 1]


def _content(path: Path) -> bytes:
    """A file, unpacked.

    Raises:
      ValueError: It is none, damaged or too large.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a file")
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ValueError(f"{path}: damaged, or not packed by gzip") from None
    if len(content) > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST} bytes")
    return content
