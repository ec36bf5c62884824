"""Convolutions against their slow definition; chunks against the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.agent import convolve
from dreamer.agent.convolve import WIDE, conv, in_chunks, plain_conv

RNG = np.random.default_rng(0)


def whole_numbers(*shape):
    """Small enough for every float32 sum of products to be exact."""
    return RNG.integers(-8, 9, shape).astype(np.float32)


def slow_conv(x, kernel):
    """Sum over the taps of shifted, zero-padded images."""
    n, h, w, _ = x.shape
    padded = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
    return sum(
        padded[:, i : i + h, j : j + w] @ kernel[i, j]
        for i in range(5)
        for j in range(5)
    ).reshape(n, h, w, -1)


# From `WIDE` on and below the kernel's size, CPUs take another path.
@pytest.mark.parametrize("width", [1, 4, 8, WIDE])
def test_conv_is_the_sum_over_its_taps(width):
    x, kernel = whole_numbers(2, 6, width, 3), whole_numbers(5, 5, 3, 4)
    np.testing.assert_array_equal(conv(x, kernel), slow_conv(x, kernel))


# All images at once, two at a time, one at a time although none fits.
@pytest.mark.parametrize("images", [6, 2, 0])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("width", [2, 8, WIDE])
def test_conv_gradients_are_those_of_the_plain_convolution(
    monkeypatch, width, size, images
):
    shifts = 4 * 4 * width * size * (2 + 3)  # bytes of one image
    monkeypatch.setattr(convolve, "PIECE_BYTES", images * shifts)
    x, dy = whole_numbers(6, 4, width, 2), whole_numbers(6, 4, width, 3)
    kernel = whole_numbers(size, size, 2, 3)
    y, pull = jax.vjp(conv, x, kernel)
    expected_y, expected_pull = jax.vjp(plain_conv, x, kernel)
    np.testing.assert_array_equal(y, expected_y)
    for ours, theirs in zip(pull(dy), expected_pull(dy), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [7, 64, 96, 128, 131])
def test_chunks_change_nothing(count):
    calls = []

    def function(x, y):
        calls.append(len(x))
        return {"sum": x.sum(1) * y, "twice": 2 * x}

    x = jnp.arange(count * 3.0).reshape(count, 3)
    y = jnp.arange(count * 1.0)
    ours = in_chunks(function, x, y)
    # 131 is a prime: left whole. 7 and 64 are one chunk.
    assert calls == [{96: 48, 128: 64}.get(count, count)]
    np.testing.assert_array_equal(ours["sum"], x.sum(1) * y)
    np.testing.assert_array_equal(ours["twice"], 2 * x)
    grad = jax.grad(lambda x: in_chunks(function, x, y)["sum"].sum())
    np.testing.assert_array_equal(
        grad(x), jnp.broadcast_to(y[:, None], x.shape)
    )
