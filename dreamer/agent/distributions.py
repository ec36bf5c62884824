"""What the heads predict: categorical, symexp two-hot, Bernoulli, normal.

Every class holds float32 parameters and offers only what the agent uses.
Losses are negative log-likelihoods; `(...)` stands for any leading shape.
All categorical samples are drawn through `jax.random.categorical`, so that
patching that one function makes the whole agent deterministic.
Paper: arXiv 2301.04104v2, "World model learning" (unimix, straight-through),
"Critic learning" (symlog, symexp two-hot).  Next: networks.py.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

sg = jax.lax.stop_gradient
f32 = jnp.float32


@dataclasses.dataclass(frozen=True)
class Categorical:
    """Categorical over the last axis, given by normalised log-probabilities.

    `log_probs: (..., C) float32`.  Build it with `Categorical.of`.
    """

    log_probs: jax.Array

    @classmethod
    def of(cls, logits: jax.Array, unimix: float = 0.0) -> "Categorical":
        """From logits (..., C), mixed with a uniform share of `unimix`.

        The floor on every probability keeps KL terms and policy gradients
        finite (paper: 1%).
        """
        log_probs = jax.nn.log_softmax(logits.astype(f32), -1)
        if unimix:
            floor = unimix / logits.shape[-1]
            probs = (1 - unimix) * jnp.exp(log_probs) + floor
            log_probs = jnp.log(probs)
        return cls(log_probs)

    @property
    def probs(self) -> jax.Array:
        return jnp.exp(self.log_probs)  # (..., C)

    def mode(self) -> jax.Array:
        return jnp.argmax(self.log_probs, -1).astype(jnp.int32)  # (...)

    def sample(self, key: jax.Array) -> jax.Array:
        """Class indices, (...) int32."""
        index = jax.random.categorical(key, self.log_probs, -1)
        return index.astype(jnp.int32)

    def sample_onehot(self, key: jax.Array) -> jax.Array:
        """One-hot sample (..., C) float32 with straight-through gradients."""
        onehot = jax.nn.one_hot(self.sample(key), self.log_probs.shape[-1])
        return onehot + (self.probs - sg(self.probs))

    def log_prob(self, index: jax.Array) -> jax.Array:
        """Log-probability of class indices (...) int."""
        onehot = jax.nn.one_hot(index, self.log_probs.shape[-1])
        return (self.log_probs * onehot).sum(-1)

    def entropy(self) -> jax.Array:
        """In nats, (...) float32."""
        return -(self.probs * self.log_probs).sum(-1)

    def entropy_range(self) -> tuple[float, float]:
        """Lowest and highest entropy that this distribution can have."""
        return 0.0, math.log(self.log_probs.shape[-1])

    def kl(self, other: "Categorical") -> jax.Array:
        """KL(self || other) in nats, (...) float32."""
        return (self.probs * (self.log_probs - other.log_probs)).sum(-1)


@dataclasses.dataclass(frozen=True)
class Normal:
    """Independent normals whose last axis is one event, (..., n) float32."""

    mean: jax.Array
    std: jax.Array
    min_std: float
    max_std: float

    def mode(self) -> jax.Array:
        return self.mean

    def sample(self, key: jax.Array) -> jax.Array:
        return self.mean + self.std * jax.random.normal(key, self.mean.shape)

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Log-density of values (..., n), summed over the last axis."""
        z = (value.astype(f32) - self.mean) / self.std
        log_norm = jnp.log(self.std) + 0.5 * math.log(2 * math.pi)
        return (-0.5 * z**2 - log_norm).sum(-1)

    def entropy(self) -> jax.Array:
        """Differential entropy in nats, summed over the last axis."""
        const = 0.5 * math.log(2 * math.pi * math.e)
        return (jnp.log(self.std) + const).sum(-1)

    def entropy_range(self) -> tuple[float, float]:
        """Entropies at the smallest and the largest standard deviation."""
        const = 0.5 * math.log(2 * math.pi * math.e)
        n = self.mean.shape[-1]
        low, high = math.log(self.min_std), math.log(self.max_std)
        return n * (low + const), n * (high + const)


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Of one logit each, (...) float32."""

    logit: jax.Array

    @property
    def prob(self) -> jax.Array:
        return jax.nn.sigmoid(self.logit)

    def loss(self, target: jax.Array) -> jax.Array:
        """Cross-entropy with a target probability (...) in [0, 1]."""
        log_yes = jax.nn.log_sigmoid(self.logit)
        log_no = jax.nn.log_sigmoid(-self.logit)
        return -(target * log_yes + (1 - target) * log_no)


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) log(1 + |x|), any shape; vector observations enter so."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp_bins(count: int) -> np.ndarray:
    """Bin positions symexp(-20 .. 20), (count,) float32.

    The positive half is the mirrored negative half, so the bins cancel
    exactly.  An even count has two bins at zero.
    """
    half = np.linspace(-20, 0, (count + 1) // 2, dtype=np.float32)
    negative = -np.expm1(-half)  # symexp of non-positive numbers
    positive = -negative[::-1]
    return np.concatenate([negative, positive[count % 2 :]])


@dataclasses.dataclass(frozen=True)
class TwoHot:
    """Distribution over symexp-spaced bins, given by logits (..., bins)."""

    logits: jax.Array

    @property
    def bins(self) -> np.ndarray:
        return symexp_bins(self.logits.shape[-1])

    def mean(self) -> jax.Array:
        """Expected value (...) float32, exactly 0 for uniform logits.

        Probabilities of bins that mirror each other are subtracted before
        they are multiplied with the bin, outermost pair first: products of
        huge bins leave rounding errors when compilers fuse multiplications
        with additions.
        """
        half = self.logits.shape[-1] // 2  # an odd count's middle bin is 0
        probs = jax.nn.softmax(self.logits, -1)
        more = probs[..., ::-1][..., :half] - probs[..., :half]
        return (more * jnp.broadcast_to(-self.bins[:half], more.shape)).sum(-1)

    def loss(self, target: jax.Array) -> jax.Array:
        """Cross-entropy with the two-hot encoding of target (...) float32.

        The target's weight is shared between its two neighbouring bins in
        proportion to distance; beyond the ends it falls on the last bin.
        """
        bins = jnp.asarray(self.bins)
        last = len(bins) - 1
        rows = jnp.broadcast_to(bins, self.logits.shape)  # (..., bins)
        above = (rows <= target[..., None]).sum(-1)
        below = jnp.clip(above - 1, 0, last)
        above = jnp.clip(above, 0, last)
        gap = jnp.where(below == above, 1.0, bins[above] - bins[below])
        share = jnp.clip((target - bins[below]) / gap, 0.0, 1.0)  # of above
        share = share[..., None]
        twohot = (1 - share) * jax.nn.one_hot(below, last + 1)
        twohot += share * jax.nn.one_hot(above, last + 1)
        log_probs = jax.nn.log_softmax(self.logits, -1)
        return -(sg(twohot) * log_probs).sum(-1)
