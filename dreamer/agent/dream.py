"""What the world model sees: reconstructions, predictions, imagination.

For people to look at; nothing here is learned from.  `dream` begins with a
few observed steps and then closes its eyes: once with the actions that were
really taken, so that the prediction can be held against the truth, and once
with those of the actor.  Paper: arXiv 2301.04104v2, the figure of multi-step
predictions, 5 context images and 45 predicted ones.  Next: run/dreams.py
makes films of this.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dreamer.agent.actor_critic import imagined_rollout
from dreamer.agent.agent import Agent, Networks
from dreamer.agent.convolve import in_chunks
from dreamer.agent.rssm import State, mask
from dreamer.agent.types import Batch, Params
from dreamer.agent.world_model import WorldModel

CONTEXT = 5  # steps that are seen before the rest is predicted
LENGTH = 50  # steps at most, those among them


class Rollout(NamedTuple):
    """Imagined steps under the actor, the first of them observed.

    `images: (B, T, h, w, c) uint8` of each key.  `reward`, `value` and
    `ends`, the probability that the episode is over: (B, T) float32.
    """

    images: Batch
    reward: jax.Array
    value: jax.Array
    ends: jax.Array


class Dream(NamedTuple):
    """`truth` and `model`: (B, T, h, w, c) uint8 of each image key.

    `seen: (B, T) bool`, whether the model saw the observation of that step.
    """

    truth: Batch
    model: Batch
    seen: jax.Array
    rollout: Rollout


@functools.partial(jax.jit, static_argnames="agent")
def reconstruct(
    agent: Agent, params: Params, deter: jax.Array, stoch: jax.Array
) -> Batch:
    """Images of N states as acting and the replay hold them.

    Args:
      agent: owner of the decoder.
      params: parameters as in TrainState.
      deter: deterministic states (N, D).
      stoch: class indices (N, S).

    Returns:
      (N, h, w, c) uint8 of each image key; empty if there is none.
    """
    state = agent.stored_state(deter, stoch)
    world = agent.networks(params).world
    return _decode(world, state.deter, state.flat_stoch)


@functools.partial(jax.jit, static_argnames="agent")
def dream(agent: Agent, params: Params, batch: Batch, key: jax.Array) -> Dream:
    """Predictions for replayed sequences, at most `LENGTH` steps of them.

    Args:
      agent: agent with images among its observations.
      params: parameters as in TrainState.
      batch: batch (B, K+T, ...), as for `Agent.update`.
      key: PRNG key of all samples.
    """
    nets = agent.networks(params)
    obs, carry, prev_action = agent.split_context(batch)
    obs, prev_action = jax.tree.map(
        lambda x: x[:, :LENGTH], (obs, prev_action)
    )
    open_key, imagine_key = jax.random.split(key)
    seen = context(obs["is_first"])
    states = open_loop(nets.world, carry, obs, prev_action, seen, open_key)
    length = seen.shape[1]
    last_seen = min(CONTEXT, length) - 1
    start = jax.tree.map(lambda x: x[:, last_seen], states)
    discount = 1 - 1 / agent.config.horizon
    rollout = imagined(nets, discount, start, length, imagine_key)
    truth = {key: obs[key] for key in nets.world.decoder.images}
    model = _decode(nets.world, states.deter, states.flat_stoch)
    return Dream(truth, model, seen, rollout)


def context(is_first: jax.Array) -> jax.Array:
    """Which steps are seen: (B, T) bool, like `is_first`.

    The first `CONTEXT` steps, and as many of every episode that begins in
    between, for no model can know what it begins with.
    """
    steps = jnp.broadcast_to(jnp.arange(is_first.shape[1]), is_first.shape)
    begin = jax.lax.cummax(jnp.where(is_first, steps, 0), axis=1)
    return steps - begin < CONTEXT


def open_loop(
    world: WorldModel,
    carry: State,
    obs: Batch,
    prev_action: jax.Array,
    seen: jax.Array,
    key: jax.Array,
) -> State:
    """States of sequences of which only some steps are seen.

    Args:
      world: the model.
      carry: state before the first step, (B, ...).
      obs: observations and `is_first`, (B, T, ...).
      prev_action: action vector that led to each step, (B, T, A).
      seen: flags (B, T) bool; where true, the state is from the posterior,
        and elsewhere from the prior, whatever is in `obs`.
      key: one PRNG key.

    Returns:
      (B, T, ...).
    """
    rssm, is_first = world.rssm, obs["is_first"]
    tokens = rssm.project_tokens(world.encoder(obs))
    actions = rssm.embed_action(mask(prev_action, ~is_first))
    xs = (tokens, actions, is_first, seen)
    xs = jax.tree.map(lambda x: x.swapaxes(0, 1), xs)  # (T, B, ...)

    def step(state, x):
        (tokens, action, is_first, seen), key = x
        state, _ = rssm.observe_step(state, tokens, action, is_first, key)
        blind = rssm.prior(state.deter).sample_onehot(key)
        stoch = jnp.where(
            seen[:, None, None], state.stoch, blind.astype(state.stoch.dtype)
        )
        state = State(state.deter, stoch)
        return state, state

    keys = jax.random.split(key, is_first.shape[1])
    _, states = jax.lax.scan(step, carry, (xs, keys))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), states)


def imagined(
    nets: Networks, discount: float, start: State, length: int, key: jax.Array
) -> Rollout:
    """What the actor would do, by the world model alone.

    Args:
      nets: all modules.
      discount: factor that the continue head has learned in its target.
      start: states (B, ...), the first step of the rollout.
      length: steps T of the rollout, at least 2.
      key: one PRNG key.
    """
    world, rssm = nets.world, nets.world.rssm
    feat, _ = imagined_rollout(world, nets.actor, start, length - 1, key)
    deter, stoch = jnp.split(feat, [rssm.config.deter], -1)
    alive = world.continue_prob(feat).prob / max(discount, 1e-6)
    return Rollout(
        images=_decode(world, deter, stoch),
        reward=world.reward(feat).mean(),
        value=nets.critic(feat).mean(),
        ends=jnp.clip(1 - alive, 0, 1),
    )


def _decode(world: WorldModel, deter: jax.Array, stoch: jax.Array) -> Batch:
    """deter (..., D), stoch (..., S*C) -> (..., h, w, c) uint8 by key."""
    decoder = world.decoder
    if not decoder.images:
        return {}
    lead = deter.shape[:-1]
    rows = [x.reshape(-1, x.shape[-1]) for x in (deter, stoch)]  # (N, ...)
    pixels = in_chunks(decoder.decode_images, *rows)
    pixels = jnp.round(pixels * 255).astype(jnp.uint8)
    pixels = pixels.reshape(*lead, *pixels.shape[1:])
    return decoder.split_images(pixels)
