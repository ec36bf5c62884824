"""Squashing of large numbers: symlog and symexp.

Both are used wherever a quantity of unknown scale meets a network: vector
observations enter as symlog, rewards and values are predicted on bins that
symexp spaces out.  Paper: "Mastering diverse control tasks through world
models" (arXiv 2301.04104v2), "Critic learning" and equation 9.
Next: distributions.py.
"""

import jax
import jax.numpy as jnp


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) log(1 + |x|), any shape."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: jax.Array) -> jax.Array:
    """sign(x) (exp|x| - 1), the inverse of symlog, any shape."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))
