#!/usr/bin/env python
"""Trains on small tasks and compares with the best and with chance.

    python scripts/prove.py                     every task, one seed each
    python scripts/prove.py recall --seeds 3    one of them, three seeds

Every task is trained by `--configs proof`, one setting for all, whose steps
are the budget. Then 100 episodes are evaluated with seeds of their own, and a
row is printed: the score beside the best possible and that of random actions,
and how far it is from the one to the other. From 90% on a task counts as
solved; where one is not, the exit code is 1. A run that is finished is not
trained again, one that was interrupted goes on.

As many runs at a time as there are cores, one core each: models so small gain
little from a second one. Next: dreamer/envs/proofs.py for the tasks,
prove_bounds.py for what they are compared with.
"""

import argparse
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

ROOT = Path(__file__).resolve().parents[1]
SOLVED = 0.9  # of the way from random to the best


@dataclass(frozen=True)
class Proof:
    """A task, and the mean scores of random actions and of the best player.

    Those of the project's own tasks and CartPole's best are exact, the others
    are measured (`python scripts/prove_bounds.py`).
    """

    needs: str
    task: str
    random: float
    best: float


PROOFS = {
    "catch": Proof("control", "gym_dreamer/Catch-v0", 1.25, 5.0),
    "recall": Proof("memory", "gym_dreamer/Recall-v0", -10 / 3, 10.0),
    "doors": Proof("delayed reward", "gym_dreamer/Doors-v0", 7 / 15, 1.0),
    "cartpole": Proof("vectors", "gym_CartPole-v1", 22.2, 500.0),
    "pendulum": Proof("continuous actions", "gym_Pendulum-v1", -1236, -138.6),
}
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
    """Trains and evaluates what the command line names; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--steps", type=int, metavar="N", help="policy steps")
    parser.add_argument("--logdir", type=Path, default="~/logdir/proof")
    arguments = parser.parse_args(argv)
    names = arguments.tasks or list(PROOFS)
    for name in names:
        if name not in PROOFS:
            parser.error(f"task is {name!r}, allowed: {', '.join(PROOFS)}")
    for option in ("seeds", "steps"):
        number = getattr(arguments, option)
        if number is not None and number < 1:
            parser.error(f"--{option} is {number}, allowed: 1 or more")
    folder = arguments.logdir.expanduser()
    cores = queue.SimpleQueue()
    for core in usable_cores():
        cores.put(core)

    def work(job: tuple[str, int]) -> Result:
        name, seed = job
        core = cores.get()
        try:
            logdir = folder / f"{name}-{seed}"
            return prove(name, seed, logdir, core, arguments.steps)
        finally:
            cores.put(core)

    print(HEADER, flush=True)
    jobs = [(x, seed) for seed in range(arguments.seeds) for x in names]
    results = []
    try:
        with ThreadPoolExecutor(cores.qsize()) as pool:
            for result in pool.map(work, jobs):
                results.append(result)
                print(result, flush=True)
    except RuntimeError as error:
        print(f"prove: {error}", file=sys.stderr)
        return 1
    return 0 if all(result.solved for result in results) else 1


def usable_cores() -> list[int]:
    """Their numbers; made-up ones where processes cannot be bound to them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def prove(
    name: str, seed: int, logdir: Path, core: int, steps: int | None = None
) -> Result:
    """Trains, if that is not done, and evaluates; the output goes to a log.

    Args:
      name: of the task.
      seed: of everything in the run.
      logdir: of the run.
      core: to run on.
      steps: policy steps, if not those of the preset.

    Raises:
      RuntimeError: a command failed; names the log.
    """
    logdir.parent.mkdir(parents=True, exist_ok=True)
    out = logdir / "eval-proof.json"
    settings = ["--configs", "proof", "--task", PROOFS[name].task]
    train = [*settings, "--seed", seed, "--logdir", logdir]
    train += ["--run.steps", steps] if steps else []
    evaluate = ["--logdir", logdir, "--envs", 1, "--out", out]
    began = time.monotonic()
    with logdir.with_suffix(".log").open("a") as log:
        run("dreamer.train", train, core, log)
        minutes = (time.monotonic() - began) / 60
        run("dreamer.evaluate", evaluate, core, log)
    found = json.loads(out.read_text())
    return Result(name, seed, found["mean"], *found["ci95"], minutes)


def run(module: str, arguments: list, core: int, log) -> None:
    """One of the project's commands, bound to a core before JAX starts."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    with subprocess.Popen(command, stdout=log, stderr=log, env=env) as process:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {core})
    if process.returncode:
        raise RuntimeError(f"{module} failed: {log.name} says why")


if __name__ == "__main__":
    sys.exit(main())
