#!/usr/bin/env python
"""Trains on small tasks and compares with the best and with chance.

    python scripts/prove.py                     every task, one seed each
    python scripts/prove.py recall --seeds 3    one of them, three seeds

Every task is trained by `--configs proof`, one setting for all, whose steps
are the budget; flags of training change it for all. Then 100 episodes are
evaluated with seeds of their own, and a row is printed: the score beside the
best possible and that of random actions, and how far it is from the one to
the other. From 90% on a task counts as solved; where one is not, the exit
code is 1. A run that is finished is not trained again, one that was
interrupted goes on: SIGTERM and Ctrl-C end all trainings, which save, and the
exit code is 75.

As many runs at a time as there are cores, one core each: models so small gain
little from a second one. Next: dreamer/envs/proofs.py for the tasks,
prove_bounds.py for what they are compared with.
"""

import argparse
import contextlib
import itertools
import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dreamer.command import Parser, say, whole_number  # noqa: E402
from dreamer.options import ConfigError, did_you_mean, shown  # noqa: E402
from dreamer.places import home  # noqa: E402
from dreamer.run.when import StopSignal  # noqa: E402
from dreamer.settings import load  # noqa: E402
from dreamer.streams import lossy  # noqa: E402
from dreamer.sweeps.slots import usable_cores  # noqa: E402

SOLVED = 0.9  # of the way from random to the best
LOGDIR = "~/logdir/proof"
FAILED, REFUSED, INTERRUPTED = 1, 2, 75  # exit codes, beside 0
PATIENCE = 0.2  # seconds between two looks at a signal


@dataclass(frozen=True)
class Proof:
    """A task, and the mean scores of random actions and of the best player.

    Those of the project's own tasks and CartPole's best are exact, the others
    are measured and rounded; `python scripts/prove_bounds.py` prints both.
    """

    needs: str
    task: str
    random: float
    best: float


PROOFS = {
    "catch": Proof("control", "gym_dreamer/Catch-v0", 1.25, 5.0),
    "recall": Proof("memory", "gym_dreamer/Recall-v1", -10 / 3, 10.0),
    "doors": Proof("delayed reward", "gym_dreamer/Doors-v0", 7 / 15, 1.0),
    "cartpole": Proof("vectors", "gym_CartPole-v1", 22.2, 500.0),
    "pendulum": Proof("continuous actions", "gym_Pendulum-v1", -1236, -138.6),
}
TABLE = "\n".join(
    f"    {name:<9} {x.needs}: {x.task}" for name, x in PROOFS.items()
)
DESCRIPTION = f"""\
Trains on small tasks, evaluates 100 episodes of each and compares with the
best possible score and with that of random actions. The tasks, of which all
are meant where none is named:

{TABLE}

All are trained by --configs proof; flags of training, such as
--jax.compute_dtype bfloat16, change it for all of them. From {SOLVED:.0%} of
the way from random to the best on, a task counts as solved. Exit codes: 0, 1
if one is not solved or failed, 2 for wrong flags, 75 after SIGTERM or Ctrl-C:
trainings save, and the same command goes on.
"""
HEADER = (
    f"{'task':<9} {'needs':<18} {'seed':>4} {'random':>9} {'score':>9}"
    f" {'from':>9} {'to':>9} {'best':>9} {'way':>6} {'minutes':>8}"
)


@dataclass(frozen=True)
class Result:
    """A row of the table: a mean score with its 95% interval."""

    name: str
    seed: int
    score: float
    low: float
    high: float
    minutes: float

    @property
    def way(self) -> float:
        """How far the score is from the random one (0) to the best (1)."""
        proof = PROOFS[self.name]
        return (self.score - proof.random) / (proof.best - proof.random)

    @property
    def solved(self) -> bool:
        """Whether that is as far as `SOLVED`."""
        return self.way >= SOLVED

    def __str__(self) -> str:
        proof = PROOFS[self.name]
        values = (proof.random, self.score, self.low, self.high, proof.best)
        numbers = " ".join(f"{value:9.2f}" for value in values)
        verdict = "solved" if self.solved else "NOT SOLVED"
        return (
            f"{self.name:<9} {proof.needs:<18} {self.seed:4} {numbers}"
            f" {self.way:6.0%} {self.minutes:8.1f}  {verdict}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and evaluates what the command line names; prints the table.

    Returns:
      An exit code: 0, FAILED, REFUSED or INTERRUPTED.
    """
    try:
        flags = parse(sys.argv[1:] if argv is None else argv)
        flags.logdir.mkdir(parents=True, exist_ok=True)
        with StopSignal() as stop:
            solved = prove_all(flags, stop)
        return 0 if solved else FAILED
    except Stopped:
        code, reason = INTERRUPTED, "interrupted; the same command goes on"
    except (OSError, ValueError) as error:
        code, reason = REFUSED, error
    say("prove", reason)
    return code


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Flags of the command line.

    Raises:
      ConfigError: something is not as it should be.
    """
    usage = "%(prog)s [TASK ...] [options] [flags of dreamer.train]"
    parser = Parser("scripts/prove.py", DESCRIPTION, usage)
    add = parser.add_argument
    count = whole_number(1, 10**9 - 1)
    about = "seeds of each, from 0 on (default: 1)"
    add("--seeds", type=count, default=1, metavar="N", help=about)
    about = f"where runs are (default: {LOGDIR})"
    add("--logdir", type=home, default=LOGDIR, metavar="DIR", help=about)
    # Words after a flag may be the value of one that training knows.
    tasks = list(itertools.takewhile(lambda x: x[:1] != "-", argv))
    flags, flags.more = parser.parse_known_args(argv[len(tasks) :])
    if flags.more and flags.more[0][:1] != "-":
        raise ConfigError(f"{shown(flags.more[0])}: expected before all flags")
    flags.tasks = tasks or list(PROOFS)
    for name in flags.tasks:
        if name not in PROOFS:
            hint = did_you_mean(name, PROOFS) or f": {', '.join(PROOFS)}"
            raise ConfigError(f"TASK {shown(name)}: no such task{hint}")
        if flags.tasks.count(name) > 1:
            raise ConfigError(f"TASK {name}: given twice")
        load(training(name, 0, flags))
    return flags


def training(name: str, seed: int, flags: argparse.Namespace) -> list[str]:
    """The arguments of `dreamer.train` for a task and a seed."""
    words = ["--configs", "proof", "--task", PROOFS[name].task]
    words += ["--seed", str(seed)]
    words += ["--logdir", str(flags.logdir / f"{name}-{seed}")]
    return words + flags.more + platform(flags)


def platform(flags: argparse.Namespace) -> list[str]:
    """The CPU, whatever there is; a person who says so gets another device.

    Trainings of one for each core would leave each other no memory of a GPU.
    """
    named = any(x.startswith("--jax.platform") for x in flags.more)
    return [] if named else ["--jax.platform", "cpu"]


def prove_all(flags: argparse.Namespace, stop: StopSignal) -> bool:
    """Every task with every seed; whether all of them are solved.

    One that fails is said, and ends no other.
    """
    cores = queue.SimpleQueue()
    for core in usable_cores():
        cores.put(core)

    def work(job: tuple[str, int]) -> Result | None:
        name, seed = job
        core = cores.get()
        try:
            return prove(name, seed, flags, stop, core)
        except RuntimeError as error:
            say("prove", error)
            return None
        finally:
            cores.put(core)

    print(HEADER, flush=True)
    jobs = [(x, seed) for seed in range(flags.seeds) for x in flags.tasks]
    solved = True
    with ThreadPoolExecutor(cores.qsize()) as pool:
        for result in pool.map(work, jobs):
            solved = solved and result is not None and result.solved
            if result is not None:
                print(result, flush=True)
    return solved


def prove(
    name: str,
    seed: int,
    flags: argparse.Namespace,
    stop: StopSignal,
    core: int,
) -> Result:
    """Trains, if that is not done, and evaluates; the output goes to a log.

    Args:
      name: Name of the task.
      seed: Seed of everything in the run.
      flags: Of the command line.
      stop: Signal that ends what runs, which saves.
      core: Number of the core to run on.

    Raises:
      RuntimeError: a command failed; names the log.
      Stopped: a signal came.
    """
    logdir = flags.logdir / f"{name}-{seed}"
    out = logdir / "eval-proof.json"
    evaluate = ["--logdir", str(logdir), "--envs", "1", "--out", str(out)]
    evaluate += platform(flags)
    began = time.monotonic()
    with logdir.with_suffix(".log").open("a") as log:
        train = training(name, seed, flags)
        run("dreamer.train", train, core, log, stop)
        minutes = (time.monotonic() - began) / 60
        run("dreamer.evaluate", evaluate, core, log, stop)
    found = json.loads(out.read_text())
    return Result(name, seed, found["mean"], *found["ci95"], minutes)


class Stopped(Exception):
    """A signal came, and what was running has ended."""


def run(
    module: str,
    arguments: Sequence[str],
    core: int,
    log: TextIO,
    stop: StopSignal,
) -> None:
    """One of the project's commands, bound to a core before JAX starts.

    Raises:
      RuntimeError: it failed; names the log.
      Stopped: a signal came; it was told to end, on which a training saves.
    """
    if stop.received:
        raise Stopped
    code = program(["-m", module, *arguments], stop, log, core)
    if stop.received or code == INTERRUPTED:
        raise Stopped
    if code:
        raise RuntimeError(f"{module} failed: {log.name} says why")


def program(
    arguments: Sequence[str],
    stop: StopSignal,
    log: TextIO | None,
    core: int | None = None,
) -> int:
    """A program of the project; its exit code, negative if a signal ended it.

    Args:
      arguments: What Python is started with.
      stop: Signal on which it is told to end, too.
      log: File that its output goes to, or None for where this one's goes.
      core: Number of the core to run on, or None for all of them.
    """
    command = [sys.executable, *arguments]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    with subprocess.Popen(command, stdout=log, stderr=log, env=env) as process:
        if core is not None and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, {core})
        while not stop.received:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(PATIENCE)
        process.terminate()
    return process.returncode


if __name__ == "__main__":
    # Hours of training are worth more than a line that nobody reads.
    sys.stdout, sys.stderr = lossy(sys.stdout), lossy(sys.stderr)
    sys.exit(main())
