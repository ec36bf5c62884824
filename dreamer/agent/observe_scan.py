"""The loop of the RSSM over observed steps, with a gradient of its own.

An optimisation: values and gradient are those of `RSSM.observe_step` in a
plain `jax.lax.scan`.  Read first: rssm.py.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from dreamer.agent.networks import cast_kernels

if TYPE_CHECKING:
    from dreamer.agent.rssm import State


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def observe_scan(
    graph: nnx.GraphDef,
    params: nnx.State,
    carry: "State",
    inputs: tuple[jax.Array, jax.Array],
    others: tuple[jax.Array, jax.Array],
) -> tuple["State", jax.Array]:
    """`RSSM.observe_step` over time, with its own gradient.

    The plain gradient of a scan has every step keep what its derivative
    needs, and adds up the parameters' gradient step by step: in many small
    operations on few rows, which is what a GPU is slowest at.  Here the loops
    hold only what has to follow one another.  Once all states are known, the
    derivatives of all steps are taken at once; a loop backwards through them
    finds the gradient of each state; and from these, one step on the rows of
    all steps has the gradient of the parameters.

    Args:
      graph, params: the two halves of `nnx.split` of an RSSM.
      carry: state before the first step, (B, ...).
      inputs: projected tokens and embedded actions, (T, B, hidden).
      others: flags `is_first` (T, B) and keys (T,).

    Returns:
      States and log-probabilities of the posterior, (T, B, ...).
    """
    return _forward(graph, params, carry, inputs, others)[0]


def _forward(graph, params, carry, inputs, others):
    rssm = nnx.merge(graph, cast_kernels(params, carry.deter.dtype))
    # Slice the kernel before the loop, or XLA copies it in every iteration.
    layer = rssm.posterior_in
    layer.kernel = nnx.Param(layer.first_rows)

    def step(state, x):
        # The state is reset at the end of the previous step, where XLA fuses
        # the reset into the op that produces it; here it would be a kernel
        # of its own.
        inputs, key, ends = x
        state, posterior = rssm.observe_step(state, *inputs, nowhere, key)
        return state.reset(ends), (state, posterior.log_probs)

    is_first, keys = others
    nowhere = jnp.zeros_like(is_first[0])
    ends = jnp.concatenate([is_first[1:], nowhere[None]])
    xs = (inputs, keys, ends)
    with jax.named_scope("observe"):
        outputs = jax.lax.scan(step, carry.reset(is_first[0]), xs)[1]
    return outputs, (params, carry, outputs[0], inputs, others)


def _backward(graph, saved, gradients):
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


observe_scan.defvjp(_forward, _backward)


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

    def shapes(rows: int) -> list[tuple[int, ...]]:
        some = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((rows, *x.shape[2:]), x.dtype), args
        )
        return [x.shape for x in jax.eval_shape(leaves, *some)]

    # Residuals whose size depends on the batch are stored per step; the
    # others are shared.
    pairs = zip(shapes(2), shapes(3), strict=True)
    stepwise = [two != three for two, three in pairs]
    axes = [0 if each else None for each in stepwise]
    found = jax.vmap(leaves, out_axes=axes)(*args)

    def restore(per_step: list[jax.Array]) -> Any:
        rest = iter(per_step)
        both = zip(found, stepwise, strict=True)
        one = [next(rest) if each else x for x, each in both]
        return jax.tree.unflatten(structure, one)

    per_step = [x for x, each in zip(found, stepwise, strict=True) if each]
    return per_step, restore
