"""Many runs by one command: `python -m dreamer.sweep --task all26 --seeds 5`.

`launch` expands the command line and refuses what cannot work before anything
is created or submitted, prints the plan, and starts the runs here, submits
them to Slurm or writes them down for Kubernetes. The same command again goes
on where the runs are. `status` shows a sweep's runs, `run` becomes one of
them. Next: sweeps/__init__.py for the parts.
"""

import argparse
import copy
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dreamer.command import say
from dreamer.options import ConfigError, cut, did_you_mean
from dreamer.run.ticker import Ticker
from dreamer.run.when import StopSignal, Timer
from dreamer.streams import lossy
from dreamer.sweeps import k8s, output, record, slots, slurm, table, trial
from dreamer.sweeps.estimate import Planned, Speeds, existing
from dreamer.sweeps.flags import PROGRAM, parse
from dreamer.sweeps.grid import Run, expand, planned_run
from dreamer.sweeps.local import INTERRUPTED, REFUSED, RETRIES, Local
from dreamer.sweeps.record import Record
from dreamer.sweeps.slots import Slot
from dreamer.sweeps.standing import (
    DONE,
    FAILED,
    QUEUED,
    RUNNING,
    Standing,
    look,
)

EVERY = 60.0  # seconds between two lines where there is no terminal


@dataclass(frozen=True)
class Sweep:
    """What is to be done: everything that can be refused has been.

    Attributes:
      flags: Flags of the command line, see sweeps/flags.py.
      folder: Absolute path of the sweep's folder.
      runs: Runs that the command asks for.
      slots: Shares of this machine, for `--launcher local`.
    """

    flags: argparse.Namespace
    folder: Path
    runs: list[Run]
    slots: list[Slot]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {"status": status, "run": become}
    try:
        if words and words[0] in commands:
            return commands[words[0]](words[1:])
        return launch(words)
    except (OSError, ConfigError) as error:
        say(PROGRAM, error)
        return REFUSED


def program() -> NoReturn:
    """The command: as `main`, where output that cannot go is lost."""
    sys.stdout, sys.stderr = lossy(sys.stdout), lossy(sys.stderr)
    sys.exit(main())


def launch(argv: Sequence[str]) -> int:
    """Plans a sweep, says so, and gives it to its launcher.

    Returns:
      Exit code: 0; 1 if runs failed, 75 if it was told to stop or other
      machines have some of them.
    """
    sweep = prepare(argv)
    found = record.read(sweep.folder)
    print("\n".join(describe(sweep, found, survey(sweep, found))), flush=True)
    if sweep.flags.dry_run:
        return 0
    new = record.missing(sweep.folder)
    with record.hold(sweep.folder) as held:
        if held.warning:
            print(held.warning)
        before, found = found, record.read(sweep.folder)
        if found != before:  # another command has been here since
            record.check(found, sweep.runs)
        before = copy.deepcopy(found)
        found.add(sweep.runs)
        try:
            found.write()
            todo = [
                planned.run
                for planned in survey(sweep, found)
                if planned.standing.state not in (DONE, QUEUED)
            ]
            if sweep.flags.launcher != "local":
                return submit(sweep, found, todo)
        except BaseException:
            if found.submitted == before.submitted:
                record.undo(before, new)
            raise
        return start(sweep, found, todo)


def prepare(argv: Sequence[str]) -> Sweep:
    """Looks at everything, and writes nothing.

    Raises:
      ConfigError: something asked for cannot work.
      OSError: something cannot be read.
    """
    flags, entries, changes = parse(argv)
    folder = flags.logdir.absolute()
    _check_folder(folder)
    if flags.launcher == "slurm":
        slurm.check(folder)
    if flags.launcher == "k8s":
        k8s.check(flags, entries)
    runs = expand(entries, changes, folder)
    record.check(record.read(folder), runs)
    trial.check(runs, flags.launcher)
    shares = []
    if flags.launcher == "local":
        platforms = {run.config.jax.platform for run in runs}
        shares = slots.asked_for(flags, platforms)
    return Sweep(flags, folder, runs, shares)


def _check_folder(folder: Path) -> None:
    parent = existing(folder)
    if not parent.is_dir():
        raise ConfigError(f"--logdir={folder}: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--logdir={folder}: {parent} is not writable")
    if (folder / "config.yaml").exists():
        raise ConfigError(
            f"--logdir={folder}: is the folder of a run; a sweep has one"
            " above those of its runs"
        )


def survey(sweep: Sweep, found: Record) -> list[Planned]:
    """How the runs stand."""
    queued, others = set(), (DONE, RUNNING)
    if sweep.flags.launcher == "slurm":
        queued = slurm.queued(found)
    if sweep.flags.launcher == "k8s":  # whose Job may have given up the failed
        queued, others = set(k8s.queued(found)), (DONE, RUNNING, FAILED)
    planned = []
    for run in sweep.runs:
        standing = look(Path(run.config.logdir), run.config.run.steps)
        if run.name in queued and standing.state not in others:
            standing = Standing(QUEUED, None, False, standing.values)
        planned.append(Planned(run, standing))
    return planned


def describe(
    sweep: Sweep, found: Record, planned: Sequence[Planned]
) -> list[str]:
    """The plan."""
    flags = sweep.flags
    accelerated = (
        any(slot.env for slot in sweep.slots)
        or "gpu" in (flags.gres or "")
        or (flags.launcher == "k8s" and flags.gpu_count != 0)
    )
    return table.plan(
        planned,
        Speeds(found, flags.hours),
        sweep.folder,
        at_a_time=len(sweep.slots) or flags.concurrent,
        per_gpu=(flags.per_gpu or 1) if accelerated else None,
        one_machine=flags.launcher == "local",
    )


def start(sweep: Sweep, found: Record, runs: Sequence[Run]) -> int:
    """Starts the runs on this machine and stays until they have ended."""
    retries = sweep.flags.retries
    retries = RETRIES if retries is None else retries
    line = Timer(EVERY)
    redrawn = sys.stdout is not None and sys.stdout.isatty()
    with StopSignal() as stop, Ticker() as ticker:
        local = Local(runs, found, sweep.slots, retries, ticker.print)

        def show() -> None:
            if redrawn or line.due():
                ticker.show(lambda: table.progress(local, redrawn))

        code = local.work(stop, show)
    for name, reason in local.failed.items():
        print(f"{PROGRAM}: {name}: {reason}", file=sys.stderr)
    words = f"Everything is in {sweep.folder}"
    if local.left:
        count = len(local.left)
        words = f"{count} runs are left to other machines; the same command"
        words += " looks again"
    if local.active or local.waiting:
        words = "Interrupted; the same command goes on"
    print(words)
    return code


def submit(sweep: Sweep, found: Record, runs: Sequence[Run]) -> int:
    """Gives the runs that nobody has to a cluster."""
    runs = [x for x in runs if look(Path(x.config.logdir)).state != RUNNING]
    if sweep.flags.launcher == "k8s":
        tell_left(sweep, found)
    if not runs:
        print("Nothing to submit")
        return 0
    if sweep.flags.launcher == "k8s":
        path = shlex.quote(str(k8s.submit(found, runs, sweep.flags)))
        print(f"Written: {path}\nTo start it: kubectl apply -f {path}")
        return 0
    names = [run.name for run in runs]
    job, path = slurm.submit(found, names, sweep.flags)
    print(f"Submitted: job {job}, {len(runs)} runs, by {path}")
    print(f"How it goes: python -m {PROGRAM} status {sweep.folder}")
    return 0


def tell_left(sweep: Sweep, found: Record) -> None:
    """Says how to take back runs that are left to manifests."""
    files = k8s.queued(found)
    states = {x.run.name: x.standing.state for x in survey(sweep, found)}
    left = Counter(files[x] for x, state in states.items() if state == QUEUED)
    for path, count in left.items():
        print(
            f"{count} runs are left to the Job of {path.name}; if it is over"
            f" or was never started: {k8s.release(path)}"
        )


def status(argv: Sequence[str]) -> int:
    """`status DIR`: prints how every run of a sweep is doing."""
    if len(argv) != 1 or not argv[0] or argv[0].startswith("-"):
        raise ConfigError("status: expected the folder of a sweep")
    folder = Path(argv[0]).expanduser().absolute()
    found = record.read(folder)
    if not found.runs:
        raise ConfigError(f"{folder}: holds no sweep, expected {record.FILE}")
    standings = {name: look(folder / name) for name in found.runs}
    queued, warning = set(), None
    try:
        queued = slurm.queued(found)
    except (ConfigError, OSError) as error:
        warning = f"What waits in the queue is not known: {error}"
    for name in queued:
        if standings[name].state not in (DONE, RUNNING):
            values = standings[name].values
            standings[name] = Standing(QUEUED, None, False, values)
    print("\n".join(table.rows(standings)))
    print(f"{len(standings)} runs: {table.counts(standings.values())}")
    if warning:
        print(warning, file=sys.stderr)
    return 0


def become(argv: Sequence[str]) -> int:
    """`run DIR NAME`: this process becomes a run, with its exit code.

    Returns:
      0 if the run is done already, 75 if it is going on elsewhere.
    """
    if len(argv) != 2 or not all(argv):
        raise ConfigError("run: expected the folder of a sweep and a run")
    folder, name = Path(argv[0]).expanduser().absolute(), argv[1]
    runs = record.read(folder).runs
    if name not in runs:
        raise ConfigError(
            f"{cut(name)}: no run of {folder / record.FILE}"
            f"{did_you_mean(name, runs)}"
        )
    run = planned_run(folder, name, runs[name].arguments)
    logdir = Path(run.config.logdir)
    if look(logdir, run.config.run.steps).state == DONE:
        print(f"{name}: is done")
        return 0
    file = output.open_locked(logdir)
    if file is None:
        print(f"{name}: is going on already, to be tried again later")
        return INTERRUPTED
    print(f"{name}: prints to {output.path_of(logdir)}", flush=True)
    for stream in (1, 2):
        os.dup2(file.fileno(), stream)
    os.execv(sys.executable, [sys.executable, "-m", *run.command])


if __name__ == "__main__":
    program()
