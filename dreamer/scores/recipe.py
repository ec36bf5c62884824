"""Makes the tables in data/ from the authors' learning curves.

    python -m dreamer.scores.recipe FOLDER

FOLDER holds `atari100k-dreamerv3.json.gz` and `atari57-dreamerv3.json.gz` of
the authors' repository (folder `scores`, MIT licence): the training episodes
of five runs for each of 26 games, and means over 400K frames of three to six
runs for each of 57. Written are, for each benchmark, the mean curve over the
seeds with the bins of `published.BENCHMARKS`, and each seed's score at its
end.
`atari_scores.csv` is a copy of the random and human scores in use since
"Human-level control through deep reinforcement learning" (Mnih et al., 2015).
"""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.scores.curves import learning_curve
from dreamer.scores.published import BENCHMARKS, DATA, Benchmark
from dreamer.scores.runs import Run, read_file

FILES = {
    "atari100k": "atari100k-dreamerv3.json.gz",
    "atari200m": "atari57-dreamerv3.json.gz",
}


def main(folder: Path) -> None:
    """Write all tables."""
    for name, file in FILES.items():
        benchmark = BENCHMARKS[name]
        runs = read_file(folder / file)
        _write(f"curves_{name}.csv", curve_rows(runs, benchmark))
        _write(f"finals_{name}.csv", final_rows(runs, benchmark))


def curve_rows(
    runs: Iterable[Run], benchmark: Benchmark
) -> Iterable[dict[str, Any]]:
    """One row per game: seeds, and the mean score by frames."""
    for game, group in by_game(runs).items():
        curve = learning_curve(group, benchmark.bin)
        known = dict(zip(curve.frames, curve.mean, strict=True))
        ends = np.arange(0, benchmark.frames, benchmark.bin)
        middle = ends + benchmark.bin / 2
        yield {"game": game, "seeds": curve.seeds} | {
            f"{x:.0f}": f"{known[x]:.5g}" if x in known else "" for x in middle
        }


def final_rows(
    runs: Iterable[Run], benchmark: Benchmark
) -> Iterable[dict[str, Any]]:
    """One row per window, game and seed that has a score there."""
    runs = list(runs)
    for low, high in benchmark.windows:
        for run in sorted(runs, key=lambda x: (x.game, x.seed)):
            inside = (run.frames > low) & (run.frames <= high)
            if inside.any():
                yield {
                    "from": f"{low:.0f}",
                    "to": f"{high:.0f}",
                    "game": run.game,
                    "seed": run.seed,
                    "score": f"{run.scores[inside].mean():.8g}",
                    "episodes": int(inside.sum()),
                }


def by_game(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of each game, games in order of their names."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda x: x.game):
        found.setdefault(run.game, []).append(run)
    return found


def _write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    with (DATA / name).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
