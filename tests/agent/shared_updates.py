"""A program: three updates by the devices it is told, saved for comparison.

    python -m tests.agent.shared_updates OUT LAYOUT DEVICES [COORDINATOR P I]

LAYOUT is one, data or fsdp; with a coordinator, this is process I of P, each
of which gives its share of the rows.
"""

import os
import sys
import weakref

import count_work
import jax
import numpy as np

from dreamer.agent import layout as layouts
from dreamer.agent.agent import Agent
from dreamer.settings import load
from dreamer.spaces import Space

UPDATES = 3
B = 16


def batch_of(agent, rng, config):
    lead = (B, config.replay_context + config.batch_length)
    batch = {
        "image": rng.integers(0, 256, (*lead, 16, 16, 3), np.uint8),
        "reward": rng.normal(size=lead).astype(np.float32),
        "action": rng.integers(0, 6, lead, np.int32),
    }
    for flag in ("is_first", "is_last", "is_terminal"):
        batch[flag] = rng.random(lead) < 0.05
    for name, (rest, dtype) in agent.latents.items():
        batch[name] = rng.integers(0, 3, (B, *rest)).astype(dtype)
    return batch


def main(out, kind, devices, coordinator="", count="1", index="0"):
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={devices}"
    )
    jax.config.update("jax_platforms", "cpu")
    if coordinator:
        jax.distributed.initialize(coordinator, int(count), int(index))
    layouts.LEAST = 256  # the agent is small
    layout = layouts.ONE_DEVICE
    if kind != "one":
        layout = layouts.Layout(jax.devices(), kind == "fsdp")
    config = load(["--configs", "atari100k", "debug"])
    agent = Agent(
        {"image": Space("image", (16, 16, 3))},
        Space("discrete", (), 6),
        config.agent,
        dtype=np.dtype(np.float32),
        layout=layout,
    )
    state, key = agent.init(0), jax.random.key(0)
    results = {f"before/{k}": x for k, x in named(state, layout).items()}
    rng = np.random.default_rng(0)
    rows = slice(
        B * int(index) // int(count), B * (int(index) + 1) // int(count)
    )
    for update in range(UPDATES):
        batch = batch_of(agent, rng, config)
        batch = {name: x[rows] for name, x in batch.items()}
        batch, key = layout.shard_batch(batch), layout.replicate_key(key)
        if update == 0:
            compiled = agent.update.lower(state, batch, key).compile()
        state, latents, metrics = compiled(state, batch, key)
        results |= {f"metrics/{update}/{k}": x for k, x in metrics.items()}
        results |= {
            f"latents/{update}/{k}": layouts.on_host(x)
            for k, x in latents.items()
        }
    leaves = jax.tree_util.tree_leaves_with_path(state)
    held = sum(x.addressable_shards[0].data.nbytes for _, x in leaves)
    results["bytes/held"] = held
    results["bytes/all"] = sum(x.nbytes for _, x in leaves)
    results["bytes/params"] = sum(
        x.nbytes for x in jax.tree.leaves(state.params)
    )
    for name, count in count_work.count_collectives(compiled).items():
        results[f"collectives/{name}"] = count
    results |= {f"state/{k}": x for k, x in named(state, layout).items()}
    np.savez(out, **{k: np.asarray(v) for k, v in results.items()})


def named(state, layout):
    """Copies on the host, for the state is donated to the next update."""
    if layout.fsdp:
        state = one_at_a_time(layout, state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.array(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def one_at_a_time(layout, state):
    """The state on the host; no two of its arrays are whole together."""
    all_gather, made = layout._all_gather, []

    def spied(x):
        assert not any(ref() is not None for ref in made)
        whole = all_gather(x)
        made.append(weakref.ref(whole))
        return whole

    layout._all_gather = spied
    assert layout.gather_to_host(state, keep=False) is None
    sent = len(made)
    state = layout.gather_to_host(state)
    layout._all_gather = all_gather
    # As many as are divided among processes, each time.
    assert len(made) == 2 * sent
    assert (sent > 0) == (jax.process_count() > 1)
    return state


if __name__ == "__main__":
    main(*sys.argv[1:])
