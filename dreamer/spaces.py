"""What one observation or action looks like, in the agent's own words.

Environments describe their observations with `Space` values, networks and
replay are built from them. Here also stand the names of what a step holds
beside its observations. Knows nothing of Gymnasium or JAX, so that every part
of the program may import it. Read next: `to_space` in `dreamer/envs/host.py`,
which makes these from an environment, and `dreamer/agent/encoder.py`, which
builds an encoder from them.
"""

import dataclasses
from typing import Literal

import numpy as np

FLAGS = ("is_first", "is_last", "is_terminal")
"""How a step stands in its episode: bools that an environment gives."""

LATENTS = ("deter", "stoch")
"""What the world model made of a step when it was acted on."""

RESERVED = (*FLAGS, *LATENTS, "reward", "action")
"""Everything in a step beside its observations, which have other names."""

Kind = Literal["image", "vector", "discrete", "continuous"]

_DTYPES = {
    "image": np.uint8,
    "vector": np.float32,
    "discrete": np.int32,
    "continuous": np.float32,
}
_RANKS = {
    "image": (3,),
    "vector": (1,),
    "discrete": (0, 1),
    "continuous": (1,),
}


@dataclasses.dataclass(frozen=True)
class Space:
    """Shape and meaning of one observation key or of the action.

    Attributes:
        kind: meaning of a value: `image` is uint8 (height, width, channels);
            `vector` is float32 (n,); `discrete` is int32 () or (n,) with
            values 0..classes-1; `continuous` is a float32 (n,) action in
            [-1, 1].
        shape: shape of a single value, without time or batch dimensions.
        classes: number of values a discrete entry takes, 0 for other kinds.

    Raises:
        ValueError: if kind, shape and classes do not belong together.
    """

    kind: Kind
    shape: tuple[int, ...]
    classes: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _DTYPES:
            raise ValueError(
                f"kind is {self.kind!r}, allowed: {', '.join(_DTYPES)}"
            )
        if len(self.shape) not in _RANKS[self.kind] or 0 in self.shape:
            raise ValueError(
                f"shape of a space of kind {self.kind} is {self.shape}, "
                f"allowed: {_RANKS[self.kind]} dimensions, none of size 0"
            )
        if (self.kind == "discrete") != (self.classes > 0):
            raise ValueError(
                f"classes of a space of kind {self.kind} is {self.classes}, "
                "allowed: above 0 if discrete and 0 if not"
            )

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype of a value."""
        return np.dtype(_DTYPES[self.kind])
