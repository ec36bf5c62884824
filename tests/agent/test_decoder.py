"""From the state back to observations of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dreamer.agent.decoder import Decoder
from dreamer.agent.networks import Init
from dreamer.spaces import Space
from tests.agent.test_encoder import make_encoder, observations
from tests.agent.tiny import MIXED, tiny_config

CONFIG = tiny_config()
RSSM = CONFIG.dyn.rssm
N = 3
RNG = np.random.default_rng(0)


def make_decoder(spaces):
    kw = dict(dtype=jnp.float32, init=Init(0))
    return Decoder(spaces, CONFIG.dec.simple, RSSM, **kw)


def decode(decoder):
    def losses_and_images(state, obs):
        pixels = decoder.decode_images(*state)
        return decoder.loss(*state, obs), decoder.split_images(pixels)

    return jax.jit(losses_and_images)


def random_state():
    deter = RNG.normal(size=(N, RSSM.deter))
    stoch = RNG.normal(size=(N, RSSM.stoch * RSSM.classes))
    return jnp.asarray(deter, jnp.float32), jnp.asarray(stoch, jnp.float32)


@pytest.mark.parametrize("shape", [(16, 16, 1), (32, 48, 3)])
def test_decoded_images_have_the_shape_of_the_observed(shape):
    decoder = make_decoder({"image": Space("image", shape)})
    pixels = jax.jit(lambda x: decoder.decode_images(*x))(random_state())
    assert pixels.shape == (N, *shape)
    assert pixels.dtype == jnp.float32
    assert 0 < pixels.min() < pixels.max() < 1


def test_several_images_share_the_channels_in_key_order():
    decoder = make_decoder(MIXED)
    assert len(decoder.mlp.layers) == CONFIG.dec.simple.layers == 1
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
