"""Files that hold scores, as arrays.

`scores.jsonl`: one JSON object per line with `step` (frames) and
`episode/score`, as `dreamer/run/logger.py` and the authors' code write it.
The authors' published curves: `.json` or `.json.gz`, a list of records with
`task`, `method`, `seed`, `xs` (frames) and `ys` (scores, which may be null).
All numbers are checked: files come from anywhere. Read next:
`evaluation_file.py` for the third kind, and `runs.py`.
"""

import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamer.options import ConfigError, cut

FRAMES, SCORE = "step", "episode/score"
LARGEST = 2**30  # bytes of a file, unpacked
MOST = 1e100  # of a score, up or down; their squares stay finite
MOST_FRAMES = 1e12
RECORDS = "expected a list of records with task, method, seed, xs and ys"
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
      frames: Array (episodes,) float, in order.
      scores: Array (episodes,) float.
      broken: Number of lines that could not be read.
      unscored: Number of lines of episodes whose score was not finite.
    """

    frames: np.ndarray
    scores: np.ndarray
    broken: int
    unscored: int


def read_lines(path: Path) -> Episodes:
    """The episodes with a finite score.

    A broken line, such as a power cut leaves, is left out and counted.

    Raises:
      ConfigError: No line can be read, or the file not at all.
      OSError: It cannot be opened.
    """
    rows, broken, unscored, lines = [], 0, 0, 0
    for line in content(path).splitlines():
        if not line.strip():
            continue
        lines += 1
        try:
            row = json.loads(line)
            # Lines without an episode may be there; a null score stands for
            # one that was not finite.
            if row.get(SCORE) is not None:
                rows.append(as_numbers(row[FRAMES], row[SCORE]))
            else:
                unscored += SCORE in row
        except ODD:
            broken += 1
    if broken == lines > 0:
        raise ConfigError(
            f'{path}: expected lines as {{"{FRAMES}": 4000, "{SCORE}": 1.0}},'
            " and there is none"
        )
    return Episodes(*_in_order(rows), broken, unscored)


def read_records(path: Path) -> list[Record]:
    """The runs in a file of the authors' form, at least one.

    Raises:
      ConfigError: It is not as expected.
      OSError: It cannot be opened.
    """
    text = content(path)
    try:
        records = [_record(x) for x in json.loads(text)]
    except ODD as error:
        what = f"{type(error).__name__}: {cut(str(error))}"
        raise ConfigError(f"{path}: {RECORDS}; {what}") from None
    if not records:
        raise ConfigError(f"{path}: {RECORDS}, and there is none")
    return records


def _record(x: dict[str, Any]) -> Record:
    pairs = zip(x["xs"], x["ys"], strict=True)
    rows = [as_numbers(a, b) for a, b in pairs if b is not None]
    for key in ("task", "method"):
        if not isinstance(x[key], str):
            raise TypeError(f"{key} is no text")
    return Record(x["task"], x["method"], int(x["seed"]), *_in_order(rows))


def as_numbers(frames: Any, score: Any) -> tuple[float, float]:
    """Both as floats.

    Raises:
      TypeError: One of them is no number.
      ValueError: One of them is out of range.
    """
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


def content(path: Path) -> bytes:
    """A file, unpacked.

    Raises:
      ConfigError: It is none, damaged or too large.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: expected a file")
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            found = file.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ConfigError(f"{path}: damaged, or not packed by gzip") from None
    if len(found) > LARGEST:
        raise ConfigError(f"{path}: expected at most {LARGEST} bytes")
    return found
