"""Observations of every kind into tokens, and back out of the state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dreamer.agent.encoder import Decoder, Encoder, split_keys
from dreamer.agent.networks import Init
from dreamer.agent.transforms import symlog
from dreamer.spaces import Space
from tests.agent.tiny import MIXED, draw, tiny_config

CONFIG = tiny_config()
RSSM = CONFIG.dyn.rssm
N = 3
RNG = np.random.default_rng(0)


def observations(spaces, lead=(N,)):
    obs = {k: jnp.asarray(draw(s, lead, RNG)) for k, s in spaces.items()}
    return obs | {"is_first": jnp.zeros(lead, bool)}


def make_encoder(spaces):
    return Encoder(spaces, CONFIG.enc.simple, dtype=jnp.float32, init=Init(0))


def make_decoder(spaces):
    kw = dict(dtype=jnp.float32, init=Init(0))
    return Decoder(spaces, CONFIG.dec.simple, RSSM, **kw)


def encode(encoder):
    """Compiled, which is quicker than one operation after the other."""
    return jax.jit(lambda obs: encoder(obs))


def decode(decoder):
    def losses_and_images(state, obs):
        pixels = decoder.decode_images(*state)
        return decoder.loss(*state, obs), decoder.split_images(pixels)

    return jax.jit(losses_and_images)


def random_state():
    deter = RNG.normal(size=(N, RSSM.deter))
    stoch = RNG.normal(size=(N, RSSM.stoch * RSSM.classes))
    return jnp.asarray(deter, jnp.float32), jnp.asarray(stoch, jnp.float32)


def test_keys_are_sorted_and_split_by_kind():
    images, vectors = split_keys(MIXED)
    assert images == ["camera", "depth"]
    assert vectors == ["inventory", "position", "weapon"]


def test_images_of_different_sizes_are_refused():
    spaces = {
        "a": Space("image", (16, 16, 3)),
        "b": Space("image", (32, 32, 3)),
    }
    with pytest.raises(ValueError, match=r"a, b have sizes .*one size"):
        split_keys(spaces)


def test_sizes_that_do_not_halve_four_times_are_refused():
    with pytest.raises(ValueError, match=r"\(84, 84\).*multiples of 16"):
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


@pytest.mark.parametrize("shape", [(16, 16, 1), (32, 48, 3)])
def test_decoded_images_have_the_shape_of_the_observed(shape):
    decoder = make_decoder({"image": Space("image", shape)})
    pixels = jax.jit(lambda x: decoder.decode_images(*x))(random_state())
    assert pixels.shape == (N, *shape)
    assert pixels.dtype == jnp.float32
    assert 0 < pixels.min() < pixels.max() < 1


def test_several_images_share_the_channels_in_key_order():
    decoder = make_decoder(MIXED)
    pixels = jnp.asarray(RNG.uniform(size=(N, 16, 16, 4)))
    parts = decoder.split_images(pixels)
    assert list(parts) == ["camera", "depth"]
    np.testing.assert_array_equal(parts["camera"], pixels[..., :3])
    np.testing.assert_array_equal(parts["depth"], pixels[..., 3:])


def test_image_loss_is_the_squared_error_summed_over_pixels():
    state, obs = random_state(), observations(MIXED)
    losses, parts = decode(make_decoder(MIXED))(state, obs)
    for key in ("camera", "depth"):
        error = np.asarray(parts[key]) - np.asarray(obs[key]) / 255.0
        np.testing.assert_allclose(
            losses[key], (error**2).sum((1, 2, 3)), rtol=1e-5
        )


def test_vector_losses_of_heads_that_know_nothing():
    kw = dict(dtype=jnp.float32, init=Init())  # all weights 0
    decoder = Decoder(MIXED, CONFIG.dec.simple, RSSM, **kw)
    obs = observations(MIXED)
    obs["position"] = jnp.array([[0, np.e - 1, 1 - np.e**2]] * N)
    losses, _ = decode(decoder)(random_state(), obs)
    # symlog: 0, 1, -2, and the prediction is 0
    np.testing.assert_allclose(losses["position"], [5] * N, rtol=1e-5)
    # two entries of four classes, and one of five
    np.testing.assert_allclose(
        losses["inventory"], [2 * np.log(4)] * N, rtol=1e-5
    )
    np.testing.assert_allclose(losses["weapon"], [np.log(5)] * N, rtol=1e-5)


def test_discrete_loss_reads_each_entry_from_its_own_logits():
    kw = dict(dtype=jnp.float32, init=Init())
    decoder = Decoder(MIXED, CONFIG.dec.simple, RSSM, **kw)
    logits = np.zeros((2, 4), np.float32)
    logits[0, 1], logits[1, 3] = np.log(2), np.log(4)
    decoder.heads["inventory"].bias[...] = jnp.asarray(logits.ravel())
    obs = observations(MIXED) | {"inventory": jnp.array([[1, 3]] * N)}
    losses, _ = decode(decoder)(random_state(), obs)
    # -ln(2/5) - ln(4/7)
    np.testing.assert_allclose(losses["inventory"], [1.4759065] * N, rtol=1e-5)


def test_chunks_of_a_cpu_and_the_whole_of_an_accelerator_agree(monkeypatch):
    # 96 images pass in two chunks on a CPU, at once elsewhere; the gradients
    # of convolutions are then spelled out differently, too.
    spaces = {"image": Space("image", (16, 16, 3))}
    obs = observations(spaces, (2, 48))
    encoder, decoder = make_encoder(spaces), make_decoder(spaces)
    rng = np.random.default_rng(1)
    deter = rng.normal(size=(96, RSSM.deter)).astype(np.float32)
    stoch = rng.normal(size=(96, RSSM.stoch * RSSM.classes))
    stoch = stoch.astype(np.float32)
    flat = {"image": obs["image"].reshape(96, 16, 16, 3)}

    def gradients(backend):
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        encoder_graph, encoder_params = nnx.split(encoder)
        decoder_graph, decoder_params = nnx.split(decoder)

        def loss(encoder_params, decoder_params, deter):
            tokens = nnx.merge(encoder_graph, encoder_params)(obs)
            decode = nnx.merge(decoder_graph, decoder_params)
            losses = decode.loss(deter, stoch, flat)
            return (tokens**2).mean() + losses["image"].mean()

        grad = jax.jit(jax.grad(loss, (0, 1, 2)))
        return jax.tree.leaves(grad(encoder_params, decoder_params, deter))

    for on_cpu, elsewhere in zip(
        gradients("cpu"), gradients("gpu"), strict=True
    ):
        scale = np.abs(elsewhere).max()
        np.testing.assert_allclose(on_cpu, elsewhere, atol=1e-4 * scale)
