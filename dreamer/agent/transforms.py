"""Squashing of large numbers: symlog.

For quantities of unknown scale: vector observations enter as symlog, rewards
and values are predicted on bins that its inverse, symexp, spaces out.  Paper:
"Mastering diverse control tasks through world models" (arXiv 2301.04104v2),
"Critic learning" and equation 9.  Next: distributions.py.
"""

import jax
import jax.numpy as jnp


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) log(1 + |x|), any shape."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))
