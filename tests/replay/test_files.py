import json

import ml_dtypes
import numpy as np
import pytest

from dreamer import whole
from dreamer.replay import files
from dreamer.replay.files import Damaged

ARRAYS = {
    "b": np.array([True, False]),
    "a": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "half": np.arange(5).astype(ml_dtypes.bfloat16),
    "none": np.zeros((0, 7), np.float32),
    "one": np.array(-3, np.int64),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "long": np.zeros((1,) * 20, np.float16),
}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "x"
    return path, files.spec_of(ARRAYS), files.write_arrays(path, ARRAYS)


def test_what_is_written_is_read(written):
    path, spec, crc32 = written
    spec = files.spec_from_json(
        json.loads(json.dumps(files.spec_to_json(spec)))
    )
    arrays = files.read_arrays(path, spec, crc32)
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_some_arrays_are_read_and_all_are_checked(written):
    path, spec, crc32 = written
    arrays = files.read_arrays(path, spec, crc32, {"one", "a"})
    assert list(arrays) == ["a", "one"]
    np.testing.assert_array_equal(arrays["a"], ARRAYS["a"])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of an array that is not wanted
    path.write_bytes(content)
    with pytest.raises(Damaged, match="another checksum"):
        files.read_arrays(path, spec, crc32, {"one", "a"})


def test_a_file_is_what_numpy_saves(written):
    path, spec, _ = written
    assert path.stat().st_size == files.file_size(spec)
    with open(path, "rb") as stream:
        for array in ARRAYS.values():
            read = np.load(stream, allow_pickle=False)
            if array.dtype == ml_dtypes.bfloat16:
                read = read.view(array.dtype)
            np.testing.assert_array_equal(read, array)
        assert not stream.read()


def test_files_of_other_headers_are_refused(tmp_path):
    """Even where size and checksum fit: nothing of them is interpreted."""
    path = tmp_path / "x"
    crc32 = files.write_arrays(path, {"a": np.zeros((2, 3), np.float32)})
    for shape, dtype in [((3, 2), "f4"), ((6,), "f4"), ((2, 3), "i4")]:
        spec = {"a": (shape, np.dtype(dtype))}
        assert files.file_size(spec) == path.stat().st_size
        with pytest.raises(Damaged, match="holds other arrays than listed"):
            files.read_arrays(path, spec, crc32)


def test_a_huge_size_is_refused_before_memory_is_asked_for(written):
    path, _, crc32 = written
    spec = files.spec_from_json([["x", "float64", [2**40]]])
    with pytest.raises(Damaged, match="truncated or damaged"):
        files.read_arrays(path, spec, crc32)


@pytest.mark.parametrize(
    "value",
    [
        *(None, 1, "abc", [1], ["abc"], {"abc": 1}, [["a", "float32"]]),
        *([["a", "object", [1]]], [["a", "V8", []]], [["a", [], []]]),
        *([["a", "float32", [-1]]], [["a", "float32", [True]]]),
        *([["a", "float32", [1.0]]], [["a", "float32", None]]),
        *([["a", "float32", [2**47]]], [["a", "uint8", [0, 2**30, 2**30]]]),
        *([["a", "uint8", [1] * 33]], [[1, "uint8", []]], [[[], "uint8", []]]),
        [["a", "uint8", []], ["a", "uint8", []]],
    ],
)
def test_lists_that_make_no_sense(value):
    with pytest.raises(Damaged, match="makes no sense"):
        files.spec_from_json(value)


@pytest.mark.parametrize(
    "array",
    [
        *(np.array([None]), np.array(["x"]), np.zeros(2, ">f4")),
        *(np.zeros(2, "M8[s]"), np.zeros(2, [("a", "f4")]), np.zeros(2, "F")),
    ],
)
def test_arrays_that_no_file_holds(array):
    with pytest.raises(ValueError, match="array x: no file holds"):
        files.spec_of({"x": array})


def test_half_a_file_never_has_its_name(tmp_path):
    def write():
        with whole.new_file(tmp_path / "x") as stream:
            stream.write(b"half")
            stream.flush()
            assert [x.name for x in tmp_path.iterdir()] == ["x.tmp"]
            raise OSError(5, "on purpose")

    with pytest.raises(OSError, match="on purpose") as error:
        write()
    assert error.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "x.tmp").symlink_to(tmp_path / "outside")
    files.write_arrays(tmp_path / "x", {})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_is_read_is_a_file(tmp_path):
    (tmp_path / "x").symlink_to("/dev/zero")
    for name in ("x", "none", ""):
        with pytest.raises(Damaged, match=r"not a file|cannot read"):
            files.read_arrays(tmp_path / name, {}, 0)
