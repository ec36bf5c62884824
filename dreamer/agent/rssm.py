"""Recurrent state-space model: the block-GRU core, prior and posterior.

Paper: arXiv 2301.04104v2, "World model learning" (equations 3 and 5) and the
methods' "Model architecture" (block-diagonal recurrent weights).  `deter` is
the deterministic state, `stoch` the stochastic one, S categoricals of C
classes.  Next: world_model.py, which turns these states into losses.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

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
    cast_kernels,
)
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
        self.posterior_in = Linear(c.deter + token_width, c.hidden, **kw)
        self.posterior_norm = RMSNorm(c.hidden, **kw)
        self.posterior_out = Linear(c.hidden, stoch, **kw)
        self.prior_mlp = MLP(c.deter, c.hidden, 2, **kw)
        self.prior_out = Linear(c.hidden, stoch, **kw)

    def initial(self, batch: int) -> State:
        """All zeros, (batch, ...)."""
        c = self.config
        return State(
            jnp.zeros((batch, c.deter), self.dtype),
            jnp.zeros((batch, c.stoch, c.classes), self.dtype),
        )

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
        x = self.posterior_in(deter) + projected_tokens
        x = jax.nn.silu(self.posterior_norm(x))
        return self.categorical(self.posterior_out(x))

    def project_tokens(self, tokens: jax.Array) -> jax.Array:
        """The tokens' part of the posterior's first layer, (..., hidden)."""
        return self.posterior_in.project(tokens, self.config.deter)

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
        state = reset(state, is_first)
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
          tokens: (B, T, width) compute dtype.
          prev_action: (B, T, A) action vector that led to each step.
          is_first: (B, T) bool.
          key: one PRNG key.

        Returns:
          State of (B, T, ...) and the posteriors (B, T, S, C).
        """
        chex.assert_rank([tokens, prev_action, is_first], [3, 3, 2])
        actions = self.embed_action(mask(prev_action, ~is_first))
        xs = (self.project_tokens(tokens), actions, is_first)
        xs = jax.tree.map(lambda x: x.swapaxes(0, 1), xs)  # (T, B, ...)
        keys = jax.random.split(key, is_first.shape[1])
        states, logs = _observe_scan(
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
          start: (B, ...) states.
          policy: (feat (B, F), key) -> (action, action vector (B, A)).
          horizon: H, number of steps.
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


def reset(state: State, is_first: jax.Array) -> State:
    """Zeroes states (B, ...) where an episode begins, is_first (B,)."""
    return State(*(mask(x, ~is_first) for x in state))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _observe_scan(
    graph: nnx.GraphDef,
    params: nnx.State,
    carry: State,
    inputs: tuple[jax.Array, jax.Array],
    others: tuple[jax.Array, jax.Array],
) -> tuple[State, jax.Array]:
    """`RSSM.observe_step` over time, with its own gradient.

    The plain gradient of a scan has every step keep what its derivative
    needs, and adds up the parameters' gradient step by step: in many small
    operations on few rows, which is what a GPU is slowest at.  Here the loops
    hold only what has to follow one another.  Once all states are known, the
    derivatives of all steps are taken at once; a loop backwards through them
    finds the gradient of each state; and from these, one step on the rows of
    all steps has the gradient of the parameters.

    Args:
      graph, params: an RSSM.
      carry: state before the first step, (B, ...).
      inputs: projected tokens and embedded actions, (T, B, hidden).
      others: `is_first` (T, B) and keys (T,).

    Returns:
      States and log-probabilities of the posterior, (T, B, ...).
    """
    return _observe_forward(graph, params, carry, inputs, others)[0]


def _observe_forward(graph, params, carry, inputs, others):
    rssm = nnx.merge(graph, cast_kernels(params, carry.deter.dtype))
    # Only these rows meet the state; the loop would copy them at every step.
    kernel = rssm.posterior_in.kernel[...][: rssm.config.deter]
    rssm.posterior_in.kernel = nnx.Param(kernel)

    def step(state, x):
        # The state was reset at the end of the step before: that is part of
        # what computes it, and here it would be another operation.
        inputs, key, ends = x
        state, posterior = rssm.observe_step(state, *inputs, nowhere, key)
        return reset(state, ends), (state, posterior.log_probs)

    is_first, keys = others
    nowhere = jnp.zeros_like(is_first[0])
    ends = jnp.concatenate([is_first[1:], nowhere[None]])
    xs = (inputs, keys, ends)
    with jax.named_scope("observe"):
        outputs = jax.lax.scan(step, reset(carry, is_first[0]), xs)[1]
    return outputs, (params, carry, outputs[0], inputs, others)


def _observe_backward(graph, saved, gradients):
    params, carry, states, inputs, (is_first, keys) = saved
    before = jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest[:-1]]),
        carry,
        states,
    )

    def derivative(before, inputs, is_first):
        def step(params, before, inputs):
            # Straight-through gradients do not depend on the sample: any key.
            state, posterior = nnx.merge(graph, params).observe_step(
                before, *inputs, is_first, keys[0]
            )
            return state, posterior.log_probs

        return jax.linearize(step, params, before, inputs)[1]

    per_step, restore = _at_every_step(derivative, before, inputs, is_first)

    def backward(later, x):
        per_step, before, inputs, (state_grad, logs_grad) = x
        whole = jax.tree.map(jnp.add, state_grad, later)
        back = jax.linear_transpose(restore(per_step), params, before, inputs)
        _, before_grad, inputs_grad = back((whole, logs_grad))
        return before_grad, (whole, inputs_grad)

    nothing = jax.tree.map(jnp.zeros_like, carry)
    xs = (per_step, before, inputs, gradients)
    with jax.named_scope("observe_backward"):
        carry_grad, (states_grad, inputs_grad) = jax.lax.scan(
            backward, nothing, xs, reverse=True
        )

    def all_steps(params, before, inputs):
        def one(per_step, before, inputs):
            return restore(per_step)(params, before, inputs)

        return jax.vmap(one)(per_step, before, inputs)

    back = jax.linear_transpose(all_steps, params, before, inputs)
    params_grad, *_ = back((states_grad, gradients[1]))
    return params_grad, carry_grad, inputs_grad, None


_observe_scan.defvjp(_observe_forward, _observe_backward)


def _at_every_step(function: Callable, *args: Any) -> tuple[list, Callable]:
    """function of (B, ...) for all steps of args (T, B, ...) at once.

    Returns:
      Arrays (T, ...) to loop over, and a function that makes, from those of
      one step, the pytree that `function` gives.  Parameters in there are the
      same for all steps, and are not repeated.
    """
    structure = None

    def leaves(*args: Any) -> list[jax.Array]:
        nonlocal structure
        found, structure = jax.tree.flatten(function(*args))
        return found

    # What grows with the rows belongs to the steps: tried with so many that
    # nothing else has a size divisible by it.
    prime = 1_000_003
    rows = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((prime, *x.shape[2:]), x.dtype), args
    )
    shapes = jax.eval_shape(leaves, *rows)
    stepwise = [x.size % prime == 0 for x in shapes]
    axes = [0 if each else None for each in stepwise]
    found = jax.vmap(leaves, out_axes=axes)(*args)

    def restore(per_step: list[jax.Array]) -> Any:
        rest = iter(per_step)
        both = zip(found, stepwise, strict=True)
        one = [next(rest) if each else x for x, each in both]
        return jax.tree.unflatten(structure, one)

    per_step = [x for x, each in zip(found, stepwise, strict=True) if each]
    return per_step, restore
