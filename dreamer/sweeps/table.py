"""What a person sees of a sweep: the plan, the runs, and how they go on.

Next: `dreamer/sweep.py`, which prints it.
"""

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dreamer.options import cut
from dreamer.replay import available_ram
from dreamer.sweeps import estimate
from dreamer.sweeps.estimate import Planned, Speeds
from dreamer.sweeps.local import Local
from dreamer.sweeps.standing import (
    DONE,
    FAILED,
    QUEUED,
    RUNNING,
    STATES,
    WAITING,
    Standing,
    look,
)
from dreamer.train_ratio import schedule
from dreamer.units import duration, in_bytes

OVER = (DONE, RUNNING, QUEUED)  # for those who start runs
HEADER = ("run", "state", "policy steps", "", "steps/s", "left", "host", "")


def counts(standings: Iterable[Standing]) -> str:
    """'3 done, 2 running, 1 waiting'."""
    found = Counter(x.state for x in standings)
    words = [f"{found[x]} {x}" for x in STATES if found[x]]
    return ", ".join(words) or "none"


def rows(standings: Mapping[str, Standing]) -> list[str]:
    """A line for each run, below a header; errors stand at the end."""
    cells = [HEADER, *(_row(name, x) for name, x in standings.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        words = [
            f"{word:>{width}}" if 2 <= at <= 5 else f"{word:<{width}}"
            for at, (word, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(words).rstrip())
    return lines


def _row(name: str, standing: Standing) -> tuple[str, ...]:
    values = standing.values
    done, total = standing.policy_steps, standing.steps
    steps = f"{done:,}/{total:,}" if values else "-"
    share = f"{done / total:.0%}" if total else ""
    speed = standing.steps_per_second
    rate = f"{speed:.3g}" if speed else "-"
    going = standing.state == RUNNING and speed and total
    left = duration((total - done) / speed) if going else "-"
    host = str(values.get("host") or "-")
    error = standing.error or ""
    return name, standing.state, steps, share, rate, left, cut(host), error


def plan(
    planned: Sequence[Planned],
    speeds: Speeds,
    folder: Path,
    at_a_time: int | None,
    per_gpu: int | None,
    one_machine: bool = True,
) -> list[str]:
    """The lines that a sweep prints before it starts anything.

    Args:
      planned: Runs of the command, all of them.
      speeds: Speeds of runs in the folder.
      folder: Folder of the sweep.
      at_a_time: Number of runs at a time, if known.
      per_gpu: Number of runs that share a GPU; None where there is no GPU.
      one_machine: True if the runs at a time share the RAM of one machine.
    """
    todo = [x for x in planned if x.standing.state not in OVER]
    configs = [x.run.config for x in planned]
    gpu = per_gpu is not None
    replay = max(estimate.replay_bytes(x, gpu) for x in configs)
    ram = replay + estimate.PROGRAM_BYTES
    disk = [estimate.disk_bytes(x.run.config, gpu) for x in todo]
    free = shutil.disk_usage(estimate.existing(folder)).free
    steps = sum(x.steps_left for x in todo)
    updates = sum(_updates_left(x) for x in todo)
    several = min(at_a_time or 1, len(todo))
    together, for_all = ram * several, ""
    if one_machine and several > 1:
        for_all = f", {in_bytes(together)} for {several} at a time"
    lines = {
        "runs": f"{len(planned)}: {counts([x.standing for x in planned])};"
        f" {len(todo)} to do",
        "to do": f"{steps:,} policy steps, about {updates:,} updates",
        "time": _time(speeds, todo, at_a_time, per_gpu),
        "RAM": f"about {in_bytes(ram)} a run, {in_bytes(replay)} of it for the"
        f" replay{for_all}",
        "disk": f"about {in_bytes(sum(disk))} in {folder}"
        f" ({in_bytes(free)} are free)",
    }
    words = [f"  {key:<6} {text}" for key, text in lines.items()]
    if sum(disk) > free:
        words.append(
            f"Warning: the runs may need {in_bytes(sum(disk))} of disk in"
            f" {folder}, where {in_bytes(free)} are free; one that cannot"
            " write waits for space, and fails in the end"
        )
    if one_machine and together > (here := available_ram()):
        words.append(
            f"Warning: the runs may need {in_bytes(together)} of RAM together,"
            f" and {in_bytes(here)} are free; take fewer --jobs, or a smaller"
            " --replay.size"
        )
    return words


def _updates_left(planned: Planned) -> int:
    config = planned.run.config
    share = planned.steps_left / config.run.steps
    return round(schedule(config).total_updates * share)


def _time(
    speeds: Speeds,
    todo: Sequence[Planned],
    at_a_time: int | None,
    per_gpu: int | None,
) -> str:
    total = speeds.left(todo)
    if total is None:
        return "unknown until the first run reports; --hours H says it"
    if not todo:
        return "none"
    words = [f"about {_hours(total)} of runs"]
    if per_gpu is not None:
        words.append(f"{_hours(total / per_gpu)} of GPUs")
    if at_a_time:
        rounds = math.ceil(len(todo) / at_a_time) / len(todo)
        words.append(f"{duration(total * rounds)} at {at_a_time} at a time")
    return ", ".join(words)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.3g} hours"


def progress(local: Local, table: bool) -> str:
    """How a sweep on this machine is going.

    Args:
      local: Sweep on this machine.
      table: True for a line for each run in progress, beside the one for all.
    """
    standings = {}
    for active in local.active:
        with suppress(OSError):  # of a folder that is away for a while
            logdir = Path(active.run.config.logdir)
            standings[active.run.name] = look(logdir)
    numbers = {
        DONE: len(local.done),
        RUNNING: len(local.active),
        WAITING: len(local.waiting),
        FAILED: len(local.failed),
    }
    line = ", ".join(f"{number} {x}" for x, number in numbers.items())
    if table and standings:
        return "\n".join([*rows(standings), line])
    shares = [
        f"{name} {x.policy_steps / x.steps:.0%}"
        for name, x in standings.items()
        if x.steps
    ]
    return f"{line}  {'  '.join(shares)}".rstrip()
