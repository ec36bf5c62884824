"""Arrays in files: whole or absent, with checksums, readable by NumPy.

A file holds arrays one after the other, each as `np.save` writes it; calling
`np.load(stream, allow_pickle=False)` once for each gives them back. Types
that NumPy does not have, such as bfloat16, lie there as unsigned integers of
the same width. Names, types, shapes and the checksum are kept elsewhere. A
reader knows size and headers in advance and parses nothing, so files from
strangers are safe. Read `disk.py` next.
"""

import contextlib
import errno
import math
import os
import stat
import zlib
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from dreamer.options import ConfigError
from dreamer.replay.ring import Arrays, Spec, stored_dtype
from dreamer.trouble import may_pass
from dreamer.whole import new_file

_TYPES = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in [*"?bBhHiIqQefd", ml_dtypes.bfloat16]
}
_LARGEST = 2**48  # bytes of one array, so that NumPy can count them


class Damaged(ValueError):
    """What is on disk is not what was written there."""


def spec_of(arrays: Mapping[str, Any]) -> Spec:
    """Shapes and dtypes of arrays, NumPy's or JAX's, in their order.

    Raises:
      ValueError: One is not of plain numbers.
    """
    for name, array in arrays.items():
        if array.dtype not in _TYPES.values():
            raise ValueError(f"array {name}: no file holds {array.dtype}")
    return {name: (x.shape, x.dtype) for name, x in arrays.items()}


def spec_to_json(spec: Spec) -> list[Any]:
    """[[name, dtype, [size, ...]], ...] in the order of a file."""
    return [[name, d.name, list(shape)] for name, (shape, d) in spec.items()]


def spec_from_json(value: Any) -> Spec:
    """What `spec_to_json` gave.

    Raises:
      Damaged: This is not such a thing.
    """
    spec = {}
    try:
        for name, dtype, shape in value:
            size = _TYPES[dtype].itemsize
            for length in shape:
                if type(length) is not int or length < 0:
                    raise ValueError(length)
                size *= max(length, 1)
            if size > _LARGEST or len(shape) > 32 or type(name) is not str:
                raise ValueError(size)
            spec[name] = (tuple(shape), _TYPES[dtype])
        if len(spec) != len(value):
            raise ValueError(value)
    except (TypeError, ValueError, KeyError) as error:
        raise Damaged("the list of its arrays makes no sense") from error
    return spec


def file_size(spec: Spec) -> int:
    """Bytes of a file with these arrays."""
    return sum(
        len(_header(shape, dtype)) + math.prod(shape) * dtype.itemsize
        for shape, dtype in spec.values()
    )


def write_arrays(path: Path, arrays: Arrays) -> int:
    """Writes a file, synced, and returns its CRC-32.

    Raises:
      OSError: The disk is full or not writable. There is no file then.
    """
    parts: list[bytes | np.ndarray] = []
    for array in arrays.values():
        contiguous = np.asarray(array, order="C")
        parts.append(_header(array.shape, array.dtype))
        parts.append(contiguous.reshape(-1).view(np.uint8))
    # Side by side: neither the disk nor zlib holds Python's lock.
    with ThreadPoolExecutor(1) as beside:
        checksum = beside.submit(_crc32, parts)
        with new_file(path) as stream:
            for part in parts:
                stream.write(part)
        return checksum.result()


def read_arrays(
    path: Path, spec: Spec, crc32: Any, wanted: Container[str] | None = None
) -> Arrays:
    """Reads what `write_arrays` wrote, if every byte is as it was.

    Args:
      path: Path of the file.
      spec: Arrays that it must hold, in order. Nothing is allocated before the
        size of the file was seen to fit.
      crc32: Checksum of the file.
      wanted: Names of arrays to keep, all by default. The others are read
        for their checksum and take no memory after that.

    Raises:
      Damaged: It is missing, truncated or changed.
    """
    arrays, found, as_listed = {}, 0, True
    with open_to_read(path, file_size(spec)) as stream:
        for name, (shape, dtype) in spec.items():
            expected = _header(shape, dtype)
            header = stream.read(len(expected))
            as_listed &= header == expected
            array = np.empty(shape, dtype)
            if wanted is None or name in wanted:
                arrays[name] = array
            content = array.reshape(-1).view(np.uint8)
            stream.readinto(content)
            found = zlib.crc32(content, zlib.crc32(header, found))
    if found != crc32:
        raise Damaged(f"{path}: damaged, it has another checksum")
    if not as_listed:
        raise Damaged(f"{path}: damaged, it holds other arrays than listed")
    return arrays


@contextlib.contextmanager
def open_to_read(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """Opens a regular file, of so many bytes if given.

    Raises:
      Damaged: There is none, or it cannot be read, also inside the context.
      ConfigError: Who runs this may not read it.
      OSError: It cannot be read now, and that may pass.
    """
    try:
        status = os.stat(path)  # opening a pipe would wait for ever
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{path}: damaged, this is not a file")
        if size is not None and status.st_size != size:
            raise Damaged(
                f"{path}: truncated or damaged, has {status.st_size} bytes"
                f" of {size}"
            )
        with open(path, "rb") as stream:
            yield stream
    except PermissionError as error:
        # It may well be whole, so that nothing older must take its place.
        raise ConfigError(f"{path}: {error.strerror}") from error
    except OSError as error:
        # A bad sector stays bad; a file server that is away comes back, and
        # its files must not be taken for lost.
        if may_pass(error) and error.errno != errno.EIO:
            raise
        raise Damaged(f"{path}: cannot read it ({error.strerror})") from error


def make_directory(directory: Path) -> None:
    """Creates a directory, unless it exists, for good."""
    if not directory.is_dir():
        directory.mkdir(parents=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Makes the renames in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Version 1.0 of NumPy's format, the same whatever the version of NumPy.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    stored = stored_dtype("array", dtype)
    text = repr(
        {"descr": stored.str, "fortran_order": False, "shape": tuple(shape)}
    )
    length = -(-(10 + len(text) + 1) // 64) * 64 - 10
    start = b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little")
    return start + text.ljust(length - 1).encode() + b"\n"


def _crc32(parts: list[bytes | np.ndarray]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum
