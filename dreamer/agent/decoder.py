"""States to reconstructions of observations: the decoder.

Paper: arXiv 2301.04104v2, "World model learning" and the methods' "Model
architecture".  The encoder's stages backwards for images, an MLP and a linear
head for everything else.  Next: world_model.py.
"""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from dreamer.agent.convolutions import Conv, ConvNorm
from dreamer.agent.convolve import in_chunks
from dreamer.agent.distributions import Categorical, symlog
from dreamer.agent.encoder import STAGES, image_grid, split_keys
from dreamer.agent.networks import (
    MLP,
    BlockLinear,
    Dense,
    DType,
    Init,
    Linear,
    RMSNorm,
)
from dreamer.agent.types import Batch
from dreamer.hyperparameters import DecoderConfig, RSSMConfig
from dreamer.spaces import Space

f32 = jnp.float32

DECODER_BLOCKS = 8  # of its block-linear layer, whatever the RSSM has


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
          deter: deterministic states (N, D), compute dtype.
          stoch: stochastic states (N, S*C), compute dtype.

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

    def split_images(self, pixels: jax.Array) -> Batch:
        """(..., sum of channels) -> one array per image key."""
        ends = [sum(self.channels[: i + 1]) for i in range(len(self.images))]
        parts = jnp.split(pixels, ends[:-1], -1)
        return dict(zip(self.images, parts, strict=True))

    def image_loss(
        self, deter: jax.Array, stoch: jax.Array, *images: jax.Array
    ) -> Batch:
        """Squared error summed over the pixels of each image: (N,) each."""
        pixels = self.split_images(self.decode_images(deter, stoch))
        losses = {}
        for key, image in zip(self.images, images, strict=True):
            error = pixels[key] - image.astype(f32) / 255
            losses[key] = (error**2).sum((-3, -2, -1))
        return losses

    def vector_loss(
        self, deter: jax.Array, stoch: jax.Array, obs: Batch
    ) -> Batch:
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

    def loss(self, deter: jax.Array, stoch: jax.Array, obs: Batch) -> Batch:
        """Negative log-likelihood of every observation key.

        Args:
          deter: deterministic states (N, D), compute dtype.
          stoch: stochastic states (N, S*C), compute dtype.
          obs: observations (N, *shape) by key; images uint8.

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
