"""Layers against plain NumPy and against their slow definitions."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dreamer.agent import convolve
from dreamer.agent.convolutions import Conv
from dreamer.agent.networks import (
    MLP,
    BlockLinear,
    Dense,
    Head,
    Init,
    Linear,
    RMSNorm,
    SplitLinear,
    add_bias,
    cast_kernels,
)
from dreamer.hyperparameters import AgentConfig

KW = dict(dtype=jnp.float32, init=Init(0))
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# Initialiser


def test_kernels_are_truncated_normal_with_deviation_by_fan_in():
    kernel = np.asarray(Init(0).kernel((400, 400), 400)[...])
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel.std(), 1 / 20, rtol=0.01)
    assert abs(kernel.mean()) < 1e-3
    # 1.1368 makes up for the ends cut off at two deviations.
    limit = 2 * 1.1368 / 20
    assert 0.99 * limit < np.abs(kernel).max() < 1.001 * limit


def test_outscale_multiplies_and_zero_means_zero():
    usual, small = (
        np.asarray(Init(3).kernel((5, 5), 5, scale)[...])
        for scale in (1.0, 0.01)
    )
    np.testing.assert_allclose(small, 0.01 * usual, rtol=1e-5)
    assert not np.any(Init(3).kernel((5, 5), 5, 0.0)[...])


def test_one_seed_one_set_of_values():
    first, same, other = (
        np.asarray(Init(seed).kernel((4, 4), 4)[...]) for seed in (0, 0, 1)
    )
    assert (first == same).all()
    assert (first != other).all()


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (Linear(256, 300, **KW), 256),
        (Conv(8, 64, resize="up", **KW), 5 * 5 * 8),
        (Conv(8, 64, resize="down", **KW), 5 * 5 * 8),
        # The whole input width, all blocks together.
        (BlockLinear(256, 512, 4, **KW), 256),
    ],
)
def test_fan_in_of_every_layer(layer, fan_in):
    std = np.std(layer.kernel[...])
    np.testing.assert_allclose(std, fan_in**-0.5, rtol=0.03)
    assert not np.any(layer.bias[...])


# Linear layers


def test_linear_layer():
    layer = Linear(3, 2, **KW)
    layer.bias[...] = jnp.array([1.0, -1.0])
    x = normal(4, 5, 3)
    expected = x @ np.asarray(layer.kernel[...]) + [1, -1]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        Linear(10, 5, **KW),
        Dense(10, 5, **KW),
        MLP(10, 5, 2, **KW),
        Head(10, 5, AgentConfig().rewhead, **KW),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("width", [3, 11])
def test_inputs_of_another_width_fail(layer, width):
    layer(jnp.asarray(normal(2, 10)))
    with pytest.raises(TypeError, match=rf"\({width},\)"):
        layer(jnp.asarray(normal(2, width)))


def test_parts_add_up_to_the_layer_on_the_whole():
    split, whole = SplitLinear(3, 4, 5, **KW), Linear(7, 5, **KW)
    whole.bias[...] = split.bias[...] = jnp.asarray(normal(5))
    whole.kernel[...] = split.kernel[...]
    x = normal(2, 7)
    parts = split(x[:, :3], split.project(x[:, 3:]))
    np.testing.assert_allclose(parts, whole(x), rtol=1e-5, atol=1e-6)


def test_parts_of_another_width_fail():
    layer = SplitLinear(3, 4, 5, **KW)
    for width in (2, 4):
        with pytest.raises(TypeError, match=rf"\({width},\)"):
            layer(jnp.asarray(normal(2, width)), jnp.zeros((2, 5)))
    for width in (3, 7):
        with pytest.raises(TypeError, match=rf"\({width},\)"):
            layer.project(jnp.asarray(normal(2, width)))


def test_a_split_layer_starts_out_as_a_whole_one():
    split = SplitLinear(3, 4, 5, dtype=jnp.float32, init=Init(0))
    whole = Linear(7, 5, dtype=jnp.float32, init=Init(0))
    np.testing.assert_array_equal(split.kernel[...], whole.kernel[...])


def test_block_linear_is_a_block_diagonal_matrix():
    layer = BlockLinear(6, 8, 2, **KW)
    layer.bias[...] = jnp.asarray(normal(8))
    matrix = np.zeros((6, 8), np.float32)
    matrix[:3, :4], matrix[3:, 4:] = np.asarray(layer.kernel[...])
    x = normal(5, 6)
    expected = x @ matrix + np.asarray(layer.bias[...])
    y = layer(x.reshape(5, 2, 3))
    assert y.shape == (5, 2, 4)
    np.testing.assert_allclose(y.reshape(5, 8), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("on_one_cpu", [True, False])
def test_block_linear_with_shared_inputs(monkeypatch, on_one_cpu):
    """As if they were written next to those of every part, both ways."""
    monkeypatch.setattr(convolve, "on_one_cpu", lambda: on_one_cpu)
    layer = BlockLinear(2 * (3 + 5), 8, 2, **KW)
    layer.bias[...] = normal(8)
    x, shared = normal(4, 2, 3), normal(4, 5)
    whole = np.stack(
        [np.concatenate([x[:, part], shared], -1) for part in (0, 1)], 1
    )
    np.testing.assert_allclose(
        layer(x, shared=shared), layer(whole), rtol=1e-5, atol=1e-6
    )


def test_cast_kernels_leaves_scales_and_biases():
    params = {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)}
    cast = cast_kernels(params, jnp.bfloat16)
    assert cast["kernel"].dtype == jnp.bfloat16
    assert cast["scale"].dtype == jnp.float32


def test_rms_norm_of_a_hand_computed_case():
    norm = RMSNorm(2, **KW)
    norm.scale[...] = jnp.array([1.0, 10.0])
    # The mean square of 3 and 4 is 12.5.
    expected = [3 / np.sqrt(12.5001), 40 / np.sqrt(12.5001)]
    result = norm(jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_rms_norm_epsilon_is_1e_4():
    # x^2 = 1e-4 too, so the norm is 1 / sqrt(2).
    result = RMSNorm(2, **KW)(jnp.array([0.01, -0.01]))
    np.testing.assert_allclose(result, [0.7071068, -0.7071068], rtol=1e-5)


def test_rms_norm_sums_in_float32():
    # In bfloat16 a sum of ones stops at 256.
    norm = RMSNorm(4096, dtype=jnp.bfloat16, init=Init(0))
    result = norm(jnp.ones(4096, jnp.bfloat16))
    assert result.dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(result.astype(np.float32), 1, rtol=0.005)


def test_dense_is_linear_then_norm_then_silu():
    layer = Dense(3, 4, **KW)
    layer.norm.scale[...] = jnp.asarray(normal(4))
    x = normal(2, 3)
    y = x @ np.asarray(layer.linear.kernel[...])
    y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-4)
    y = y * np.asarray(layer.norm.scale[...])
    expected = y / (1 + np.exp(-y))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_mlp_applies_its_layers_in_turn():
    mlp = MLP(3, 4, 2, **KW)
    x = normal(2, 3)
    expected = mlp.layers[1](mlp.layers[0](x))
    np.testing.assert_array_equal(mlp(x), expected)
    assert len(mlp.layers) == 2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_are_float32_and_results_in_the_compute_dtype(dtype):
    kw = dict(dtype=dtype, init=Init(0))
    cases = [
        (Dense(8, 8, **kw).linear, (2, 8)),
        (BlockLinear(8, 8, 2, **kw), (2, 2, 4)),
        (Conv(1, 2, resize="up", **kw), (1, 4, 4, 1)),
        (Conv(1, 2, resize="down", **kw), (1, 4, 4, 1)),
    ]
    for layer, shape in cases:
        assert layer.kernel[...].dtype == np.float32
        assert layer(jnp.asarray(normal(*shape))).dtype == dtype


def test_gradient_of_a_bias_is_summed_in_float32():
    rows = jnp.zeros((64, 8, 3), jnp.bfloat16)

    def loss(bias):
        y = add_bias(rows, bias)
        assert y.dtype == jnp.bfloat16
        return y.astype(jnp.float32).sum()

    program = str(jax.make_jaxpr(jax.grad(loss))(jnp.zeros(3)))
    sums = re.findall(r":(\w+)\[3\] = reduce_sum\[\s*axes=", program)
    assert sums == ["f32"]
    np.testing.assert_array_equal(jax.grad(loss)(jnp.zeros(3)), [512.0] * 3)
