"""The smallest agents and batches that still have every part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dreamer.agent.agent import Agent
from dreamer.hyperparameters import AgentConfig
from dreamer.spaces import Space

MIXED = {
    "camera": Space("image", (16, 16, 3)),
    "depth": Space("image", (16, 16, 1)),
    "position": Space("vector", (3,)),
    "inventory": Space("discrete", (2,), 4),
    "weapon": Space("discrete", (), 5),
}
VECTOR = {"position": Space("vector", (3,))}
BUTTONS = Space("discrete", (), 4)
JOINTS = Space("continuous", (2,))

SIZES = {
    "dyn.rssm.deter": 16,
    "dyn.rssm.hidden": 8,
    "dyn.rssm.stoch": 3,
    "dyn.rssm.classes": 4,
    "dyn.rssm.blocks": 2,
    "enc.simple.depth": 2,
    "enc.simple.units": 8,
    "enc.simple.layers": 1,
    "dec.simple.depth": 2,
    "dec.simple.units": 8,
    "dec.simple.layers": 1,
    "rewhead.units": 8,
    "rewhead.bins": 11,
    "conhead.units": 8,
    "policy.units": 8,
    "policy.layers": 1,
    "value.units": 8,
    "value.layers": 1,
    "value.bins": 11,
    "imag_length": 3,
}


def changed(config, changes):
    """A frozen dataclass with values replaced, keys being dotted paths."""
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        if rest:
            value = changed(getattr(config, name), {rest: value})
        config = dataclasses.replace(config, **{name: value})
    return config


def tiny_config(changes=None):
    return changed(AgentConfig(), SIZES | (changes or {}))


def tiny_agent(
    obs=VECTOR, action=BUTTONS, changes=None, dtype=jnp.float32, context=1
):
    config = tiny_config(changes)
    return Agent(obs, action, config, dtype=dtype, context=context)


def draw(space, lead, rng):
    """Random values of a space, (*lead, *shape)."""
    shape = (*lead, *space.shape)
    if space.kind == "image":
        return rng.integers(0, 256, shape, np.uint8)
    if space.kind == "discrete":
        return rng.integers(0, space.classes, shape, np.int32)
    return rng.uniform(-1, 1, shape).astype(np.float32)


def tiny_batch(agent, batch=2, length=4, seed=0):
    """A replayed batch (B, K+T, ...) with an episode's end in it."""
    rng = np.random.default_rng(seed)
    lead = (batch, agent.context + length)
    data = {k: draw(s, lead, rng) for k, s in agent.obs_spaces.items()}
    data["action"] = draw(agent.action_space, lead, rng)
    data["reward"] = rng.normal(size=lead).astype(np.float32)
    for key in ("is_first", "is_last", "is_terminal"):
        data[key] = np.zeros(lead, bool)
    data["is_first"][:, 0] = True
    data["is_last"][0, 2] = data["is_terminal"][0, 2] = True
    data["is_first"][0, 3] = True
    rssm = agent.config.dyn.rssm
    deter = rng.uniform(-1, 1, (batch, rssm.deter))
    data["deter"] = deter.astype(agent.latents["deter"][1])
    stoch = rng.integers(0, rssm.classes, (batch, rssm.stoch))
    data["stoch"] = stoch.astype(agent.latents["stoch"][1])
    return {k: jnp.asarray(v) for k, v in data.items()}


def awake(params, seed=1):
    """Parameters with noise on all of them, so that nothing starts at 0."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    noise = [rng.normal(0, 0.3, x.shape).astype(np.float32) for x in leaves]
    noisy = [x + n for x, n in zip(leaves, noise, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def use_argmax(monkeypatch):
    """Makes every categorical sample the arg-max of its logits."""
    monkeypatch.setattr(
        jax.random, "categorical", lambda key, x, axis=-1: jnp.argmax(x, axis)
    )
