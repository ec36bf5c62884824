"""Lambda-returns and the range that scales advantages.

Paper: arXiv 2301.04104v2, "Critic learning" (equation 6) and "Actor
learning" (equations 7 and 8).  Next: actor_critic.py, which uses both.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


def lambda_return(
    reward: jax.Array,
    discount: jax.Array,
    value: jax.Array,
    bootstrap: jax.Array,
    lam: float | jax.Array,
) -> jax.Array:
    """R_t = r_{t+1} + d_{t+1} ((1 - l_{t+1}) b_{t+1} + l_{t+1} R_{t+1}).

    Time runs along axis 1.  R at the last time is `value` there.

    Args:
      reward: rewards r_t, t = 0..T-1, (B, T) float32; r_0 is not used.
      discount: continue probability times discount d_t, (B, T) float32.
      value: values (B, T) float32; only value[:, -1] is used, as R_{T-1}.
      bootstrap: value b_t mixed in at each step, (B, T) float32.
      lam: weight l_t, scalar or (B, T) float32; 0 cuts the return at t.

    Returns:
      (B, T-1) float32, R_t for t = 0..T-2.
    """
    chex.assert_equal_shape([reward, discount, value, bootstrap])
    lam = jnp.broadcast_to(lam, reward.shape)
    mixed = reward + discount * (1 - lam) * bootstrap
    factor = discount * lam

    def step(future, xs):
        mixed_t, factor_t = xs
        ret = mixed_t + factor_t * future
        return ret, ret

    xs = (mixed[:, 1:].T, factor[:, 1:].T)  # (T-1, B)
    with jax.named_scope("lambda_return"):
        _, returns = jax.lax.scan(
            step, value[:, -1], xs, reverse=True, unroll=4
        )
    return returns.T  # (B, T-1)


class ReturnRange(NamedTuple):
    """Moving 5th and 95th percentile of the returns, () float32 each.

    It starts at zero and is not debiased.
    """

    low: jax.Array
    high: jax.Array

    def update(
        self, returns: jax.Array, rate: float, perclo: float, perchi: float
    ) -> "ReturnRange":
        """Moves by `rate` towards the percentiles of `returns` (any shape)."""
        low, high = jnp.percentile(returns, jnp.array([perclo, perchi]))
        return ReturnRange(
            (1 - rate) * self.low + rate * low,
            (1 - rate) * self.high + rate * high,
        )

    def scale(self, limit: float) -> jax.Array:
        """max(limit, high - low): small returns are not scaled up."""
        return jnp.maximum(limit, self.high - self.low)


def initial_return_range() -> ReturnRange:
    """No range yet: both ends at zero."""
    return ReturnRange(jnp.zeros(()), jnp.zeros(()))
