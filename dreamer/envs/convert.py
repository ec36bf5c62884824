"""Observations of any Gymnasium environment, as the agent takes them.

`converter` picks, for one observation, the canonical space and the function
that brings values into it. The function looks at each of them: what has
another form than its space says would not fail, but be broadcast, cut off or
taken for something else, and train an agent on nonsense. Read next: `gym.py`,
which adapts whole environments.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image

from dreamer.envs.host import Unusable
from dreamer.options import ConfigError

# Of an image. One with more is likely to have its channels first.
MOST_CHANNELS = 16
# Of 255, which is white. The agent sees next to nothing of darker images.
LEAST_WHITE = 32

Converter = Callable[[Any], np.ndarray]


def is_image(space: spaces.Space) -> bool:
    """Whether observations of that space become an image."""
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) in (2, 3)
    )


def converter(
    name: str, space: spaces.Space, size: tuple[int, int]
) -> tuple[spaces.Space, Converter]:
    """The canonical space of an observation and the way into it.

    Args:
        name: words that begin messages, as in "observation 'x'".
        space: the environment's own space of it.
        size: height and width of images.

    Raises:
        ConfigError: if the space is not supported. The function raises
            `Unusable` for a value that is not in its space.
    """
    if is_image(space) and 0 not in space.shape:
        return _image(name, space, size)
    if isinstance(space, spaces.Box) and 0 not in space.shape:
        count = int(np.prod(space.shape))
        target = spaces.Box(-np.inf, np.inf, (count,), np.float32)
        return target, lambda value: _vector(name, space, value)
    if isinstance(space, spaces.Discrete):
        # Of a narrow type, maybe, that their sum does not fit in.
        low, count = int(space.start), int(space.n)
        return spaces.Discrete(
            count
        ), lambda value: _whole(name, value, (), low, low + count - 1) - low
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.size:
        start, last = space.start, space.start + space.nvec - 1
        return spaces.MultiDiscrete(space.nvec.reshape(-1)), lambda value: (
            _whole(name, value, space.shape, start, last) - start
        ).reshape(-1)
    raise ConfigError(
        f"{name} has the space {space}, allowed: Box, Discrete and"
        " MultiDiscrete with at least one entry, or one Dict of these"
    )


def _image(
    name: str, space: spaces.Box, size: tuple[int, int]
) -> tuple[spaces.Space, Converter]:
    channels = space.shape[2] if len(space.shape) == 3 else 1
    if channels > MOST_CHANNELS:
        raise ConfigError(
            f"{name} has the space {space}, an image with {channels}"
            f" channels, allowed: at most {MOST_CHANNELS}, and they come last;"
            " gymnasium.wrappers.TransformObservation moves them there with"
            " numpy.moveaxis(x, 0, -1)"
        )
    white = space.high.max()
    if white < LEAST_WHITE:
        raise ConfigError(
            f"{name} has the space {space}, an image with {white} for white,"
            " allowed: 255; gymnasium.wrappers.TransformObservation scales"
            " it, or makes it a vector by another dtype, such as int8"
        )

    def convert(value: Any) -> np.ndarray:
        value = np.asarray(value)
        if value.dtype != np.uint8 or value.shape != space.shape:
            value = _whole(name, value, space.shape, 0, 255).astype(np.uint8)
        return resize(value, size)

    return spaces.Box(0, 255, (*size, channels), np.uint8), convert


def _vector(name: str, space: spaces.Box, value: Any) -> np.ndarray:
    """Numbers of a given shape -> float32 (n,)."""
    value = np.asarray(value)
    if value.shape != space.shape or value.dtype.kind not in "fiub":
        raise _unusable(name, value, f"numbers of shape {space.shape}")
    with np.errstate(all="ignore"):  # what becomes infinite is refused later
        return value.astype(np.float32).reshape(-1)


def to_number(name: str, value: Any) -> float:
    """One number, of Python or in an array of whatever shape.

    Raises:
        Unusable: if it is something else.
    """
    value = np.asarray(value)
    if value.size != 1 or value.dtype.kind not in "fiub":
        raise _unusable(name, value, "one number")
    return float(value.reshape(()))


def _whole(
    name: str, value: Any, shape: tuple[int, ...], low: Any, high: Any
) -> np.ndarray:
    """Whole numbers of a given shape between two bounds -> int64."""
    value = np.asarray(value)
    if value.shape != shape or value.dtype.kind not in "iub":
        raise _unusable(name, value, f"whole numbers of shape {shape}")
    wrong = (value < low) | (value > high)
    if wrong.any():
        number, least, most = (
            np.broadcast_to(x, shape)[wrong][0] for x in (value, low, high)
        )
        raise Unusable(f"{name} is {number}, allowed: {least} to {most}")
    return value.astype(np.int64)


def _unusable(name: str, value: np.ndarray, allowed: str) -> Unusable:
    given = f"{value.dtype} of shape {value.shape}"
    return Unusable(f"{name} is {given}, allowed: {allowed}")


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes with Pillow's bilinear filter, channel by channel.

    Args:
        image: pixels uint8 (height, width) or (height, width, channels).
        size: height and width of the result.

    Returns:
        uint8 (*size, channels), the same pixels if they have that size.
    """
    image = image.reshape(*image.shape[:2], -1)
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    # One by one: Pillow would weight colours by a fourth channel as alpha.
    channels = [
        Image.fromarray(np.ascontiguousarray(image[..., index])).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        for index in range(image.shape[2])
    ]
    return np.stack(channels, -1)
