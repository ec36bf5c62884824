"""Benchmarks of the agent alone: one update and its parts, one acting step.

Read first: bench.py, which says what is measured.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bench_table import Clock, Rows, matmul_peak, row
from count_work import count_collectives, count_flops, count_program

from dreamer.agent.actor_critic import imagination_loss, imagined_rollout
from dreamer.agent.agent import Agent
from dreamer.agent.layout import ONE_DEVICE, Layout, OneDevice
from dreamer.agent.returns import initial_return_range
from dreamer.agent.rssm import State
from dreamer.config import Config
from dreamer.run.device import make_layout
from dreamer.spaces import Space


def simulate(devices: int) -> None:
    """Makes as many devices of this machine's CPU, before JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    count = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{flags} {count}".strip()
    jax.config.update("jax_platforms", "cpu")


def agent_for(
    config: Config, dtype: np.dtype, layout: Layout | OneDevice = ONE_DEVICE
) -> Agent:
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
        layout=layout,
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


def update_shapes(agent: Agent, config: Config) -> tuple[Any, Any, Any]:
    """Shapes of what an update takes: state, batch and key."""
    batch, key = jax.eval_shape(
        lambda: (random_batch(agent, config), jax.random.key(0))
    )
    return agent.state_shapes, batch, key


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


def bench_devices(config: Config, dtype: np.dtype, devices: int) -> Rows:
    """One gradient update shared by 1, 2, 4, ... devices.

    Raises:
      ConfigError: there are not so many, or they cannot share the batch.
    """
    counts = [1]
    while counts[-1] * 2 <= devices:
        counts.append(counts[-1] * 2)
    counts += [devices] if counts[-1] != devices else []
    # The most first: what cannot be shared is refused before all else.
    layouts = {
        count: make_layout(
            dataclasses.replace(
                config, jax=dataclasses.replace(config.jax, devices=count)
            )
        )
        for count in reversed(counts)
    }
    rows, alone = [], 0.0
    for count in counts:
        layout = layouts[count]
        agent, key = agent_for(config, dtype, layout), jax.random.key(0)
        state, batch = agent.init(0), random_batch(agent, config)
        batch = layout.shard_batch(jax.device_get(batch))
        key = layout.replicate_key(key)
        compiled = agent.update.lower(state, batch, key).compile()

        def update(
            compiled: Callable = compiled,
            batch: dict = batch,
            key: jax.Array = key,
        ) -> Any:
            nonlocal state
            state, _, metrics = compiled(state, batch, key)
            return metrics

        clock = Clock(update, 10.0, least=5)
        alone = alone or clock.median
        speedup = alone / clock.median
        exchanged = sum(count_collectives(compiled).values())
        held = sum(
            x.addressable_data(0).nbytes for x in jax.tree.leaves(state)
        )
        rows.append(
            row(
                f"update, {count} devices, ms",
                clock.text(),
                f"{speedup:.2f} times as fast, {exchanged / 1e6:,.1f} MB"
                f" exchanged, {held / 1e6:,.1f} MB of state held",
                ms=clock.median * 1e3,
                devices=count,
                speedup=speedup,
                exchanged=exchanged,
                held=held,
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
