"""Published scores to compare with: random, human and DreamerV3.

The tables in data/ hold random and human scores per game, and what became of
the learning curves in the authors' repository of "Mastering diverse control
tasks through world models" (arXiv 2301.04104v2; data under the MIT licence).
`recipe.py` makes them. Games carry the names of `dreamer.envs.games`.
"""

import csv
import functools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.envs.games import ALIASES, GAMES
from dreamer.options import ConfigError, cut, did_you_mean

DATA = Path(__file__).resolve().parent / "data"
SOURCE = "data of the authors' repository, MIT licence"
Window = tuple[float, float]


@dataclass(frozen=True)
class Benchmark:
    """A number of frames at which games are compared.

    Attributes:
      name: Name in those of the table's files.
      title: Name in figures.
      prefix: Beginning of a task's name, as in `<prefix>_pong`.
      frames: Number of frames at the end of a run.
      bin: Frames that a point of a curve averages over.
      windows: Frames (from, to] whose training episodes make a score; the
        first one is the default. Published scores are known for these alone.
    """

    name: str
    title: str
    prefix: str
    frames: int
    bin: int
    windows: tuple[Window, ...]


BENCHMARKS = {
    x.name: x
    for x in (
        # The paper's table comes from the first window, which holds 1 to 5
        # episodes of a run; the second one is steadier.
        Benchmark(
            "atari100k",
            "Atari 100K",
            "atari100k",
            400_000,
            20_000,
            ((390e3, 400e3), (360e3, 400e3)),
        ),
        # The last five points of the published curves, 400K frames each.
        Benchmark(
            "atari200m",
            "Atari 200M",
            "atari",
            200_000_000,
            5_000_000,
            ((198e6, 200e6),),
        ),
    )
}


@dataclass(frozen=True)
class Reference:
    """Scores of a random player and of a human."""

    random: float
    human: float

    def normalised(self, score: Any) -> Any:
        """0 for a random player, 1 for the human; of floats or arrays."""
        return (score - self.random) / (self.human - self.random)


@dataclass(frozen=True)
class Curve:
    """Mean score over seeds, in the course of a run.

    Attributes:
      frames: Array (points,) float, the middle of each bin.
      mean: Array (points,) float, the mean score over seeds.
      spread: Array (points,) float, standard deviation over seeds; NaN if
        unknown.
      seeds: Number of runs behind the curve.
    """

    frames: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    seeds: int


@dataclass(frozen=True)
class Final:
    """One number per seed: (seeds,) float, and the episodes behind all.

    At 200M frames the published files hold no episodes but means of 400K
    frames; `episodes` counts those.
    """

    scores: np.ndarray
    episodes: int


def game_name(text: str) -> str:
    """The name here of a game by any of its names.

    Raises:
      ConfigError: It is none of the 57 games.
    """
    game = ALIASES.get(text, text)
    if game not in GAMES:
        hint = did_you_mean(text, GAMES) or "; expected one of the 57 of Atari"
        raise ConfigError(f"unknown game {cut(text)!r}{hint}")
    return game


@functools.cache
def references() -> Mapping[str, Reference]:
    """Random and human scores by game."""
    return {
        row["game"]: Reference(float(row["random"]), float(row["human"]))
        for row in _rows("atari_scores.csv")
    }


@functools.cache
def curves(benchmark: str) -> Mapping[str, Curve]:
    """Published learning curves by game; all games of the benchmark."""
    found = {}
    for row in _rows(f"curves_{benchmark}.csv"):
        game, seeds = row.pop("game"), int(row.pop("seeds"))
        known = {float(x): float(y) for x, y in row.items() if y}
        mean = np.array(list(known.values()))
        frames = np.array(list(known))
        found[game] = Curve(frames, mean, np.full_like(mean, np.nan), seeds)
    return found


@functools.cache
def finals(benchmark: str, window: Window) -> Mapping[str, Final]:
    """Published scores of each seed by game; empty for another window."""
    scores, episodes = defaultdict(list), defaultdict(int)
    for row in _rows(f"finals_{benchmark}.csv"):
        if (float(row["from"]), float(row["to"])) == window:
            scores[row["game"]].append(float(row["score"]))
            episodes[row["game"]] += int(row["episodes"])
    return {x: Final(np.array(scores[x]), episodes[x]) for x in scores}


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
