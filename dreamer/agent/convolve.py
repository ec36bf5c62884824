"""Stride-1 convolution of images, fast on every backend.

XLA's own convolution is the fastest there is on GPU and TPU.  On CPUs it
reaches half the speed of a matrix product or less, a thirtieth where images
are smaller than the kernel.  So these, large images and the gradient of the
kernel are spelled out as products there, on as many images at a time as a
cache holds.  Both give the same sums.  Next: convolutions.py, which enlarges
and pools around it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

f32 = jnp.float32


def on_one_cpu() -> bool:
    """Whether a CPU computes alone.

    Several CPUs are simulated devices that share a batch: a loop over pieces
    of it would make each of them compute the pieces of all.
    """
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def plain_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1: x (N, h, w, c), kernel (k, k, c, d) -> (N, h, w, d)."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`plain_conv`, by way of products where they are faster."""
    if not on_one_cpu():
        return plain_conv(x, kernel)
    k, width = len(kernel), x.shape[2]
    if width < k or (k > 3 and width >= WIDE):
        return product_conv(x, kernel)
    return plain_conv(x, kernel)


def _conv_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv(x, kernel), (x, kernel)


def _conv_backward(
    saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    if not on_one_cpu():
        return jax.vjp(plain_conv, x, kernel)[1](dy)
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)  # (k, k, d, c)
    return conv(dy, flipped), kernel_gradient(x, dy, len(kernel))


conv.defvjp(_conv_forward, _conv_backward)

WIDE = 32  # pixels from which on products beat XLA's convolution on CPUs


def product_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`plain_conv` as matrix products between two shifts.

    A product is over columns of the kernel before it, and gives a result for
    each of its rows, which are summed after it: k times less to copy than
    all k * k shifts of x.
    """
    k, _, c, d = kernel.shape
    h = x.shape[1]
    weights = kernel.transpose(1, 2, 0, 3).reshape(k * c, k * d)
    around = ((0, 0), (k // 2, k // 2), (0, 0), (0, 0))

    def product(piece: jax.Array) -> jax.Array:
        rows = jnp.pad(_shifts(piece, k, axis=2) @ weights, around)
        rows = jnp.split(rows, k, -1)
        return sum(row[:, i : i + h] for i, row in enumerate(rows))

    results = jax.lax.map(product, _pieces(x, k * (c + d)))
    return results.reshape(*x.shape[:-1], d)


def kernel_gradient(x: jax.Array, dy: jax.Array, k: int) -> jax.Array:
    """Gradient of `plain_conv` in its kernel, as matrix products.

    One side of a product holds the shifts along columns, the other one those
    along rows.

    Args:
      x: input of the convolution, (N, h, w, c).
      dy: gradient of its result, (N, h, w, d).
      k: height and width of the kernel.

    Returns:
      (k, k, c, d).
    """
    c, d = x.shape[-1], dy.shape[-1]

    def product(total, piece):
        columns = _shifts(piece[0], k, axis=2).reshape(-1, k * c)
        rows = _shifts(piece[1], k, axis=1).reshape(-1, k * d)
        part = jnp.matmul(columns.T, rows, preferred_element_type=f32)
        return total + part, None

    pieces = [_pieces(y, k * (c + d)) for y in (x, dy)]
    total = jnp.zeros((k * c, k * d), f32)
    total, _ = jax.lax.scan(product, total, pieces)
    # A row of the kernel that looks down meets a gradient that lies above.
    total = total.reshape(k, c, k, d)[:, :, ::-1].transpose(2, 0, 1, 3)
    return total.astype(x.dtype)


PIECE_BYTES = 6 << 20  # of shifted images, which stay in a CPU's cache


def _pieces(x: jax.Array, width: int) -> jax.Array:
    """x (N, h, w, c) as (N / n, n, h, w, c) to work on n images at a time.

    n is the most for which (n, h, w, width) fits `PIECE_BYTES`.
    """
    n, h, w, _ = x.shape
    size = _divisor(n, PIECE_BYTES // (h * w * width * x.dtype.itemsize))
    return x.reshape(n // size, size, *x.shape[1:])


def _shifts(x: jax.Array, k: int, axis: int) -> jax.Array:
    """x (N, h, w, c) shifted by each of k steps, side by side: (.., k * c).

    Shift i has at place p what x has at p + i - k // 2, zero beyond its ends.
    """
    width = [(0, 0)] * 4
    width[axis] = (k // 2, k // 2)
    padded, size = jnp.pad(x, width), x.shape[axis]
    return jnp.concatenate(
        [
            jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            for i in range(k)
        ],
        -1,
    )


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
    size = _divisor(count, CHUNK)
    # Batches without a divisor of some size are better left whole.
    if not on_one_cpu() or size == count or 2 * size < CHUNK:
        return function(*args)
    pieces = [x.reshape(-1, size, *x.shape[1:]) for x in args]
    once = jax.checkpoint(
        lambda piece: function(*piece),
        policy=jax.checkpoint_policies.save_only_these_names(KEPT),
    )
    results = jax.lax.map(once, pieces)
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), results)


def _divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is at most `most`."""
    most = max(1, min(most, count))
    return next(n for n in range(most, 0, -1) if not count % n)
