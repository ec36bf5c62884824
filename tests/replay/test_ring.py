import numpy as np
import pytest

from dreamer.replay.ring import Ring, stored_dtype
from tests.replay.slow import BF16


def test_put_take_and_write_wrap_around():
    ring = Ring({"x": ((), np.dtype(np.int64))}, envs=2, capacity=4)
    for time in range(6):
        ring.put(time, {"x": np.array([time, 100 + time])})
    np.testing.assert_array_equal(ring.arrays["x"][0], [4, 5, 2, 3])
    env, time = np.array([[1], [0]]), np.array([[3, 4, 5], [2, 3, 4]])
    expected = [[103, 104, 105], [2, 3, 4]]
    np.testing.assert_array_equal(ring.take(env, time)["x"], expected)
    ring.write(1, 3, {"x": np.array([-3, -4, -5])})
    np.testing.assert_array_equal(ring.arrays["x"][1], [-4, -5, 102, -3])
    np.testing.assert_array_equal(ring.arrays["x"][0], [4, 5, 2, 3])


def test_taken_arrays_do_not_alias_the_ring():
    ring = Ring({"x": ((2,), BF16)}, envs=1, capacity=3)
    taken = ring.take(np.int64(0), np.arange(3))["x"]
    assert taken.dtype == BF16
    assert not np.shares_memory(taken, ring.arrays["x"])


def test_extension_dtypes_are_held_as_integers():
    assert stored_dtype("x", BF16) == np.uint16
    assert stored_dtype("x", np.dtype(np.float32)) == np.float32
    for dtype in (object, [("a", np.int32)], ">f4"):
        with pytest.raises(
            ValueError, match=r"field x: .* not a plain number"
        ):
            stored_dtype("x", np.dtype(dtype))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(2, np.float64), r"got float64\(2,\), expected float32\(2,"),
        (np.zeros(3, np.float32), r"got float32\(3,\), expected float32\(2,"),
    ],
)
def test_checked_names_the_field_and_both_values(value, message):
    ring = Ring({"x": ((), np.dtype(np.float32))}, envs=2, capacity=3)
    with pytest.raises(ValueError, match=f"field x: {message}"):
        ring.checked({"x": value}, (2,))
    with pytest.raises(ValueError, match="field x is missing"):
        ring.checked({}, (2,))
