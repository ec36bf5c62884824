"""How many updates each policy step buys, and a program that explains it.

`Ratio` is asked by the training loop once per policy step and holds the run to
the replay ratio of "Mastering diverse control tasks through world models"
(arXiv 2301.04104v2). `python -m dreamer.ratio --configs atari100k` prints what
a `train_ratio` means and converts other numbers into it. Next:
`dreamer.train_ratio` for the arithmetic, `dreamer.run` for the loop.
"""

import operator
import signal
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from dreamer.train_ratio import UNITS, Schedule, exact, schedule

# Time steps replayed per policy step in the paper's table of benchmarks.
PAPER = {"atari100k": Fraction(128), "atari": Fraction(32)}
WIDTH = 79
LARGEST = 1e15  # amount of anything
USAGE = """\
python -m dreamer.ratio [--UNIT AMOUNT] [--configs ...] [--KEY VALUE ...]

Says how often a run trains, in every unit in use. All settings and presets of
`python -m dreamer.train --help` are taken. One of these may be given instead
of --run.train_ratio, and is converted into it (AMOUNT: 0.25, 1/4, 2e4):
"""


class Ratio:
    """Updates owed at each policy step; remainders carry, nothing drifts.

    The rule, in exact arithmetic, for r > 0: the first call anchors
    `prev = step` and returns 1; every later one returns
    `n = floor((step - prev) * r)` and sets `prev += n / r`. In floating point
    that sum drifts, but its solution is `prev = anchor + given / r`, where
    `given` counts the updates returned since the anchor. As `given` is whole,

        n = floor((step - anchor) * r) - given

    is the same number and takes whole numbers only, r being a fraction. A
    float stands for the simple fraction that it was made from: 0.1 for 1/10.
    """

    def __init__(self, ratio: float | Fraction) -> None:
        """Start with nothing owed.

        Args:
          ratio: Updates per policy step r. 0: never; negative: one per call.

        Raises:
          ValueError: It is not finite.
        """
        self._ratio = exact(ratio)
        self._anchor: int | None = None
        self._given = 0

    def __call__(self, step: int) -> int:
        """Updates to make at policy step `step`, and count them as made.

        Raises:
          ValueError: `step` lies before that of an earlier call.
        """
        step = operator.index(step)
        if self._ratio <= 0:
            return 1 if self._ratio < 0 else 0
        if self._anchor is None:
            self._anchor = step
            return 1
        r = self._ratio
        total = (step - self._anchor) * r.numerator // r.denominator
        if total < self._given:
            raise ValueError(
                f"step={step}: expected no step before one asked for already,"
                f" and {self._given} updates were given since step"
                f" {self._anchor}"
            )
        owed = total - self._given
        self._given = total
        return owed

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON can hold it."""
        return {
            "ratio": str(self._ratio),
            "anchor": self._anchor,
            "given": self._given,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Owe exactly what the ratio owed that `state` came from.

        Raises:
          ValueError: It had another ratio.
        """
        if state["ratio"] != str(self._ratio):
            raise ValueError(
                f"ratio={self._ratio}: the saved one is {state['ratio']},"
                " expected the same train_ratio and batch"
            )
        self._anchor = state["anchor"]
        self._given = state["given"]


def main(argv: Sequence[str]) -> None:
    """Print what the settings of a command line mean for training."""
    # Here, not above: who needs `Ratio` alone does not load the settings.
    from dreamer.command import say
    from dreamer.options import ConfigError, parse, settings
    from dreamer.settings import load

    if "--help" in argv or "-h" in argv:
        print(USAGE)
        for unit, meaning in UNITS.items():
            print(f"  --{unit:<21} {meaning}")
        return
    try:
        rest, unit, amount = _split_unit(argv)
        config = load(rest, "dreamer.ratio")
        here = schedule(config)
        if unit:
            ratio = here.train_ratio_for(unit, amount)
            wanted = settings(config)["run.train_ratio"]
            parse(wanted, float(ratio), f"--{unit}: makes ")
            here = replace(here, train_ratio=ratio)
    except ConfigError as error:
        say("dreamer.ratio", error)
        raise SystemExit(2) from None
    batch = f"{config.batch_size} sequences x {config.batch_length} steps"
    print(_explain(here, config.task, batch, PAPER.get(config.suite)))
    if unit:
        print(
            f"\nFor {_number(amount)} {UNITS[unit].partition(' (')[0]}:"
            f" --run.train_ratio {_exactly(here.train_ratio)}"
        )


def _split_unit(argv: Sequence[str]) -> tuple[list[str], str, Fraction]:
    """The arguments without `--UNIT AMOUNT`, the unit or '', the amount."""
    from dreamer.options import ConfigError, cut

    rest: list[str] = []
    unit, text = "", ""
    words = iter(argv)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in UNITS:
            rest.append(word)
        elif unit or any(x.startswith("--run.train_ratio") for x in argv):
            both = unit or "run.train_ratio"
            raise ConfigError(
                f"--{name}: given besides --{both}, expected one"
            )
        else:
            unit, text = name, value if equals else next(words, "")
    if not unit:
        return rest, unit, Fraction(0)
    over, _, under = text.partition("/")
    try:
        # Floats first: Fraction("1e999999999") would compute all its digits.
        amount = exact(float(over)) / exact(float(under or 1))
    except (ValueError, ZeroDivisionError):
        amount = Fraction(-1)
    if not 0 <= amount <= LARGEST:
        raise ConfigError(
            f"--{unit}={cut(text)}: expected a number >= 0 and <= {LARGEST:g}"
        )
    return rest, unit, amount


def _explain(
    here: Schedule, task: str, batch: str, paper: Fraction | None
) -> str:
    """The page that `main` prints."""
    repeat, each = here.action_repeat, f"{here.batch_steps:,}"
    run = f"{task}: {here.steps:,} policy steps"
    if repeat > 1:
        run += f" of {repeat} frames = {here.steps * repeat:,} frames"
    run += f", {here.envs} environment{'s' if here.envs > 1 else ''}."
    words = (
        "A policy step is one action of the agent. train_ratio says how many"
        " time steps of past play are trained on (replayed) for each new"
        f" policy step. An update is one gradient step; its batch of {batch}"
        f" holds {each} time steps. {_meaning(here)}"
    )
    lines = [
        *textwrap.wrap(run, WIDTH),
        "",
        *textwrap.wrap(words, WIDTH),
        "",
        *_table(here, paper),
    ]
    if here.train_ratio:
        start = (
            f"Updates begin at policy step {here.first_step:,}, when the"
            f" replay holds {each} sequences to start from; what came before"
            " is not made up for."
        )
        if not here.total_updates:
            start += " This run ends before that."
        lines += ["", *textwrap.wrap(start, WIDTH)]
    return "\n".join([*lines, "", *_beware(repeat)])


def _meaning(here: Schedule) -> str:
    """The sentence that turns train_ratio into updates."""
    if here.train_ratio < 0:
        return "A negative train_ratio means one update every policy step."
    if here.train_ratio == 0:
        return "train_ratio 0 means that the run never trains."
    bought = (
        f"So train_ratio {_number(here.train_ratio)} buys"
        f" {_number(here.train_ratio)} / {here.batch_steps} ="
        f" {_number(here.updates_per_step)} updates per policy step"
    )
    if here.updates_per_step > 1:
        return f"{bought}."
    gap = 1 / here.updates_per_step
    often = f"{_number(gap)} policy steps" if gap > 1 else "policy step"
    if here.action_repeat > 1:
        often += f" = {_number(gap * here.action_repeat)} frames"
    return f"{bought}: one update every {often}."


def _table(here: Schedule, paper: Fraction | None) -> list[str]:
    """One row per unit; a second column for the paper's ratio, if any."""
    columns = {"this run": here}
    if paper is not None:
        columns["the paper"] = replace(here, train_ratio=paper)
    rows = {
        "train_ratio": lambda x: x.train_ratio,
        "replay ratio, in policy steps": lambda x: x.replay_ratio,
        "replay ratio, in frames": lambda x: x.replay_ratio_frames,
        "updates per policy step": lambda x: x.updates_per_step,
        "updates per frame": lambda x: x.updates_per_frame,
        "policy steps per update": lambda x: _inverse(x.updates_per_step),
        "frames per update": lambda x: _inverse(x.updates_per_frame),
        "total updates": lambda x: x.total_updates,
    }
    lines = [" " * 32 + "".join(f"{name:>16}" for name in columns)]
    for name, read in rows.items():
        values = [read(column) for column in columns.values()]
        cells = "".join(f"{_cell(value):>16}" for value in values)
        lines.append(f"  {name:<30}{cells}")
    return lines


def _beware(repeat: int) -> list[str]:
    smaller = f" {repeat} times smaller" if repeat > 1 else " the same here"
    notes = (
        "The paper's 'replay ratio' is train_ratio: both count policy steps."
        f" Counted in frames it is{smaller}. Others mean updates per policy"
        " step by 'replay ratio': then compare that row.",
        "Atari 100K has been published with three ratios: 1024 in the first"
        " version of paper and code, 128 in the paper now (preset"
        " atari100k_paper), 256 in the public code (preset atari100k). Atari"
        " 200M: 32 in both (preset atari200m).",
    )
    return [
        line
        for note in notes
        for line in textwrap.wrap(
            note, WIDTH, initial_indent="- ", subsequent_indent="  "
        )
    ]


def _inverse(number: Fraction) -> Fraction | None:
    return 1 / number if number else None


def _cell(number: Fraction | int | None) -> str:
    """A number with commas; '-' for none."""
    if number is None:
        return "-"
    if Fraction(number).denominator == 1 and number < 10 * LARGEST:
        return f"{int(number):,}"
    try:
        return f"{float(number):,.10g}"
    except OverflowError:  # steps per update, at a ratio next to nothing
        return "> 1e308"


def _number(number: Fraction | int) -> str:
    """A number as one types it."""
    return _cell(number).replace(",", "")


def _exactly(number: Fraction) -> str:
    """A number that `exact` reads as this one, if it is a simple one."""
    return repr(float(number)).removesuffix(".0")


if __name__ == "__main__":
    # A reader that has seen enough, as in `| head`, is no error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main(sys.argv[1:])
