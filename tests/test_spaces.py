"""Spaces: dtypes and what does not belong together."""

import numpy as np
import pytest

from dreamer.spaces import Space


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        (Space("image", (64, 64, 3)), np.uint8),
        (Space("vector", (5,)), np.float32),
        (Space("discrete", (), 4), np.int32),
        (Space("discrete", (3,), 4), np.int32),
        (Space("continuous", (2,)), np.float32),
    ],
)
def test_dtype_follows_kind(space, dtype):
    assert space.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("text", (3,)), "kind is 'text'"),
        (("image", (64, 64)), r"\(64, 64\)"),
        (("vector", (0,)), r"\(0,\)"),
        (("vector", ()), "vector"),
        (("discrete", ()), "classes"),
        (("continuous", (2,), 3), "classes"),
    ],
)
def test_what_does_not_fit_raises(arguments, named):
    with pytest.raises(ValueError, match=named):
        Space(*arguments)
