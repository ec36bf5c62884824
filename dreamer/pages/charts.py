"""Line charts of a page, as SVG with labels in HTML.

The lines stretch to the width of the page while the letters keep their size,
so that a chart is read on a phone too; colours come from `style.css`, in the
dark as well. A sentence with the numbers stands for it where it is not seen.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dreamer.pages.elements import Html, tag
from dreamer.scores.table import short

POINTS = 300  # of a line; more are averaged
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
SIZE = 1000  # of the SVG's own coordinates, either way
STEEP = 30  # times the least value, from which on a scale is logarithmic


@dataclass(frozen=True)
class Line:
    """Values over frames.

    Attributes:
      name: Name in the legend.
      frames: Array (points,) float, in order.
      values: Array (points,) float.
      look: Class of `style.css`.
      dots: True if points are drawn, and nothing that connects them.
    """

    name: str
    frames: np.ndarray
    values: np.ndarray
    look: str = "ours"
    dots: bool = False


@dataclass(frozen=True)
class _Axis:
    """From values to places between 0 and 1."""

    low: float
    high: float
    log: bool = False

    def place(self, values: np.ndarray | float) -> np.ndarray:
        values = np.log10(values) if self.log else np.asarray(values)
        return (values - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> dict[str, float]:
        """Label and place of each."""
        values = nice(self.low, self.high, most)
        if self.log:
            # Whole powers of ten, and numbers between them if they are few.
            span = math.ceil(self.high - self.low)
            digits = (1,) if span > 2 else (1, 2, 5)
            first, last = math.floor(self.low), math.ceil(self.high)
            powers = range(first, last + 1, max(span // most, 1))
            values = [x * 10.0**power for power in powers for x in digits]
        places = {short(x): float(self.place(x)) for x in values}
        return {k: x for k, x in places.items() if 0 <= x <= 1}


def nice(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, about `most`, evenly spaced."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(x * power for x in STEPS if x * power >= rough * 0.75)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{n * step:.10g}") for n in range(first, last + 1)]


def chart(
    title: str,
    described: str,
    lines: Sequence[Line],
    last: float,
    rules: Mapping[str, float] | None = None,
    small: bool = False,
    log: bool = False,
) -> Html:
    """A figure of lines over frames.

    Args:
      title: Caption of the chart.
      described: Text for a person who does not see the chart, with numbers.
      lines: Lines to be drawn, at least one of them with a point.
      last: Frames at the right edge.
      rules: Constants by name, each a horizontal line, also a class of
        `style.css`; far off, it is only named.
      small: True for a chart without a legend, for a grid of several.
      log: True for a logarithmic scale where that shows more.
    """
    lines = [_cut(x, last) for x in lines]
    shown = [x for x in lines if len(x.values)]
    y, near = _limits(shown, rules or {}, log)
    x = _Axis(0, last)
    drawn = [
        tag("path", d=_path(x, y, line), class_=_class(line)) for line in shown
    ]
    drawn += [
        tag("path", d=f"M0 {_down(y, value)}H{SIZE}", class_=f"rule {name}")
        for name, value in near.items()
    ]
    ticks = y.ticks(4 if small else 6)
    grid = [
        tag("path", d=f"M0 {SIZE - SIZE * at:.0f}H{SIZE}", class_="grid")
        for at in ticks.values()
    ]
    plot = tag(
        "svg",
        *grid,
        *drawn,
        viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none",
    )
    picture = tag(
        "div",
        _labels("y", "top", {k: 1 - v for k, v in ticks.items()}),
        plot,
        _labels("x", "left", x.ticks(3 if small else 5)),
        class_="chart small" if small else "chart",
        role="img",
        aria_label=described,
    )
    legend = None if small else _legend(shown, rules or {}, near)
    note = ", on a logarithmic scale" if y.log else None
    return tag("figure", tag("figcaption", title, note, legend), picture)


def _cut(line: Line, last: float) -> Line:
    """What is seen of a line, in few enough points."""
    seen = line.frames <= last
    frames, values = line.frames[seen], line.values[seen]
    if len(frames) > POINTS and not line.dots:
        groups = np.array_split(np.arange(len(frames)), POINTS)
        frames = np.array([frames[x].mean() for x in groups])
        values = np.array([values[x].mean() for x in groups])
    return Line(line.name, frames, values, line.look, line.dots)


def _limits(
    lines: Iterable[Line], rules: Mapping[str, float], log: bool
) -> tuple[_Axis, dict[str, float]]:
    """The axis of values, and those of the rules that are near enough.

    A human far above would press the curves flat.
    """
    values = np.concatenate([x.values for x in lines])
    low, high = float(values.min()), float(values.max())
    if log and low > 0 and high > STEEP * low:
        low, high = math.log10(low), math.log10(high)
        margin = 0.05 * (high - low)
        return _Axis(low - margin, high + margin, log=True), {}
    reach = high - low
    near = {}
    for name, value in rules.items():
        if low - reach <= value <= high + reach:
            near[name] = value
    low, high = min(low, *near.values(), low), max(high, *near.values(), high)
    # What hardly changes shall look so.
    least = 0.01 * max(abs(low), abs(high))
    margin = max(0.06 * (high - low), least) or 1.0
    return _Axis(low - margin, high + margin), near


def _down(axis: _Axis, value: np.ndarray | float) -> str:
    return f"{SIZE - SIZE * float(axis.place(value)):.0f}"


def _path(x: _Axis, y: _Axis, line: Line) -> str:
    """A path through the points, or a dot at each of them."""
    across = SIZE * x.place(line.frames)
    down = SIZE - SIZE * y.place(line.values)
    points = [f"{a:.0f} {b:.0f}" for a, b in zip(across, down, strict=True)]
    if line.dots or len(points) == 1:
        # A line of no length has round ends, and those make a dot.
        return "".join(f"M{point}h0" for point in points)
    return f"M{'L'.join(points)}"


def _class(line: Line) -> str:
    dots = line.dots or len(line.values) == 1
    return f"{'dots' if dots else 'line'} {line.look}"


def _labels(side: str, edge: str, ticks: Mapping[str, float]) -> Html:
    return tag(
        "div",
        *(
            tag("span", label, style=f"{edge}:{100 * at:.1f}%")
            for label, at in ticks.items()
        ),
        class_=side,
    )


def _legend(
    lines: Iterable[Line],
    rules: Mapping[str, float],
    near: Mapping[str, float],
) -> Html:
    names = [(x.name, _class(x)) for x in lines]
    for name, value in rules.items():
        far = "" if name in near else ", outside the chart"
        names.append((f"{name} {value:,.1f}{far}", f"rule {name}"))
    return tag(
        "ul",
        *(tag("li", _swatch(look), name) for name, look in names),
        class_="legend",
    )


def _swatch(look: str) -> Html:
    path = "M14 5h0" if look.startswith("dots") else "M1 5H27"
    return tag(
        "svg",
        tag("path", d=path, class_=look),
        viewBox="0 0 28 10",
        aria_hidden="true",
    )
