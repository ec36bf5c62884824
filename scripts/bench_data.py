"""Benchmarks of what feeds and keeps: environments, replay, checkpoints.

Read first: bench.py, which says what is measured.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from bench_agent import agent_for
from bench_table import Clock, Rows, copy_rate, row

from dreamer.agent.agent import Agent
from dreamer.config import Config, ConfigError
from dreamer.envs.games import rom_name
from dreamer.envs.vector import make_envs
from dreamer.replay import Positions, Replay
from dreamer.run.checkpoint import Checkpoints
from dreamer.run.driver import replay_fields


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


def bench_env(config: Config, _: np.dtype) -> Rows:
    """Steps per second of the Atari environment beside the emulator alone."""
    if config.suite == "gym":
        raise ConfigError(f"task={config.task}: env measures Atari games only")
    steps, rows = 3000, []
    plain = plain_emulator_rate(config.task_name, config.action_repeat, steps)
    rows.append(
        row("plain emulator loop, steps/s", f"{plain:,.0f}", config.task)
    )
    for count in sorted({1, config.run.envs, 4}):
        run = replace(config.run, envs=count)
        envs = make_envs(replace(config, run=run))
        envs.reset()
        rng = np.random.default_rng(0)
        actions = rng.integers(0, envs.action_space.classes, (steps, count))
        start = time.perf_counter()
        for action in actions:
            envs.step(action)
        rate = steps * count / (time.perf_counter() - start)
        envs.close()
        rows.append(
            row(
                f"{count} environments, steps/s",
                f"{rate:,.0f}",
                f"{rate / plain:.0%} of the plain loop",
                rate=rate,
            )
        )
    return rows


def empty_replay(agent: Agent, config: Config, capacity: int) -> Replay:
    """Of one environment."""
    return Replay(
        replay_fields(agent.obs_spaces, agent.action_space),
        agent.latents,
        envs=1,
        capacity=capacity,
        context=config.replay_context,
        length=config.batch_length,
        seed=0,
    )


def random_step(agent: Agent) -> dict[str, np.ndarray]:
    """One step of one environment, for a replay."""
    rng = np.random.default_rng(0)
    spec = replay_fields(agent.obs_spaces, agent.action_space)
    return {
        name: rng.integers(0, 2, (1, *shape)).astype(kind)
        for name, (shape, kind) in (spec | agent.latents).items()
    }


def bench_replay(config: Config, dtype: np.dtype) -> Rows:
    """Adding steps and gathering batches."""
    rate = copy_rate()
    rows = [row("memory copy", f"{rate / 1e9:.1f} GB/s", "read and written")]
    agent, capacity = agent_for(config, dtype), 20_000
    replay = empty_replay(agent, config, capacity)
    step = random_step(agent)
    start = time.perf_counter()
    for _ in range(capacity):
        replay.add(step)
    seconds = time.perf_counter() - start
    rows.append(row("inserts per second", f"{capacity / seconds:,.0f}"))

    def gather() -> dict:
        return replay.gather(replay.draw(config.batch_size))

    size = sum(x.nbytes for x in gather().values())
    clock = Clock(gather, 2.0)
    moved = 2 * size / clock.median
    length = config.replay_context + config.batch_length
    shape = f"{config.batch_size}x{length}"
    rows += [
        row(
            f"batches of {shape} per second",
            f"{1 / clock.median:,.0f}",
            f"{moved / 1e9:.1f} GB/s, {moved / rate:.0%} of the copy",
            ms=clock.median * 1e3,
        ),
        row(
            "replay bytes per step",
            f"{replay.bytes_per_step:,}",
            bytes=replay.bytes_per_step,
        ),
    ]
    return rows


def refresh_latents(replay: Replay, agent: Agent, config: Config) -> None:
    """Writes new latents to (nearly) all steps, as training does in time."""
    length = config.batch_length
    start = np.arange(0, len(replay) - length - config.replay_context, length)
    positions = Positions(np.zeros_like(start), start)
    lead = (len(start), length)
    latents = {
        name: np.ones((*lead, *shape), kind)
        for name, (shape, kind) in agent.latents.items()
    }
    replay.write_back(positions, latents)


def bench_save(config: Config, dtype: np.dtype) -> Rows:
    """A checkpoint of a full replay: what it holds up, and coming back."""
    agent = agent_for(config, dtype)
    state = agent.init(0)
    with tempfile.TemporaryDirectory() as folder:
        capacity = min(config.replay.size, config.run.steps, 100_000)
        replay, step = (
            empty_replay(agent, config, capacity),
            random_step(agent),
        )
        for _ in range(capacity):
            replay.add(step)
        checkpoints = Checkpoints(Path(folder))
        rows = []
        for count, what in enumerate(("all new", "all latents new")):
            refresh_latents(replay, agent, config)
            paused, start = checkpoints.paused, time.perf_counter()
            checkpoints.save(count, state, replay, {}, {})
            paused = checkpoints.paused - paused
            checkpoints.wait()
            seconds = time.perf_counter() - start
            share = paused / config.run.save_every
            rows.append(
                row(
                    f"checkpoint, {what}, s",
                    f"{seconds:.2f}",
                    f"training is held up for {paused:.2f} s = {share:.3%}"
                    f" of {config.run.save_every:g} s",
                    seconds=seconds,
                    paused=paused,
                )
            )
        checkpoints.close()
        size = sum(
            x.stat().st_size for x in Path(folder).rglob("*") if x.is_file()
        )
        replay = empty_replay(agent, config, capacity)
        start = time.perf_counter()
        Checkpoints(Path(folder)).restore(state, replay)
        seconds = time.perf_counter() - start
        rows.append(
            row(
                "resume, s",
                f"{seconds:.2f}",
                f"{len(replay):,} steps; {size / 1e9:.2f} GB on disk",
                seconds=seconds,
            )
        )
    return rows
