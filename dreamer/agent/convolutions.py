"""Convolutions that also enlarge or pool, and run fast on every backend.

All are 5x5 with stride 1, as in the authors' code; enlarging repeats pixels,
pooling takes the maximum of 2x2.  Each is an exact rearrangement of the plain
definition in its docstring.  Read convolve.py before, encoder.py after this.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from dreamer.agent.convolve import KEPT, conv
from dreamer.agent.networks import DType, Init, RMSNorm, add_bias

KERNEL = 5  # height and width of every convolution
Resize = Literal["up", "down"]


class Conv(nnx.Module):
    """5x5 convolution, stride 1, zero-padded, with a change of size.

    `resize="up"`: x (N, h, w, c) is first enlarged twofold by repeating its
    pixels, giving (N, 2h, 2w, d).  `resize="down"`: the result is max-pooled
    over 2x2 windows, giving (N, h/2, w/2, d).
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        dtype: DType,
        init: Init,
        resize: Resize,
    ):
        shape = (KERNEL, KERNEL, inputs, units)
        self.kernel = init.kernel(shape, KERNEL * KERNEL * inputs)
        self.bias = init.constant((units,), 0.0)
        self.dtype = dtype
        self.op = {"up": upsampled_conv, "down": pooled_conv}[resize]

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        # The bias is the same for all pixels, so pooling may come before it.
        y = self.op(x.astype(self.dtype), kernel)
        return add_bias(y, self.bias[...])


class ConvNorm(nnx.Module):
    """Conv -> norm -> SiLU; `resize` as in Conv."""

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        dtype: DType,
        init: Init,
        resize: Resize,
    ):
        self.conv = Conv(inputs, units, dtype=dtype, init=init, resize=resize)
        self.norm = RMSNorm(units, dtype=dtype, init=init)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.silu(self.norm(self.conv(x)))


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
      x: images (N, h, w, c).
      kernel: weights (5, 5, c, d).

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
      x: images (N, h, w, c).
      kernel: weights (5, 5, c, d).

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
      x: images (N, h, w, c).
      kernel: weights (5, 5, c, d).

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
    # A compiler may keep more digits on one side of `==`, so that none is.
    count = jnp.maximum(jax.lax.population_count(bits), 1)
    share = dy / count.astype(dy.dtype)
    parts = [
        jnp.where((bits >> i) & 1 == 1, share, jnp.zeros_like(share))
        for i in range(4)
    ]
    pull_back = jax.vjp(grouped_conv, x, kernel)[1]
    return pull_back(jnp.stack(parts, -2))


pooled_conv.defvjp(_pooled_conv_forward, _pooled_conv_backward)
