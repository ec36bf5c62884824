"""Observations of every kind into tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.agent.distributions import symlog
from dreamer.agent.encoder import Encoder, split_keys
from dreamer.agent.networks import Init
from dreamer.options import ConfigError
from dreamer.spaces import Space
from tests.agent.tiny import MIXED, draw, tiny_config

CONFIG = tiny_config()
N = 3
RNG = np.random.default_rng(0)


def observations(spaces, lead=(N,)):
    obs = {k: jnp.asarray(draw(s, lead, RNG)) for k, s in spaces.items()}
    return obs | {"is_first": jnp.zeros(lead, bool)}


def make_encoder(spaces):
    return Encoder(spaces, CONFIG.enc.simple, dtype=jnp.float32, init=Init(0))


def encode(encoder):
    """Compiled, which is quicker than one operation after the other."""
    return jax.jit(lambda obs: encoder(obs))


def test_keys_are_sorted_and_split_by_kind():
    images, vectors = split_keys(MIXED)
    assert images == ["camera", "depth"]
    assert vectors == ["inventory", "position", "weapon"]


def test_images_of_different_sizes_are_refused():
    spaces = {
        "a": Space("image", (16, 16, 3)),
        "b": Space("image", (32, 32, 3)),
    }
    with pytest.raises(ConfigError, match=r"a, b have sizes .*one size"):
        split_keys(spaces)


def test_sizes_that_do_not_halve_four_times_are_refused():
    with pytest.raises(ConfigError, match=r"\(84, 84\).*multiples of 16"):
        split_keys({"image": Space("image", (84, 84, 3))})


def test_vectors_enter_as_symlog_and_discrete_as_one_hot_in_key_order():
    encoder = make_encoder(MIXED)
    obs = observations(MIXED)
    obs["inventory"] = jnp.array([[1, 3]] * N)
    obs["weapon"] = jnp.array([4] * N)
    flat = encoder.flat_vectors(obs)
    assert flat.shape == (N, 2 * 4 + 3 + 5)
    expected = [0, 1, 0, 0, 0, 0, 0, 1]
    np.testing.assert_array_equal(flat[0, :8], expected)
    np.testing.assert_allclose(
        flat[:, 8:11], symlog(obs["position"]), rtol=1e-6
    )
    np.testing.assert_array_equal(flat[0, 11:], [0, 0, 0, 0, 1])


def test_tokens_are_vector_then_image():
    mixed = make_encoder(MIXED)
    obs = observations(MIXED)
    tokenise = encode(mixed)
    tokens = tokenise(obs)
    assert tokens.shape == (N, mixed.width)
    assert mixed.width == 8 + 1 * 1 * 4 * 2
    assert len(mixed.mlp.layers) == CONFIG.enc.simple.layers == 1
    other = obs | {"weapon": (obs["weapon"] + 1) % 5}
    differs = np.abs(tokenise(other) - tokens).max(0) > 0
    assert differs[:8].any()
    assert not differs[8:].any()
    for key in ("camera", "depth"):
        other = obs | {key: 255 - obs[key]}
        differs = np.abs(tokenise(other) - tokens).max(0) > 0
        assert not differs[:8].any()
        assert differs[8:].any()


def test_leading_dimensions_do_not_matter():
    encoder = make_encoder(MIXED)
    obs = observations(MIXED, (2, 3))
    flat = {k: x.reshape(6, *x.shape[2:]) for k, x in obs.items()}
    tokens = encode(encoder)(obs)
    assert tokens.shape == (2, 3, encoder.width)
    np.testing.assert_allclose(
        tokens.reshape(6, -1), encode(encoder)(flat), rtol=1e-4, atol=1e-5
    )


def test_pixels_enter_between_minus_and_plus_a_half():
    encoder = make_encoder({"image": Space("image", (16, 16, 1))})
    seen = []

    def spy(x):
        seen.append(x)
        return x

    encoder.stages = [spy]
    image = np.zeros((1, 16, 16, 1), np.uint8)
    image[0, 0, 0], image[0, 0, 1] = 255, 51
    encoder({"image": jnp.asarray(image)})
    expected = [0.5, -0.3, -0.5]
    np.testing.assert_allclose(seen[0][0, 0, :3, 0], expected, atol=1e-6)
