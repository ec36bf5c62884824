"""Layers: linear, block-linear, norm, convolutions, MLP.

Paper: arXiv 2301.04104v2, "Model architecture" in the methods.  Every layer
is linear -> RMSNorm -> SiLU, parameters are float32 and activations are in
the `dtype` given to the constructor.  Next: encoder.py, rssm.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

f32 = jnp.float32
DType = jnp.dtype

# A normal cut off at two standard deviations has 0.8796 of its width.
TRUNCATED_STD = 0.87962566103423978
NORM_EPS = 1e-4
KERNEL = 5  # height and width of every convolution


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
        return nnx.Param(np.full(shape, value, np.float32))


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x (..., *bias.shape) + bias, in the dtype of x."""
    return x + jnp.broadcast_to(bias.astype(x.dtype), x.shape)


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
        return add_bias(self.project(x), self.bias[...])

    def project(self, x: jax.Array, start: int = 0) -> jax.Array:
        """Only x @ kernel[start:start + inputs of x], without the bias.

        A layer applied to a concatenation is the sum of such products; the
        ones that do not depend on the recurrent state leave the time loop.
        """
        kernel = self.kernel[...][start : start + x.shape[-1]]
        return x.astype(self.dtype) @ kernel.astype(self.dtype)


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

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        y = jnp.einsum("...gi,gio->...go", x.astype(self.dtype), kernel)
        bias = self.bias[...].reshape(y.shape[-2:])
        return add_bias(y, bias)  # (..., G, units / G)


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


Resize = Literal["none", "up", "down"]


class Conv(nnx.Module):
    """5x5 convolution, stride 1, zero-padded: (N, h, w, c) -> (N, h, w, d).

    `resize="up"`: x is first enlarged twofold by repeating its pixels, giving
    (N, 2h, 2w, d).  `resize="down"`: the result is max-pooled over 2x2
    windows, giving (N, h/2, w/2, d).
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        dtype: DType,
        init: Init,
        resize: Resize = "none",
    ):
        shape = (KERNEL, KERNEL, inputs, units)
        self.kernel = init.kernel(shape, KERNEL * KERNEL * inputs)
        self.bias = init.constant((units,), 0.0)
        self.dtype = dtype
        self.op = {"none": conv, "up": upsampled_conv, "down": pooled_conv}[
            resize
        ]

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        # The bias is the same for all pixels, so pooling may come before it.
        y = self.op(x.astype(self.dtype), kernel)
        return add_bias(y, self.bias[...])


class ConvNorm(nnx.Module):
    """Conv -> norm -> SiLU; with `pool`, 2x2 max-pooling after the conv."""

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        dtype: DType,
        init: Init,
        resize: Resize = "none",
    ):
        self.conv = Conv(inputs, units, dtype=dtype, init=init, resize=resize)
        self.norm = RMSNorm(units, dtype=dtype, init=init)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.silu(self.norm(self.conv(x)))


def plain_conv(
    x: jax.Array, kernel: jax.Array, padding: Any = "SAME"
) -> jax.Array:
    """Stride 1: x (N, h, w, c), kernel (k, k, c, d) -> (N, h, w, d)."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`plain_conv` whose gradients are fast on every backend.

    XLA's CPU compiler has a fast path for convolutions laid out like the one
    above only.  Outside of loops it rearranges others to fit, inside of them
    it does not; hence the gradients are spelled out in that layout there.
    """
    return plain_conv(x, kernel)


def _conv_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return plain_conv(x, kernel), (x, kernel)


def _conv_backward(
    saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    if jax.default_backend() != "cpu":
        return jax.vjp(plain_conv, x, kernel)[1](dy)
    reach = kernel.shape[0] // 2
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)  # (k, k, d, c)
    dx = plain_conv(dy, flipped)
    images, windows = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
    dkernel = plain_conv(images, windows, [(reach, reach)] * 2)  # (c, k, k, d)
    return dx, dkernel.transpose(1, 2, 0, 3)


conv.defvjp(_conv_forward, _conv_backward)

CHUNK = 64  # images whose activations stay in a CPU's cache
KEPT = "kept"  # what the backward pass of a chunk need not compute anew


def in_chunks(function: Callable, *args: jax.Array) -> Any:
    """function(*args), on CPUs in pieces along the first axis of all args.

    There, activations of a whole batch of images leave the cache, and moving
    them costs more than computing them.  The backward pass gets the results
    of convolutions, named `KEPT`, and computes the rest anew.  Elsewhere this
    is a plain call.
    """
    count = len(args[0])
    size = next(n for n in range(min(CHUNK, count), 0, -1) if not count % n)
    # Batches without a divisor of some size are better left whole.
    if jax.default_backend() != "cpu" or size == count or 2 * size < CHUNK:
        return function(*args)
    pieces = [x.reshape(-1, size, *x.shape[1:]) for x in args]
    once = jax.checkpoint(
        lambda piece: function(*piece),
        policy=jax.checkpoint_policies.save_only_these_names(KEPT),
    )
    results = jax.lax.map(once, pieces)
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), results)


# Which of the 5 taps fall on the same source pixel after repeating pixels
# twice, for output pixels at even and odd places: (phase, 3, 5).
UPSAMPLE_TAPS = np.array(
    [
        [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
        [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
    ],
    np.float32,
)


def upsampled_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv` of x repeated twofold along height and width.

    The same sums, arranged as four 3x3 convolutions at the low resolution,
    one for each parity of output row and column: 2.8 times fewer
    multiplications and no enlarged input.

    Args:
      x: (N, h, w, c).
      kernel: (5, 5, c, d).

    Returns:
      (N, 2h, 2w, d).
    """
    taps = jnp.asarray(UPSAMPLE_TAPS, kernel.dtype)
    phases = jnp.einsum("pak,qbl,klcd->abcpqd", taps, taps, kernel)
    n, h, w, c = x.shape
    d = kernel.shape[-1]
    y = conv(x, phases.reshape(3, 3, c, 4 * d))  # (N, h, w, 2*2*d)
    y = y.reshape(n, h, w, 2, 2, d).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, 2 * h, 2 * w, d)


# The 5x5 taps as seen from 2x2 groups of pixels: output pixel p of its group
# meets, through tap k, pixel s of the group that is a - 1 away: (p, a, s, k).
GROUP_TAPS = np.array(
    [
        [
            [[p + k - 2 == 2 * (a - 1) + s for k in range(5)] for s in (0, 1)]
            for a in (0, 1, 2)
        ]
        for p in (0, 1)
    ],
    np.float32,
)
FEW_CHANNELS = 4  # so few make a matrix product too thin to be fast


def grouped_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv` with the results of each 2x2 group of pixels side by side.

    With few input channels, the same sums arranged as one 3x3 convolution
    over groups of pixels with four times the channels, of input and output.

    Args:
      x: (N, h, w, c).
      kernel: (5, 5, c, d).

    Returns:
      (N, h/2, w/2, 4, d).
    """
    n, h, w, c = x.shape
    d = kernel.shape[-1]
    if c > FEW_CHANNELS:
        y = conv(x, kernel).reshape(n, h // 2, 2, w // 2, 2, d)
        y = y.transpose(0, 1, 3, 2, 4, 5)
    else:
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        taps = jnp.asarray(GROUP_TAPS, kernel.dtype)
        groups = jnp.einsum("pask,qbtl,klcd->abstcpqd", taps, taps, kernel)
        y = conv(
            x.reshape(n, h // 2, w // 2, 4 * c),
            groups.reshape(3, 3, 4 * c, 4 * d),
        )
    return y.reshape(n, h // 2, w // 2, 4, d)


@jax.custom_vjp
def pooled_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Maximum of `conv` over 2x2 windows.

    Its gradient needs to know only which of the four were the largest, a few
    bits instead of four numbers; equal ones share it equally.

    Args:
      x: (N, h, w, c).
      kernel: (5, 5, c, d).

    Returns:
      (N, h/2, w/2, d).
    """
    return _largest(grouped_conv(x, kernel))


def _largest(y: jax.Array) -> jax.Array:
    """(..., 4, d) -> (..., d); pairs, as XLA reduces short axes slowly."""
    pair = jnp.maximum(y[..., :2, :], y[..., 2:, :])
    return jnp.maximum(pair[..., 0, :], pair[..., 1, :])


def _pooled_conv_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    y = grouped_conv(x, kernel)
    largest = _largest(y)
    bits = sum(
        (y[..., i, :] == largest).astype(jnp.uint8) << i for i in range(4)
    )
    bits = checkpoint_name(bits, KEPT)
    return checkpoint_name(largest, KEPT), (x, kernel, bits)


def _pooled_conv_backward(
    saved: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel, bits = saved
    share = dy / jax.lax.population_count(bits).astype(dy.dtype)
    parts = [
        jnp.where((bits >> i) & 1 == 1, share, jnp.zeros_like(share))
        for i in range(4)
    ]
    pull_back = jax.vjp(grouped_conv, x, kernel)[1]
    return pull_back(jnp.stack(parts, -2))


pooled_conv.defvjp(_pooled_conv_forward, _pooled_conv_backward)
