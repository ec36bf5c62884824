"""Measures the agent beside the limits of the machine it runs on.

    python scripts/bench.py update --configs size12m
    python scripts/bench.py all --json bench.json

What: `update`, `policy`, `replay`, `env`, `startup`, `run` or `all`; then
presets and flags as in training, and `--json FILE`.  Every time is a median
over repeats after a warm-up, with its spread (10th to 90th percentile).  The
same run measures a large matrix product in the compute dtype, a memory copy
and a plain emulator loop, and results are shown as a share of those, so that
figures of different machines can be compared.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from ale_py import ALEInterface, LoggerMode, roms  # noqa: E402
from count_work import count_flops, count_program  # noqa: E402

from dreamer.agent.actor_critic import (  # noqa: E402
    imagination_loss,
    imagined_rollout,
)
from dreamer.agent.agent import Agent  # noqa: E402
from dreamer.agent.returns import initial_return_range  # noqa: E402
from dreamer.agent.rssm import State  # noqa: E402
from dreamer.config import Config, ConfigError, load_or_exit  # noqa: E402
from dreamer.envs.games import rom_name  # noqa: E402
from dreamer.envs.vector import make_envs  # noqa: E402
from dreamer.replay import Replay  # noqa: E402
from dreamer.run.device import select_device  # noqa: E402
from dreamer.run.state import Run  # noqa: E402
from dreamer.spaces import Space  # noqa: E402

Rows = list[dict[str, Any]]


class Clock:
    """Repeats something and keeps median and spread, in seconds."""

    def __init__(
        self, action: Callable[[], Any], seconds: float = 5.0, least: int = 3
    ) -> None:
        jax.block_until_ready(action())
        times: list[float] = []
        start = time.perf_counter()
        while len(times) < least or (
            time.perf_counter() - start < seconds and len(times) < 2000
        ):
            before = time.perf_counter()
            jax.block_until_ready(action())
            times.append(time.perf_counter() - before)
        self.low, self.median, self.high = np.percentile(times, [10, 50, 90])
        self.repeats = len(times)

    def text(self, unit: float = 1e3) -> str:
        """Median and spread, in milliseconds unless told."""
        low, middle, high = (
            f"{x * unit:.3g}" for x in (self.low, self.median, self.high)
        )
        return f"{middle} ({low}..{high})"


def row(what: str, value: str, beside: str = "", **numbers: Any) -> dict:
    """One line of the table; `numbers` go to the JSON file."""
    print(f"{what:36} {value:>26}  {beside}", flush=True)
    return {"what": what, "value": value, "beside": beside, **numbers}


# Limits of the machine


def matmul_peak(dtype: np.dtype) -> float:
    """Operations per second of a large matrix product on random data."""
    size = 8192 if jax.default_backend() != "cpu" else 2048
    x, y = (
        jax.random.normal(jax.random.key(i), (size, size)).astype(dtype)
        for i in (0, 1)
    )
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / Clock(lambda: product(x, y), 2.0).low


def copy_rate() -> float:
    """Bytes per second read and written by a large copy on the host."""
    source = np.random.default_rng(0).random(2**25)  # 256 MB
    target = np.empty_like(source)

    def copy() -> None:
        np.copyto(target, source)

    return 2 * source.nbytes / Clock(copy, 1.0).low


# The agent


def agent_for(config: Config, dtype: np.dtype) -> Agent:
    """An agent for Pong's spaces at the task's image size, no emulator."""
    settings = getattr(config.env, config.suite)
    gray = getattr(settings, "gray", False)
    image = Space("image", (*settings.size, 1 if gray else 3))
    return Agent(
        {"image": image},
        Space("discrete", (), 6),
        config.agent,
        dtype=dtype,
        context=config.replay_context,
    )


def random_batch(agent: Agent, config: Config) -> dict[str, jax.Array]:
    """A replay batch of random contents, on the device."""
    rng = np.random.default_rng(0)
    lead = (
        config.batch_size,
        config.replay_context + config.batch_length,
    )
    shape = agent.obs_spaces["image"].shape
    batch = {
        "image": rng.integers(0, 256, (*lead, *shape), np.uint8),
        "reward": rng.normal(size=lead).astype(np.float32),
        "action": rng.integers(0, 6, lead, np.int32),
    }
    for flag in ("is_first", "is_last", "is_terminal"):
        batch[flag] = rng.random(lead) < 0.01
    for name, (rest, dtype) in agent.latents.items():
        batch[name] = np.zeros((config.batch_size, *rest), dtype)
    return jax.device_put(batch)


def bench_update(config: Config, dtype: np.dtype) -> Rows:
    """One gradient update, whole and in parts."""
    peak = matmul_peak(dtype)
    rows = [row("matrix product", f"{peak / 1e9:,.0f} GFLOP/s", f"{dtype}")]
    agent, key = agent_for(config, dtype), jax.random.key(0)
    state, batch = agent.init(0), random_batch(agent, config)
    flops = count_flops(agent.update, state, batch, key)
    compiled = agent.update.lower(state, batch, key).compile()
    program = count_program(compiled)

    def update() -> Any:
        nonlocal state
        state, _, metrics = compiled(state, batch, key)
        return metrics

    clock = Clock(update, 20.0, least=5)
    rate = flops / clock.median
    rows += [
        row(
            "update, ms",
            clock.text(),
            f"{rate / 1e9:,.0f} GFLOP/s, {rate / peak:.0%} of the product",
            ms=clock.median * 1e3,
            share=rate / peak,
        ),
        row("  operations, GFLOP", f"{flops / 1e9:,.1f}", "", flops=flops),
        row(
            "  device memory beside state, MB",
            f"{program['temp_bytes'] / 1e6:,.0f}",
            "XLA's memory analysis",
            **program,
        ),
    ]
    for name, part, args in update_parts(agent, config, state.params, batch):
        flops = count_flops(part, *args)
        compiled_part = jax.jit(part).lower(*args).compile()

        def run(part: Callable = compiled_part, args: tuple = args) -> Any:
            return part(*args)

        clock = Clock(run, 5.0)
        rate = flops / clock.median
        rows.append(
            row(
                f"  {name}, ms",
                clock.text(),
                f"{flops / 1e9:,.1f} GFLOP, {rate / peak:.0%}",
                ms=clock.median * 1e3,
                flops=flops,
            )
        )
    return rows


def update_parts(
    agent: Agent, config: Config, params: dict, batch: dict
) -> list[tuple[str, Callable, tuple]]:
    """Parts of an update with their gradients, on inputs of right shapes."""
    rssm = config.agent.dyn.rssm
    count, key = config.batch_steps, jax.random.key(0)
    lead = (config.batch_size, config.batch_length)
    horizon = config.agent.imag_length
    deter = jax.random.normal(key, (count, rssm.deter)).astype(agent.dtype)
    index = jax.random.randint(key, (count, rssm.stoch), 0, rssm.classes)
    stoch = jax.nn.one_hot(index, rssm.classes, dtype=agent.dtype)
    start = State(deter, stoch)
    obs, carry, action = agent.split_context(batch)
    flat = {k: x.reshape(-1, *x.shape[2:]) for k, x in obs.items()}
    tokens = jnp.zeros((*lead, agent.networks(params).world.encoder.width))
    tokens = tokens.astype(agent.dtype)
    repeated = jnp.repeat(start.feat[:, None], horizon + 1, 1)
    actions = jnp.zeros((count, horizon), jnp.int32)

    def encoder(p: dict) -> jax.Array:
        tokens = agent.networks(p).world.encoder(obs)
        return (tokens.astype(jnp.float32) ** 2).mean()

    def observe(p: dict, tokens: jax.Array) -> jax.Array:
        states, posterior = agent.networks(p).world.rssm.observe(
            carry, tokens, action, obs["is_first"], key
        )
        feat = states.feat.astype(jnp.float32)
        return (feat**2).mean() + posterior.log_probs.mean()

    def decoder(p: dict, start: State) -> jax.Array:
        decode = agent.networks(p).world.decoder
        losses = decode.loss(start.deter, start.flat_stoch, flat)
        return losses["image"].mean()

    def imagine(p: dict) -> tuple:
        nets = agent.networks(p)
        return imagined_rollout(nets.world, nets.actor, start, horizon, key)

    def heads(p: dict) -> jax.Array:
        nets = agent.networks(p)
        frozen = agent.networks(jax.lax.stop_gradient(p))
        losses, *_ = imagination_loss(
            frozen.world,
            nets.actor,
            nets.critic,
            frozen.critic,
            config.agent,
            repeated,
            actions,
            initial_return_range(),
        )
        return losses["policy"] + losses["value"]

    def optimiser(p: dict, opt_state: Any) -> tuple:
        return agent.optimizer.update(p, opt_state, p)

    return [
        ("encoder", jax.grad(encoder), (params,)),
        ("observe scan", jax.grad(observe, (0, 1)), (params, tokens)),
        ("decoder", jax.grad(decoder, (0, 1)), (params, start)),
        ("imagination", imagine, (params,)),
        ("heads and losses", jax.grad(heads), (params,)),
        ("optimiser", optimiser, (params, agent.optimizer.init(params))),
    ]


def bench_policy(config: Config, dtype: np.dtype) -> Rows:
    """One acting step, from NumPy observation to NumPy action."""
    agent, key = agent_for(config, dtype), jax.random.key(0)
    params = agent.init(0).params
    rows = []
    for envs in (1, 16):
        shape = agent.obs_spaces["image"].shape
        obs = {
            "image": np.zeros((envs, *shape), np.uint8),
            "is_first": np.zeros(envs, bool),
        }
        carry = agent.initial_carry(envs)

        def act(obs: dict = obs, start: Any = carry) -> np.ndarray:
            _, action = agent.policy(params, start, obs, key, np.uint32(0))
            return np.asarray(action)

        clock = Clock(act)
        rows.append(
            row(
                f"acting step, {envs} environments, ms",
                clock.text(),
                ms=clock.median * 1e3,
            )
        )
    return rows


def bench_replay(config: Config, dtype: np.dtype) -> Rows:
    """Adding steps and gathering batches."""
    rate = copy_rate()
    rows = [row("memory copy", f"{rate / 1e9:.1f} GB/s", "read and written")]
    agent = agent_for(config, dtype)
    fields = {
        "image": (agent.obs_spaces["image"].shape, np.dtype(np.uint8)),
        "reward": ((), np.dtype(np.float32)),
        "action": ((), np.dtype(np.int32)),
    }
    for flag in ("is_first", "is_last", "is_terminal"):
        fields[flag] = ((), np.dtype(np.bool_))
    capacity = 20_000
    length = config.batch_length
    replay = Replay(
        fields, agent.latents, 1, capacity, config.replay_context, length, 0
    )
    step = {
        name: np.ones((1, *shape), kind)
        for name, (shape, kind) in (fields | agent.latents).items()
    }
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
    shape = f"{config.batch_size}x{config.replay_context + length}"
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


# Environments, start-up, the whole


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


# What a child process runs: the way to the first update, with marks.
PHASES = """
import json, sys, time
start = time.perf_counter()
from dreamer.config import load
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
with state.Run(load(sys.argv[1:])) as run:
    built = time.perf_counter()
    while not run.updates:
        run.act()
        run.learn()
    run.wait()
    done = time.perf_counter()
parts = imports - start, environments, built - imports - environments
print(json.dumps([*parts, done - built]))
"""


def bench_startup(config: Config, _: np.dtype, argv: Sequence[str]) -> Rows:
    """From the command to the first update, cold and with a warm cache."""
    names = "imports", "environments", "initialisation", "compilation"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, PYTHONPATH=str(ROOT))
        env["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/cache"
        for state in ("cold", "warm cache"):
            logdir = ["--logdir", f"{folder}/{state.split()[0]}"]
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", PHASES, *argv, *logdir],
                env=env,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            total = time.perf_counter() - start
            parts = json.loads(done.stdout.splitlines()[-1])
            split = ", ".join(
                f"{name} {seconds:.1f}"
                for name, seconds in zip(names, parts, strict=True)
            )
            rows.append(
                row(
                    f"first update, {state}, s",
                    f"{total:.1f}",
                    f"{split}, first steps included",
                    seconds=total,
                )
            )
    return rows


def bench_run(config: Config, dtype: np.dtype) -> Rows:
    """A slice of training with everything in it, after the first updates."""
    del dtype
    with tempfile.TemporaryDirectory() as logdir:
        config = replace(config, logdir=logdir)
        with Run(config) as run:
            return _run_slice(run)


def _run_slice(run: Run, updates: int = 5, seconds: float = 30.0) -> Rows:
    def turn_until(count: int, deadline: float) -> None:
        while run.updates < count or time.perf_counter() < deadline:
            run.act()
            run.learn()

    turn_until(3, 0.0)  # compiles
    run.wait()
    alone = time.perf_counter()
    for _ in range(updates):
        run.learner.update()
    run.wait()
    alone = (time.perf_counter() - alone) / updates
    begin, steps = time.perf_counter(), run.policy_steps
    done, waited = run.updates, run.learner.waited
    turn_until(done + updates, begin + seconds)
    run.wait()
    wall = time.perf_counter() - begin
    done, waited = run.updates - done, run.learner.waited - waited
    steps, busy = run.policy_steps - steps, done * alone / wall
    return [
        row("policy steps per second", f"{steps / wall:,.1f}"),
        row(
            "updates per second",
            f"{done / wall:,.2f}",
            f"{busy:.0%} of the time is that of updates alone",
            busy=busy,
        ),
        row("waiting for data", f"{waited / wall:.2%}", "of the wall time"),
    ]


BENCHES = {
    "update": bench_update,
    "policy": bench_policy,
    "replay": bench_replay,
    "env": bench_env,
    "startup": bench_startup,
    "run": bench_run,
}


def main(argv: list[str]) -> int:
    """Command line; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    what, *rest = argv
    if what != "all" and what not in BENCHES:
        allowed = ", ".join([*BENCHES, "all"])
        print(f"bench: {what!r} is not one of {allowed}", file=sys.stderr)
        return 2
    path = None
    if "--json" in rest:
        at = rest.index("--json")
        if at + 1 == len(rest):
            print("bench: --json needs a file", file=sys.stderr)
            return 2
        path = Path(rest[at + 1])
        rest = rest[:at] + rest[at + 2 :]
    if "--configs" not in rest:
        rest = ["--configs", "atari100k", "size1m", *rest]
    config = load_or_exit(rest, "bench")
    try:
        dtype = select_device(config.jax)
        device = jax.devices()[0].device_kind
        print(f"{device}, {os.cpu_count()} cores, JAX {jax.__version__},")
        print(f"{' '.join(rest)}, {dtype}; median (10%..90%)\n")
        results: dict[str, Any] = {
            "device": device,
            "cores": os.cpu_count(),
            "jax": jax.__version__,
            "dtype": str(dtype),
            "arguments": rest,
        }
        for name in BENCHES if what == "all" else [what]:
            print(f"[{name}]")
            extra = (rest,) if name == "startup" else ()
            results[name] = BENCHES[name](config, dtype, *extra)
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if path:
        path.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
