"""Steps Atari environments on more and more cores.

Read first: bench.py, which says what is measured, and bench_data.py, which
shows it.
"""

import multiprocessing
import os
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms

from dreamer.config import Config
from dreamer.envs.games import rom_name
from dreamer.envs.make import make_envs
from dreamer.envs.vector import Envs

TURN, TURNS = 0.5, 5  # seconds with a number of cores, and how often


def plain_emulator_rate(game: str, repeat: int, steps: int) -> float:
    """Policy steps per second of the bare emulator, nothing resized."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(rom_name(game)))
    actions = ale.getMinimalActionSet()
    rng = np.random.default_rng(0)
    screen = np.empty((*ale.getScreenDims(), 3), np.uint8)
    start = time.perf_counter()
    for _ in range(steps):
        action = actions[rng.integers(len(actions))]
        for _ in range(repeat):
            ale.act(action)
        ale.getScreenRGB(screen)
        if ale.game_over():
            ale.reset_game()
    return steps / (time.perf_counter() - start)


def env_rates(
    config: Config, count: int
) -> dict[int, tuple[list[float], float]]:
    """Steps environments with more and more cores, in turns.

    The main process shares their cores.

    Returns:
      By number of cores (1, 2, 4, ... and all that are usable, at most
      `count`): steps per second of each turn, and the seconds of CPU that a
      step takes in all processes, which tells more on a busy machine.
    """
    usable = sorted(os.sched_getaffinity(0))
    counts = {2**i for i in range(10)} | {len(usable)}
    counts = sorted(x for x in counts if x <= min(len(usable), count))
    found = {x: ([], []) for x in counts}
    before = {x.pid for x in multiprocessing.active_children()}
    envs = make_envs(replace(config, run=replace(config.run, envs=count)))
    try:
        envs.reset()
        workers = {x.pid for x in multiprocessing.active_children()} - before
        for turn in range(TURNS + 1):
            for cores in counts:
                for pid in (0, *workers):
                    os.sched_setaffinity(pid, usable[:cores])
                rate, cost = step_for(TURN, envs, workers)
                if turn:  # the first one warms up
                    found[cores][0].append(rate)
                    found[cores][1].append(cost)
    finally:
        os.sched_setaffinity(0, usable)
        envs.close()
    return {x: (rates, np.median(cost)) for x, (rates, cost) in found.items()}


def step_for(
    seconds: float, envs: Envs, workers: Collection[int]
) -> tuple[float, float]:
    """Random actions: steps per second, and CPU seconds per step."""
    rng, steps = np.random.default_rng(0), 0
    used, start = cpu_seconds(workers), time.perf_counter()
    while time.perf_counter() - start < seconds:
        envs.step(rng.integers(0, envs.action_space.classes, envs.num))
        steps += envs.num
    rate = steps / (time.perf_counter() - start)
    return rate, (cpu_seconds(workers) - used) / steps


def cpu_seconds(workers: Collection[int]) -> float:
    """Of this thread and these processes so far."""
    ticks = 0
    for pid in workers:
        # What follows the name, see proc(5): user and system time.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
        ticks += sum(map(int, fields.split()[11:13]))
    return time.thread_time() + ticks / os.sysconf("SC_CLK_TCK")
