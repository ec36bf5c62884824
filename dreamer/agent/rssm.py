"""Recurrent state-space model: the block-GRU core, prior and posterior.

Paper: arXiv 2301.04104v2, "World model learning" (equations 3 and 5) and the
methods' "Model architecture" (block-diagonal recurrent weights).  `deter` is
the deterministic state, `stoch` the stochastic one, S categoricals of C
classes.  Next: world_model.py, which turns these states into losses;
observe_scan.py, the loop that `RSSM.observe` runs, and its gradient.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from dreamer.agent.distributions import Categorical
from dreamer.agent.networks import (
    MLP,
    BlockLinear,
    Dense,
    DType,
    Init,
    Linear,
    RMSNorm,
    SplitLinear,
)
from dreamer.agent.observe_scan import observe_scan
from dreamer.hyperparameters import RSSMConfig


class State(NamedTuple):
    """`deter: (..., D)` and one-hot `stoch: (..., S, C)`, compute dtype."""

    deter: jax.Array
    stoch: jax.Array

    @property
    def flat_stoch(self) -> jax.Array:
        return self.stoch.reshape(*self.stoch.shape[:-2], -1)  # (..., S*C)

    @property
    def feat(self) -> jax.Array:
        """What the heads see: [deter, flat stoch], (..., D + S*C)."""
        return jnp.concatenate([self.deter, self.flat_stoch], -1)

    def reset(self, is_first: jax.Array) -> "State":
        """Zeroes (B, ...) where an episode begins, is_first (B,)."""
        return State(*(mask(x, ~is_first) for x in self))


class RSSM(nnx.Module):
    """Core, posterior and prior; all time loops are in here."""

    def __init__(
        self,
        config: RSSMConfig,
        action_width: int,
        token_width: int,
        *,
        dtype: DType,
        init: Init,
    ):
        c, kw = config, dict(dtype=dtype, init=init)
        self.config, self.dtype = config, dtype
        stoch = c.stoch * c.classes
        self.deter_in = Dense(c.deter, c.hidden, **kw)
        self.stoch_in = Dense(stoch, c.hidden, **kw)
        self.action_in = Dense(action_width, c.hidden, **kw)
        inputs = c.deter + 3 * c.hidden * c.blocks
        self.mix = BlockLinear(inputs, c.deter, c.blocks, **kw)
        self.mix_norm = RMSNorm(c.deter, **kw)
        self.gates = BlockLinear(c.deter, 3 * c.deter, c.blocks, **kw)
        widths = (c.deter, token_width, c.hidden)
        self.posterior_in = SplitLinear(*widths, **kw)
        self.posterior_norm = RMSNorm(c.hidden, **kw)
        self.posterior_out = Linear(c.hidden, stoch, **kw)
        self.prior_mlp = MLP(c.deter, c.hidden, 2, **kw)
        self.prior_out = Linear(c.hidden, stoch, **kw)

    def embed_action(self, action: jax.Array) -> jax.Array:
        """Action vector (..., A) -> (..., hidden); |a| > 1 is scaled to 1."""
        limit = jnp.maximum(1.0, jnp.abs(action))
        return self.action_in(action / jax.lax.stop_gradient(limit))

    def core(self, state: State, embedded_action: jax.Array) -> jax.Array:
        """One step of the block-GRU: next deter (B, D)."""
        batch, g = len(state.deter), self.config.blocks
        x = [self.deter_in(state.deter), self.stoch_in(state.flat_stoch)]
        x = jnp.concatenate([*x, embedded_action], -1)  # (B, 3*hidden)
        deter = state.deter.reshape(batch, g, -1)  # (B, G, D/G)
        x = self.mix(deter, shared=x).reshape(batch, -1)
        x = jax.nn.silu(self.mix_norm(x))  # (B, D)
        x = self.gates(x.reshape(batch, g, -1))  # (B, G, 3*D/G)
        reset, cand, update = jnp.split(x, 3, -1)  # (B, G, D/G) each
        cand = jnp.tanh(jax.nn.sigmoid(reset) * cand)
        update = jax.nn.sigmoid(update - 1)  # starts out keeping the past
        deter = update * cand + (1 - update) * deter
        return deter.reshape(batch, -1)

    def posterior(
        self, deter: jax.Array, projected_tokens: jax.Array
    ) -> Categorical:
        """q(stoch | deter, tokens): (B, S, C).

        `projected_tokens: (B, hidden)` come from `project_tokens`.
        """
        x = self.posterior_in(deter, projected_tokens)
        x = jax.nn.silu(self.posterior_norm(x))
        return self.categorical(self.posterior_out(x))

    def project_tokens(self, tokens: jax.Array) -> jax.Array:
        """The tokens' part of the posterior's first layer, (..., hidden)."""
        return self.posterior_in.project(tokens)

    def prior(self, deter: jax.Array) -> Categorical:
        """p(stoch | deter): (..., S, C)."""
        return self.categorical(self.prior_out(self.prior_mlp(deter)))

    def categorical(self, logits: jax.Array) -> Categorical:
        c = self.config
        logits = logits.reshape(*logits.shape[:-1], c.stoch, c.classes)
        return Categorical.of(logits, c.unimix)

    def observe_step(
        self,
        state: State,
        projected_tokens: jax.Array,
        embedded_action: jax.Array,
        is_first: jax.Array,
        key: jax.Array,
    ) -> tuple[State, Categorical]:
        """Core and posterior for one step; the state restarts at is_first.

        The action must already be zeroed there, before its embedding.
        """
        state = state.reset(is_first)
        deter = self.core(state, embedded_action)
        posterior = self.posterior(deter, projected_tokens)
        stoch = posterior.sample_onehot(key).astype(self.dtype)
        return State(deter, stoch), posterior

    def observe(
        self,
        carry: State,
        tokens: jax.Array,
        prev_action: jax.Array,
        is_first: jax.Array,
        key: jax.Array,
    ) -> tuple[State, Categorical]:
        """Posterior states of a batch of sequences.

        Args:
          carry: state before the first step, (B, ...).
          tokens: encoded observations (B, T, width), compute dtype.
          prev_action: action vector that led to each step, (B, T, A).
          is_first: whether an episode begins, (B, T) bool.
          key: one PRNG key.

        Returns:
          State of (B, T, ...) and the posteriors (B, T, S, C).
        """
        chex.assert_rank([tokens, prev_action, is_first], [3, 3, 2])
        actions = self.embed_action(mask(prev_action, ~is_first))
        xs = (self.project_tokens(tokens), actions, is_first)
        xs = jax.tree.map(lambda x: x.swapaxes(0, 1), xs)  # (T, B, ...)
        keys = jax.random.split(key, is_first.shape[1])
        states, logs = observe_scan(
            *nnx.split(self), carry, xs[:2], (xs[2], keys)
        )
        states, logs = jax.tree.map(
            lambda x: x.swapaxes(0, 1), (states, logs)
        )  # (B, T, ...)
        return states, Categorical(logs)

    def imagine(
        self, start: State, policy, horizon: int, key: jax.Array
    ) -> tuple[State, jax.Array]:
        """Rolls the prior forward under a policy.

        Args:
          start: states (B, ...).
          policy: function (feat (B, F), key) -> (action, action vector
            (B, A)).
          horizon: number of steps H.
          key: one PRNG key.

        Returns:
          States 0..H as (H+1, B, ...) and actions at 0..H-1, (H, B, ...).
        """

        def step(state, key):
            action_key, stoch_key = jax.random.split(key)
            action, vector = policy(state.feat, action_key)
            deter = self.core(state, self.embed_action(vector))
            stoch = self.prior(deter).sample_onehot(stoch_key)
            state = State(deter, stoch.astype(self.dtype))
            return state, (state, action)

        keys = jax.random.split(key, horizon)
        with jax.named_scope("imagine"):
            _, (states, actions) = jax.lax.scan(step, start, keys)
        states = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest]),
            start,
            states,
        )
        return states, actions


def mask(x: jax.Array, keep: jax.Array) -> jax.Array:
    """Zeroes x (..., *rest) where keep (...) is false."""
    keep = keep.reshape(*keep.shape, *[1] * (x.ndim - keep.ndim))
    return jnp.where(keep, x, jnp.zeros((), x.dtype))
