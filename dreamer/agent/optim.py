"""LaProp behind adaptive gradient clipping, and update metrics.

Per tensor: clip the gradient's norm relative to the parameter's norm (AGC,
arXiv 2102.06171), divide by the root of its mean square, then average with
momentum.  That order - normalise first, momentum second - is LaProp (arXiv
2002.04839).  Constants: arXiv 2301.04104v2, "Implementation details", with
beta2 0.999 and a warm-up of 1000 updates from the authors' public code.
Next: agent.py.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dreamer.hyperparameters import OptConfig

MIN_PARAM_NORM = 1e-3  # AGC treats smaller tensors as this large


def clip_by_agc(clip: float) -> optax.GradientTransformation:
    """Scales each tensor's gradient to norm <= clip * max(1e-3, |param|)."""

    def update(updates, state, params):
        def one(grad, param):
            grad_norm = jnp.linalg.norm(grad)
            param_norm = jnp.linalg.norm(param)
            limit = clip * jnp.maximum(MIN_PARAM_NORM, param_norm)
            return grad / jnp.maximum(1.0, grad_norm / limit)

        return jax.tree.map(one, updates, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


@chex.dataclass(frozen=True)
class LaPropState:
    """`count: () int32`; `mu` and `nu` shaped like the parameters."""

    count: jax.Array
    mu: chex.ArrayTree
    nu: chex.ArrayTree


def scale_by_laprop(
    beta1: float, beta2: float, eps: float
) -> optax.GradientTransformation:
    """Bias-corrected RMS normalisation, then bias-corrected momentum.

    `eps` is added outside the root (1e-20: it only prevents 0/0).
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return LaPropState(
            count=jnp.zeros((), jnp.int32),
            mu=zeros,
            nu=jax.tree.map(jnp.copy, zeros),
        )

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        nu = jax.tree.map(
            lambda g, n: beta2 * n + (1 - beta2) * g * g, updates, state.nu
        )
        nu_scale = 1 / (1 - beta2 ** count.astype(jnp.float32))
        mu_scale = 1 / (1 - beta1 ** count.astype(jnp.float32))
        mu = jax.tree.map(
            lambda g, n, m: (
                beta1 * m + (1 - beta1) * g / (jnp.sqrt(n * nu_scale) + eps)
            ),
            updates,
            nu,
            state.mu,
        )
        updates = jax.tree.map(lambda m: m * mu_scale, mu)
        return updates, LaPropState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def make_optimizer(config: OptConfig) -> optax.GradientTransformation:
    """AGC, LaProp and a linear warm-up whose first update has rate 0."""
    rate = optax.linear_schedule(0.0, config.lr, config.warmup)
    if not config.warmup:
        rate = optax.constant_schedule(config.lr)
    return optax.chain(
        clip_by_agc(config.agc),
        scale_by_laprop(config.beta1, config.beta2, config.eps),
        optax.scale_by_learning_rate(rate),
    )


def is_finite(loss: jax.Array, grad_norm: jax.Array) -> jax.Array:
    """Whether an update may be applied: () bool.

    The norm over all gradients stands for each of them; in float32 it also
    overflows where they are finite, but beyond 1e19.
    """
    return jnp.isfinite(loss) & jnp.isfinite(grad_norm)


def choose(
    condition: jax.Array, then: chex.ArrayTree, otherwise: chex.ArrayTree
) -> chex.ArrayTree:
    """One of two pytrees of the same shapes; `condition` is () bool.

    Element by element, so that XLA makes it part of whatever computes the
    elements: no branch, and no copy where `otherwise` is donated.
    """
    return jax.tree.map(
        lambda a, b: jnp.where(condition, a, b), then, otherwise
    )


def optimizer_metrics(
    loss: jax.Array,
    grad_norm: jax.Array,
    steps: chex.ArrayTree,
    params: chex.ArrayTree,
    updates: jax.Array,
) -> dict[str, jax.Array]:
    """Update metrics, () each; names as in the authors' code.

    Norms are over all parameters together.  `params` are those before the
    update, whose norms clipping has found: XLA computes them once.
    """
    count = sum(x.size for x in jax.tree.leaves(params))
    root = np.sqrt(count)
    return {
        "opt/loss": loss,
        "opt/grad_norm": grad_norm,
        "opt/grad_rms": grad_norm / root,
        "opt/update_rms": optax.tree.norm(steps) / root,
        "opt/param_rms": optax.tree.norm(params) / root,
        "opt/param_count": jnp.asarray(count, jnp.float32),
        "opt/updates": updates,
        "opt/nonfinite": 1 - is_finite(loss, grad_norm).astype(jnp.float32),
    }
