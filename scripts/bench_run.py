"""Benchmarks of whole runs: the way to the first update, a slice of training.

Read first: bench.py, which says what is measured.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from bench_table import Rows, row

from dreamer.config import Config
from dreamer.options import ConfigError
from dreamer.replay.background import done
from dreamer.run.learner import Learner
from dreamer.run.state import Run

ROOT = Path(__file__).resolve().parents[1]

# What a child process runs: the way to the first update, with marks.
PHASES = """
import json, resource, sys, time
start = time.perf_counter()
from dataclasses import replace
from dreamer.settings import load
from dreamer.run import state
imports = time.perf_counter()
make_envs, environments = state.make_envs, 0.0
def timed(config):
    global environments
    begin = time.perf_counter()
    envs = make_envs(config)
    environments = time.perf_counter() - begin
    return envs
state.make_envs = timed
config = replace(load(sys.argv[2:]), logdir=sys.argv[1])
with state.Run(config) as run:
    built = time.perf_counter()
    while not run.updates:
        run.act()
        run.learn()
    run.wait()
    done = time.perf_counter()
parts = imports - start, environments, built - imports - environments
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([*parts, done - built, peak]))
"""


def bench_startup(config: Config, _: np.dtype, argv: Sequence[str]) -> Rows:
    """From the command to the first update, cold and with a warm cache."""
    names = "imports", "environments", "initialisation", "compilation"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, PYTHONPATH=str(ROOT))
        env["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/cache"
        for state in ("cold", "warm cache"):
            logdir = f"{folder}/{state.split()[0]}"
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", PHASES, logdir, *argv],
                env=env,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                line = done.stderr.rstrip().rpartition("\n")[2]
                kind, _, reason = line.partition(": ")
                if kind.endswith("ConfigError"):
                    raise ConfigError(reason)
                raise RuntimeError(line)
            total = time.perf_counter() - start
            *parts, peak = json.loads(done.stdout.splitlines()[-1])
            split = ", ".join(
                f"{name} {seconds:.1f}"
                for name, seconds in zip(names, parts, strict=True)
            )
            # Of compiling, the update, acting and the replay so far.
            peak *= 1 if sys.platform == "darwin" else 1024
            rows += [
                row(
                    f"first update, {state}, s",
                    f"{total:.1f}",
                    f"{split}, first steps included",
                    seconds=total,
                ),
                row(
                    "  peak RAM of that process, GB",
                    f"{peak / 1e9:.2f}",
                    bytes=peak,
                ),
            ]
    return rows


def bench_run(config: Config, dtype: np.dtype) -> Rows:
    """A slice of training with everything in it, after the first updates."""
    del dtype
    with tempfile.TemporaryDirectory() as logdir:
        config = replace(config, logdir=logdir)
        with Run(config) as run:
            return _run_slice(run)


def check_trains(config: Config) -> None:
    """Refuses settings of which no update would ever come.

    Raises:
      ConfigError: One line.
    """
    if not config.run.train_ratio:
        raise ConfigError("run.train_ratio=0: expected one that trains")


def _run_slice(run: Run, updates: int = 5, seconds: float = 30.0) -> Rows:
    def turn_until(count: int, deadline: float) -> None:
        while run.updates < count or time.perf_counter() < deadline:
            run.act()
            run.learn()

    turn_until(3, 0.0)  # compiles
    run.wait()
    with Busy(run.learner) as busy:
        begin, steps = time.perf_counter(), run.policy_steps
        done, waited = run.updates, run.learner.waited
        turn_until(done + updates, begin + seconds)
        run.wait()
        wall = time.perf_counter() - begin
    done, waited = run.updates - done, run.learner.waited - waited
    steps, share = run.policy_steps - steps, busy.seconds / wall
    return [
        row("policy steps per second", f"{steps / wall:,.1f}"),
        row(
            "updates per second",
            f"{done / wall:,.2f}",
            f"in {share:.0%} of the wall time the device computes one",
            busy=share,
        ),
        row("waiting for data", f"{waited / wall:.2%}", "of the wall time"),
    ]


class Busy:
    """Measures for how long a device computes updates, while it is entered.

    A thread waits for each update's results. An update begins when it is
    dispatched or when the one before it is done, whichever is later.

    Attributes:
      seconds: so far.
    """

    def __init__(self, learner: Learner) -> None:
        self.seconds = 0.0
        self._learner = learner
        self._dispatched: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        program = self._learner._program.result()

        def watched(*args: Any) -> Any:
            begin = time.perf_counter()
            results = program(*args)
            self._dispatched.put((begin, results[1]))
            return results

        self._before = self._learner._program
        self._learner._program = done(watched)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._learner._program = self._before
        self._dispatched.put(None)
        self._thread.join()

    def _watch(self) -> None:
        done = 0.0
        while (update := self._dispatched.get()) is not None:
            begin, latents = update
            jax.block_until_ready(latents)
            now = time.perf_counter()
            self.seconds += now - max(begin, done)
            done = now
