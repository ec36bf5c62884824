"""Observations to tokens: the encoder.

Paper: arXiv 2301.04104v2, "World model learning" and the methods' "Model
architecture".  Images pass through four convolution stages, everything else
through an MLP; it takes any mix of the two.  Next: rssm.py, which consumes
the tokens; decoder.py, the way back.
"""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from dreamer.agent.convolutions import ConvNorm
from dreamer.agent.convolve import in_chunks
from dreamer.agent.distributions import symlog
from dreamer.agent.networks import MLP, DType, Init
from dreamer.agent.types import Batch
from dreamer.hyperparameters import EncoderConfig
from dreamer.options import ConfigError
from dreamer.spaces import Space

f32 = jnp.float32

STAGES = (2, 3, 4, 4)  # channels of each stage in units of `depth`


def split_keys(spaces: dict[str, Space]) -> tuple[list[str], list[str]]:
    """Names of images and of everything else, each sorted.

    Raises:
      ConfigError: images differ in size or are no multiple of 16.
    """
    images = sorted(k for k, s in spaces.items() if s.kind == "image")
    vectors = sorted(k for k in spaces if k not in images)
    sizes = {spaces[k].shape[:2] for k in images}
    if len(sizes) > 1:
        raise ConfigError(
            f"images {', '.join(images)} have sizes {sorted(sizes)}, "
            "allowed: one size for all"
        )
    factor = 2 ** len(STAGES)
    for size in sizes:
        if size[0] % factor or size[1] % factor:
            raise ConfigError(
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

    def __call__(self, obs: Batch) -> jax.Array:
        tokens = []
        if self.vectors:
            tokens.append(self.mlp(self.flat_vectors(obs)))
        if self.images:
            tokens.append(self.encode_images(obs))
        return jnp.concatenate(tokens, -1)

    def flat_vectors(self, obs: Batch) -> jax.Array:
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

    def encode_images(self, obs: Batch) -> jax.Array:
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
