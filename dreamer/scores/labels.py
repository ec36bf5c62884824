"""Names beside the ends of lines, where they do not touch one another.

Used by `figures.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

SPACING = 11  # points between labels


class End(NamedTuple):
    """How high a line ends, and what is written there."""

    name: str
    y: float
    color: str


def label_ends(panel: Axes, ends: Sequence[End]) -> None:
    """Writes names beside the ends of lines, apart from one another."""
    low, high = panel.get_ylim()
    height = panel.figure.get_size_inches()[1] * 72 * 0.7
    gap = SPACING / (height / panel.get_subplotspec().get_gridspec().nrows)
    heights = spread_out([(x.y - low) / (high - low) for x in ends], gap)
    for end, height in zip(ends, heights, strict=True):
        panel.annotate(
            end.name,
            (1, height),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=end.color,
            fontsize=8,
        )


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved as little as need be to lie `gap` apart, in their order.

    Those that would touch form a block around their mean.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks: list[list[int]] = []
    places: dict[int, float] = {}
    for i in order:
        blocks.append([i])
        while True:
            block = blocks[-1]
            middle = sum(heights[j] for j in block) / len(block)
            bottom = middle - gap * (len(block) - 1) / 2
            if len(blocks) < 2 or bottom >= places[blocks[-2][-1]] + gap:
                break
            blocks[-2:] = [blocks[-2] + block]
        places |= {j: bottom + gap * n for n, j in enumerate(blocks[-1])}
    return [places[i] for i in range(len(heights))]
