"""Benchmarks of what feeds and keeps: environments, replay, checkpoints.

Read first: bench.py, which says what is measured.
"""

import tempfile
import time
from pathlib import Path

import gymnasium
import numpy as np
from bench_agent import agent_for
from bench_cores import env_rates, plain_emulator_rate
from bench_table import Clock, Rows, copy_rate, row
from gymnasium import spaces

from dreamer.agent.agent import Agent
from dreamer.config import Config
from dreamer.envs.vector import Envs
from dreamer.options import ConfigError
from dreamer.replay import Positions, Replay
from dreamer.run.checkpoint import Checkpoints
from dreamer.run.driver import replay_fields
from dreamer.run.parts import is_exact
from dreamer.train_ratio import schedule

UPDATES_MS = (20, 50, 100, 400)  # from small models on fast GPUs to large


def bench_env(
    config: Config, dtype: np.dtype, update_ms: float | None = None
) -> Rows:
    """Steps per second against cores, and how many cores updates need.

    Args:
      config: Settings of an Atari game; `run.envs` is among the numbers
        measured.
      dtype: Dtype of the latents that are stored with a step.
      update_ms: Time of one update on this machine, if it is known.
    """
    plain = plain_emulator_rate(config.task_name, config.action_repeat, 3000)
    line = row("plain emulator loop, steps/s", f"{plain:,.0f}", config.task)
    rows, costs = [line], {}
    for envs in sorted({1, 2, 4, 8, 16, 32, config.run.envs}):
        for cores, (rates, cost) in env_rates(config, envs).items():
            low, rate, high = np.percentile(rates, [10, 50, 90])
            each = rate / cores
            costs[envs] = cost  # that of all cores stays
            line = row(
                f"environments {envs}, cores {cores}, steps/s",
                f"{rate:,.0f} ({low:,.0f}..{high:,.0f})",
                f"{each:,.0f} per core, {each / plain:.0%} of the plain loop;"
                f" {cost * 1e3:.2f} ms of a core per step",
                rate=rate,
                cost=cost,
            )
            rows.append(line)
    envs = max(config.run.envs, 16)
    stepping, storing = main_thread(config, dtype, envs)
    line = row(
        f"main thread, environments {envs}, us/step",
        f"{stepping * 1e6:.0f} + {storing * 1e6:.0f}",
        "stepping + storing; acting is in `policy`",
        stepping=stepping,
        storing=storing,
    )
    needs = update_needs(config, costs[envs], stepping + storing, update_ms)
    return [*rows, line, *needs]


def check_atari(config: Config) -> None:
    """Refuses a task whose environments are not measured.

    Raises:
      ConfigError: One line.
    """
    if config.suite == "gym":
        raise ConfigError(f"task={config.task}: env measures Atari games only")


def update_needs(
    config: Config, cost: float, main: float, update_ms: float | None
) -> Rows:
    """The arithmetic: policy steps per second that updates ask for.

    Args:
      config: Settings whose batch and train_ratio say how many steps an
        update takes.
      cost: Seconds of a core that a step takes.
      main: Seconds that the main thread takes for a step.
      update_ms: Measured time, to be shown beside usual ones.
    """
    each = float(schedule(config).updates_per_step)
    if not each:
        return []
    ratio = f"{config.batch_steps:,} / {config.run.train_ratio:g}"
    rows = [row("policy steps per update", f"{1 / each:g}", ratio)]
    for ms in sorted({*UPDATES_MS, *([update_ms] if update_ms else [])}):
        rate = 1e3 / ms / each
        line = row(
            f"  updates of {ms:.3g} ms need, steps/s",
            f"{rate:,.0f}",
            f"{rate * cost:.2g} busy cores, {rate * main:.1%} of one in the"
            " main thread",
            update_ms=ms,
            cores=rate * cost,
        )
        rows.append(line)
    return rows


def main_thread(
    config: Config, dtype: np.dtype, count: int
) -> tuple[float, float]:
    """Its seconds for a policy step: stepping `count` workers, and storing.

    The workers do nothing, so that they do not wait for one another.
    """
    agent, steps = agent_for(config, dtype), 1000
    image = agent.obs_spaces["image"].shape

    class Still(gymnasium.Env):  # in here, it is sent without this module
        observation_space = spaces.Dict(image=spaces.Box(0, 255, image, "u1"))
        action_space = spaces.Discrete(6)

        def reset(self, **_: object) -> tuple[dict, dict]:
            return {"image": np.zeros(image, np.uint8)}, {}

        def step(self, _: int) -> tuple[dict, float, bool, bool, dict]:
            return *self.reset()[:1], 0.0, False, False, {}

    envs = Envs([Still] * count, 0)
    try:
        envs.reset()
        start = time.thread_time()
        for _ in range(steps):
            envs.step(np.zeros(count, int))
        stepping = time.thread_time() - start
    finally:
        envs.close()
    replay = empty_replay(agent, config, steps * count, count)
    step = random_step(agent, count)
    start = time.thread_time()
    for _ in range(steps):
        replay.add(step)
    storing = time.thread_time() - start
    return stepping / steps / count, storing / steps / count


def empty_replay(
    agent: Agent, config: Config, capacity: int, envs: int = 1
) -> Replay:
    """Of some environments."""
    return Replay(
        replay_fields(agent.obs_spaces, agent.action_space),
        agent.latents,
        envs=envs,
        capacity=capacity,
        context=config.replay_context,
        length=config.batch_length,
        seed=0,
    )


def random_step(agent: Agent, envs: int = 1) -> dict[str, np.ndarray]:
    """One step of each environment, for a replay."""
    rng = np.random.default_rng(0)
    spec = replay_fields(agent.obs_spaces, agent.action_space)
    return {
        name: rng.integers(0, 2, (envs, *shape)).astype(kind)
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
        full = min(config.replay.size, config.run.steps)
        capacity = min(full, 100_000)
        replay, step = (
            empty_replay(agent, config, capacity),
            random_step(agent),
        )
        replay.exact = is_exact(config, agent.latents, full)
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
