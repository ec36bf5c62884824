"""Convolutions that enlarge and pool, against their slow definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.agent.convolutions import (
    FEW_CHANNELS,
    pooled_conv,
    upsampled_conv,
)
from dreamer.agent.convolve import conv, plain_conv
from tests.agent.test_convolve import slow_conv, whole_numbers


@pytest.mark.parametrize("height", [1, 2, 5])
def test_upsampled_conv_is_exactly_repeat_then_conv(height):
    x, kernel = whole_numbers(2, height, 4, 3), whole_numbers(5, 5, 3, 2)
    enlarged = x.repeat(2, 1).repeat(2, 2)
    result = upsampled_conv(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_array_equal(result, slow_conv(enlarged, kernel))


def test_upsampled_conv_has_the_same_gradients():
    x, kernel = whole_numbers(1, 3, 2, 2), whole_numbers(5, 5, 2, 2)
    weight = whole_numbers(1, 6, 4, 2)

    def fast(x, kernel):
        return (upsampled_conv(x, kernel) * weight).sum()

    def slow(x, kernel):
        x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
        return (conv(x, kernel) * weight).sum()

    args = jnp.asarray(x), jnp.asarray(kernel)
    ours, theirs = (jax.grad(f, (0, 1))(*args) for f in (fast, slow))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])


# Few input channels and more take different paths.
@pytest.mark.parametrize("channels", [1, 3, FEW_CHANNELS + 1])
def test_pooled_conv_is_exactly_the_largest_of_four(channels):
    x, kernel = (
        whole_numbers(2, 6, 4, channels),
        whole_numbers(5, 5, channels, 3),
    )
    y = slow_conv(x, kernel)
    corners = [y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    result = pooled_conv(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_array_equal(result, np.max(corners, 0))


@pytest.mark.parametrize("channels", [1, FEW_CHANNELS + 1])
def test_equal_pixels_share_the_gradient_of_pooling(channels):
    # Of numbers this small and rare, many sums are equal.
    rng = np.random.default_rng(0)
    x = (rng.random((3, 16, 24, channels)) < 0.02).astype(np.float32)
    kernel = rng.integers(0, 2, (5, 5, channels, 2)).astype(np.float32)
    # Whole multiples of halves and thirds, for exact sums.
    weight = 12 * rng.integers(-8, 9, (3, 8, 12, 2)).astype(np.float32)

    def fast(x, kernel):
        return (pooled_conv(x, kernel) * weight).sum()

    def slow(x, kernel):
        windows = plain_conv(x, kernel).reshape(3, 8, 2, 12, 2, 2)
        return (windows.max((2, 4)) * weight).sum()

    args = jnp.asarray(x), jnp.asarray(kernel)
    windows = np.asarray(plain_conv(*args)).reshape(3, 8, 2, 12, 2, 2)
    largest = (windows == windows.max((2, 4), keepdims=True)).sum((2, 4))
    assert set(np.unique(largest)) == {1, 2, 3, 4}
    ours, theirs = (jax.grad(f, (0, 1))(*args) for f in (fast, slow))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
