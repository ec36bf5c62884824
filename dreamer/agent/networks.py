"""Layers: linear, split linear, block-linear, norm, MLP, head.

Paper: arXiv 2301.04104v2, "Model architecture" in the methods.  Every layer
is linear -> RMSNorm -> SiLU, parameters are float32 and activations are in
the `dtype` given to the constructor.  Next: convolutions.py, rssm.py.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from chex import ArrayTree
from flax import nnx

from dreamer.agent import convolve

f32 = jnp.float32
DType = jnp.dtype

# A normal cut off at two standard deviations has 0.8796 of its width.
TRUNCATED_STD = 0.87962566103423978
NORM_EPS = 1e-4


class Init:
    """Draws initial values on the host, one after the other from one seed.

    Drawing on the host needs no compilation, which on a device takes longer
    than all the drawing.  Without a seed all values are zero: enough where
    only shapes are wanted.
    """

    def __init__(self, seed: int | None = None):
        self.rng = None if seed is None else np.random.default_rng(seed)

    def kernel(
        self, shape: Sequence[int], fan_in: int, outscale: float = 1.0
    ) -> nnx.Param:
        """Truncated normal of standard deviation outscale / sqrt(fan_in)."""
        if self.rng is None or not outscale:
            return self.constant(shape, 0.0)
        noise = self.rng.standard_normal(shape, np.float32)
        while (outside := np.abs(noise) > 2).any():
            redrawn = self.rng.standard_normal(outside.sum(), np.float32)
            noise[outside] = redrawn
        scale = outscale / math.sqrt(fan_in) / TRUNCATED_STD
        return nnx.Param(noise * np.float32(scale))

    def constant(self, shape: Sequence[int], value: float) -> nnx.Param:
        """One value throughout, float32."""
        if not value:  # takes no memory until it is used
            return nnx.Param(np.zeros(shape, np.float32))
        return nnx.Param(np.full(shape, value, np.float32))


def cast_kernels(params: ArrayTree, dtype: DType) -> ArrayTree:
    """Kernels in the dtype of activations, before a loop that uses them.

    The layers cast them anyway, and in a loop XLA would do so at every step.
    Scales and biases, which are small, stay as they are.
    """
    return jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, params)


@jax.custom_jvp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x (..., *bias.shape) + bias, in the dtype of x.

    The bias's gradient is summed in float32: there can be millions of rows,
    and in bfloat16 a sum stops growing after some hundred of them.
    """
    return x + jnp.broadcast_to(bias.astype(x.dtype), x.shape)


@add_bias.defjvp
def _add_bias_jvp(primals, tangents):
    x, bias = tangents
    bias = jnp.broadcast_to(bias, x.shape)
    return add_bias(*primals), (x.astype(f32) + bias).astype(x.dtype)


class Linear(nnx.Module):
    """x (..., inputs) -> (..., units), in `dtype`."""

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        dtype: DType,
        init: Init,
        outscale: float = 1.0,
    ):
        self.kernel = init.kernel((inputs, units), inputs, outscale)
        self.bias = init.constant((units,), 0.0)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(self.dtype) @ self.kernel[...].astype(self.dtype)
        return add_bias(x, self.bias[...])


class SplitLinear(nnx.Module):
    """A linear layer on two parts side by side, given one by one.

    A layer applied to a concatenation is a sum of two products; the one that
    does not depend on the recurrent state leaves the time loop.  Parameters
    are those of one `Linear`.
    """

    def __init__(
        self,
        first: int,
        second: int,
        units: int,
        *,
        dtype: DType,
        init: Init,
    ):
        self.first = first
        self.kernel = init.kernel((first + second, units), first + second)
        self.bias = init.constant((units,), 0.0)
        self.dtype = dtype

    def __call__(self, x: jax.Array, projected: jax.Array) -> jax.Array:
        """x (..., first), and what `project` made of the second part."""
        x = x.astype(self.dtype) @ self.first_rows.astype(self.dtype)
        return add_bias(x, self.bias[...]) + projected

    def project(self, x: jax.Array) -> jax.Array:
        """x (..., second) @ its rows of the kernel, without the bias."""
        rows = self.kernel[...][self.first :]
        return x.astype(self.dtype) @ rows.astype(self.dtype)

    @property
    def first_rows(self) -> jax.Array:
        """The kernel of the first part, (first, units)."""
        return self.kernel[...][: self.first]


class BlockLinear(nnx.Module):
    """Block-diagonal linear layer on x (..., G, inputs / G).

    Output (..., G, units / G): each of the G parts has its own kernel.  The
    initial scale follows the whole input width.
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        blocks: int,
        *,
        dtype: DType,
        init: Init,
    ):
        shape = (blocks, inputs // blocks, units // blocks)
        self.kernel = init.kernel(shape, inputs)
        self.bias = init.constant((units,), 0.0)
        self.dtype = dtype

    def __call__(
        self, x: jax.Array, shared: jax.Array | None = None
    ) -> jax.Array:
        """`shared` (..., n): the last n inputs of every part, if the same.

        On a CPU, they are multiplied once for all parts, which saves copies.
        A GPU loses more by every operation in a time loop than by copies.
        """
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        if shared is None:
            y = _by_part(x, kernel)
        elif convolve.on_one_cpu():
            own = x.shape[-1]
            y = _by_part(x, kernel[:, :own]) + jnp.einsum(
                "...i,gio->...go", shared.astype(self.dtype), kernel[:, own:]
            )
        else:
            shared = jnp.broadcast_to(
                shared[..., None, :], (*x.shape[:-1], shared.shape[-1])
            )
            y = _by_part(jnp.concatenate([x, shared], -1), kernel)
        bias = self.bias[...].reshape(y.shape[-2:])
        return add_bias(y, bias)  # (..., G, units / G)


def _by_part(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x (..., G, i), kernel (G, i, o) -> (..., G, o)."""
    return jnp.einsum("...gi,gio->...go", x, kernel)


class RMSNorm(nnx.Module):
    """Over the last axis, computed in float32."""

    def __init__(self, units: int, *, dtype: DType, init: Init):
        self.scale = init.constant((units,), 1.0)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(f32)
        mean_square = jnp.mean(x * x, -1, keepdims=True)
        x = x * jax.lax.rsqrt(mean_square + NORM_EPS)
        x = x * jnp.broadcast_to(self.scale[...], x.shape)
        return x.astype(self.dtype)


class Dense(nnx.Module):
    """Linear -> norm -> SiLU, (..., inputs) -> (..., units)."""

    def __init__(self, inputs: int, units: int, *, dtype: DType, init: Init):
        self.linear = Linear(inputs, units, dtype=dtype, init=init)
        self.norm = RMSNorm(units, dtype=dtype, init=init)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.silu(self.norm(self.linear(x)))


class MLP(nnx.Module):
    """A stack of Dense layers, (..., inputs) -> (..., units)."""

    def __init__(
        self,
        inputs: int,
        units: int,
        layers: int,
        *,
        dtype: DType,
        init: Init,
    ):
        widths = [inputs] + [units] * layers
        self.layers = nnx.List(
            Dense(width, units, dtype=dtype, init=init)
            for width in widths[:-1]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Head(nnx.Module):
    """MLP and a linear output, (..., inputs) -> (..., outputs) float32."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        config,  # any of the head configs: has units and layers
        *,
        dtype: DType,
        init: Init,
        outscale: float = 1.0,
    ):
        size = (inputs, config.units, config.layers)
        self.mlp = MLP(*size, dtype=dtype, init=init)
        self.out = Linear(
            config.units, outputs, dtype=dtype, init=init, outscale=outscale
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(self.mlp(x)).astype(f32)
