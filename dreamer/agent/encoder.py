"""Observations to tokens and back: encoder and decoder.

Paper: arXiv 2301.04104v2, "World model learning" and the methods' "Model
architecture".  Images pass through four convolution stages, everything else
through an MLP; both ends take any mix of the two.  Next: rssm.py, which
consumes the tokens and feeds the decoder.
"""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from dreamer.agent.convolutions import Conv, ConvNorm
from dreamer.agent.convolve import in_chunks
from dreamer.agent.distributions import Categorical
from dreamer.agent.networks import (
    MLP,
    BlockLinear,
    Dense,
    DType,
    Init,
    Linear,
    RMSNorm,
)
from dreamer.agent.transforms import symlog
from dreamer.hyperparameters import DecoderConfig, EncoderConfig, RSSMConfig
from dreamer.spaces import Space

f32 = jnp.float32
Obs = dict[str, jax.Array]

STAGES = (2, 3, 4, 4)  # channels of each stage in units of `depth`
DECODER_BLOCKS = 8  # of the decoder's block-linear, whatever the RSSM has


def split_keys(spaces: dict[str, Space]) -> tuple[list[str], list[str]]:
    """Names of images and of everything else, each sorted.

    Raises:
      ValueError: images differ in size or are no multiple of 16.
    """
    images = sorted(k for k, s in spaces.items() if s.kind == "image")
    vectors = sorted(k for k in spaces if k not in images)
    sizes = {spaces[k].shape[:2] for k in images}
    if len(sizes) > 1:
        raise ValueError(
            f"images {', '.join(images)} have sizes {sorted(sizes)}, "
            "allowed: one size for all"
        )
    factor = 2 ** len(STAGES)
    for size in sizes:
        if size[0] % factor or size[1] % factor:
            raise ValueError(
                f"image size is {size}, allowed: multiples of {factor}"
            )
    return images, vectors


def image_grid(space: Space) -> tuple[int, int]:
    """Height and width that are left after the encoder's stages."""
    factor = 2 ** len(STAGES)
    return space.shape[0] // factor, space.shape[1] // factor


class Encoder(nnx.Module):
    """Observation dict (..., *shape of each key) -> tokens (..., width)."""

    def __init__(
        self,
        spaces: dict[str, Space],
        config: EncoderConfig,
        *,
        dtype: DType,
        init: Init,
    ):
        images, vectors = split_keys(spaces)
        self.images, self.vectors = tuple(images), tuple(vectors)
        self.classes = tuple(spaces[k].classes for k in vectors)
        self.dtype = dtype
        self.width = 0
        if vectors:
            inputs = sum(
                math.prod(spaces[k].shape) * max(1, spaces[k].classes)
                for k in vectors
            )
            size = (inputs, config.units, config.layers)
            self.mlp = MLP(*size, dtype=dtype, init=init)
            self.width += config.units
        if images:
            channels = sum(spaces[k].shape[-1] for k in images)
            depths = [config.depth * stage for stage in STAGES]
            self.stages = nnx.List(
                ConvNorm(inputs, units, dtype=dtype, init=init, resize="down")
                for inputs, units in pairwise([channels, *depths])
            )
            height, width = image_grid(spaces[images[0]])
            self.width += height * width * depths[-1]

    def __call__(self, obs: Obs) -> jax.Array:
        tokens = []
        if self.vectors:
            tokens.append(self.mlp(self.flat_vectors(obs)))
        if self.images:
            tokens.append(self.encode_images(obs))
        return jnp.concatenate(tokens, -1)

    def flat_vectors(self, obs: Obs) -> jax.Array:
        """symlog of vectors and one-hot of discrete, (..., inputs)."""
        parts = []
        for key, classes in zip(self.vectors, self.classes, strict=True):
            if not classes:
                parts.append(symlog(obs[key].astype(f32)))
                continue
            x = jax.nn.one_hot(obs[key], classes)
            lead = obs["is_first"].shape
            parts.append(x.reshape(*lead, -1))  # (..., n*classes)
        return jnp.concatenate(parts, -1).astype(self.dtype)

    def encode_images(self, obs: Obs) -> jax.Array:
        """(..., h/16 * w/16 * 4*depth)."""
        x = jnp.concatenate([obs[k] for k in self.images], -1)
        lead = x.shape[:-3]
        tokens = in_chunks(self.convolve, x.reshape(-1, *x.shape[-3:]))
        return tokens.reshape(*lead, -1)

    def convolve(self, x: jax.Array) -> jax.Array:
        """(N, h, w, c) uint8 -> (N, h/16 * w/16 * 4*depth)."""
        x = x.astype(self.dtype) / 255 - 0.5
        for stage in self.stages:
            x = stage(x)
        return x.reshape(len(x), -1)


class Decoder(nnx.Module):
    """State to reconstructions; `loss` compares them with observations."""

    def __init__(
        self,
        spaces: dict[str, Space],
        config: DecoderConfig,
        rssm: RSSMConfig,
        *,
        dtype: DType,
        init: Init,
    ):
        images, vectors = split_keys(spaces)
        self.images, self.vectors = tuple(images), tuple(vectors)
        self.classes = tuple(spaces[k].classes for k in vectors)
        self.shapes = tuple(spaces[k].shape for k in vectors)
        self.channels = tuple(spaces[k].shape[-1] for k in images)
        self.dtype = dtype
        stoch = rssm.stoch * rssm.classes
        if vectors:
            size = (stoch + rssm.deter, config.units, config.layers)
            self.mlp = MLP(*size, dtype=dtype, init=init)
            self.heads = nnx.Dict(
                {
                    k: Linear(
                        config.units,
                        math.prod(spaces[k].shape) * max(1, spaces[k].classes),
                        dtype=dtype,
                        init=init,
                    )
                    for k in vectors
                }
            )
        if images:
            self.grid = image_grid(spaces[images[0]])
            self.build_image_layers(config, rssm.deter, stoch, init)

    def build_image_layers(
        self, config: DecoderConfig, deter: int, stoch: int, init: Init
    ) -> None:
        kw = dict(dtype=self.dtype, init=init)
        depths = [config.depth * stage for stage in STAGES]
        units = self.grid[0] * self.grid[1] * depths[-1]
        self.deter_in = BlockLinear(deter, units, DECODER_BLOCKS, **kw)
        self.stoch_in = Dense(stoch, 2 * config.units, **kw)
        self.stoch_out = Linear(2 * config.units, units, **kw)
        self.norm = RMSNorm(depths[-1], **kw)
        narrowing = depths[::-1]
        self.stages = nnx.List(
            ConvNorm(inputs, outputs, resize="up", **kw)
            for inputs, outputs in pairwise(narrowing)
        )
        self.out = Conv(depths[0], sum(self.channels), resize="up", **kw)

    def decode_images(self, deter: jax.Array, stoch: jax.Array) -> jax.Array:
        """Pixels in 0..1 of all images, channels in key order.

        Args:
          deter: (N, D) compute dtype.
          stoch: (N, S*C) compute dtype.

        Returns:
          (N, h, w, sum of channels) float32.
        """
        n, g, (h, w) = len(deter), DECODER_BLOCKS, self.grid
        x = self.deter_in(deter.reshape(n, g, -1))  # (N, G, h*w*c/G)
        x = x.reshape(n, g, h, w, -1).transpose(0, 2, 3, 1, 4)
        x = x.reshape(n, h, w, -1)  # channels ordered (block, channel)
        x += self.stoch_out(self.stoch_in(stoch)).reshape(x.shape)
        x = jax.nn.silu(self.norm(x))
        for stage in self.stages:
            x = stage(x)
        return jax.nn.sigmoid(self.out(x)).astype(f32)

    def split_images(self, pixels: jax.Array) -> Obs:
        """(..., sum of channels) -> one array per image key."""
        ends = [sum(self.channels[: i + 1]) for i in range(len(self.images))]
        parts = jnp.split(pixels, ends[:-1], -1)
        return dict(zip(self.images, parts, strict=True))

    def image_loss(
        self, deter: jax.Array, stoch: jax.Array, *images: jax.Array
    ) -> Obs:
        """Squared error summed over the pixels of each image: (N,) each."""
        pixels = self.split_images(self.decode_images(deter, stoch))
        losses = {}
        for key, image in zip(self.images, images, strict=True):
            error = pixels[key] - image.astype(f32) / 255
            losses[key] = (error**2).sum((-3, -2, -1))
        return losses

    def vector_loss(self, deter: jax.Array, stoch: jax.Array, obs: Obs) -> Obs:
        """Symlog squared error, or cross-entropy for discrete: (N,) each."""
        losses = {}
        x = self.mlp(jnp.concatenate([stoch, deter], -1))
        for key, classes, shape in zip(
            self.vectors, self.classes, self.shapes, strict=True
        ):
            out = self.heads[key](x).astype(f32)
            if classes:
                out = out.reshape(len(x), *shape, classes)
                loss = -Categorical.of(out).log_prob(obs[key])
            else:
                loss = (out - symlog(obs[key].astype(f32))) ** 2
            losses[key] = loss.reshape(len(x), -1).sum(-1)
        return losses

    def loss(self, deter: jax.Array, stoch: jax.Array, obs: Obs) -> Obs:
        """Negative log-likelihood of every observation key.

        Args:
          deter: (N, D), stoch: (N, S*C), both in the compute dtype.
          obs: (N, *shape) of each key; images uint8.

        Returns:
          (N,) float32 by key, summed over pixels or entries.
        """
        losses = {}
        if self.images:
            images = [obs[k] for k in self.images]
            losses |= in_chunks(self.image_loss, deter, stoch, *images)
        if self.vectors:
            losses |= self.vector_loss(deter, stoch, obs)
        return losses
