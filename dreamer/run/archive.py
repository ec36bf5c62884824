"""The directory of one checkpoint, which NumPy alone can read.

    meta.json        counters, the run's settings as in its config.yaml,
                     the replay's manifest, lists and checksums
    state.arrays     the train state
    <owner>.arrays   of every other owner of arrays

A byte that changed anywhere is noticed.  Nothing is pickled:

    meta = json.load(open("meta.json"))["meta"]
    with open("state.arrays", "rb") as stream:
        state = {name: np.load(stream) for name, dtype, shape
                 in meta["files"]["state"]["arrays"]}

where bfloat16 comes as uint16 and needs `.view(ml_dtypes.bfloat16)`.
Next: ../replay/files.py for the files of arrays.
"""

import json
import re
import zlib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer.agent.agent import TrainState
from dreamer.options import ConfigError
from dreamer.replay import Damaged, Spec, files
from dreamer.whole import new_file

FORMAT = 2
Arrays = dict[str, dict[str, np.ndarray]]
"""Host arrays by their owner and name."""


def leaves(state: Any) -> dict[str, Any]:
    """Arrays of a tree by their names, as in params/actor/kernel."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def copies(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """On the host, of our own: what JAX gives may be a donated buffer."""
    for array in arrays.values():
        if isinstance(array, jax.Array):
            array.copy_to_host_async()
    return {name: np.array(array) for name, array in arrays.items()}


def file_of(path: Path, owner: str) -> Path:
    """Where the arrays of one owner are."""
    return path / f"{owner}.arrays"


def entry(spec: Spec, crc32: int) -> dict[str, Any]:
    """What the meta file says of a file of arrays."""
    return {"crc32": crc32, "arrays": files.spec_to_json(spec)}


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Writes `counters`, `config`, `replay` and `files`.

    The latter has an entry for each owner.

    Raises:
      OSError: it cannot be written.
    """
    body = json.dumps({"format": FORMAT, **meta}).encode()
    with new_file(path / "meta.json") as stream:
        stream.write(_seal(body))


def read_meta(path: Path) -> dict[str, Any]:
    """What `write_meta` wrote.

    Raises:
      Damaged: it is not as it was written.
      ConfigError: it was written by another version of the format.
    """
    with files.open_to_read(path / "meta.json") as stream:
        content = stream.read()
    try:
        meta = json.loads(_unseal(content))
        version = meta["format"]
        if type(version) is not int:
            raise TypeError(version)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged(f"{path / 'meta.json'}: damaged") from error
    if version != FORMAT:
        raise ConfigError(
            f"{path}: this checkpoint has format {version}, and this version"
            f" reads format {FORMAT}"
        )
    for key in ("counters", "replay", "files"):
        if type(meta.get(key)) is not dict:
            raise Damaged(f"{path / 'meta.json'}: damaged, it has no {key}")
    return meta


def read_state(
    path: Path, meta: dict[str, Any], like: TrainState
) -> TrainState:
    """The train state, NumPy arrays in the shape of `like`.

    Raises:
      Damaged: its file is not as it was written.
      ConfigError: the state has other arrays than `like`.
    """
    spec, crc32 = _entry(path, meta, "state")
    _check_sizes(path, spec, files.spec_of(leaves(like)))
    state = files.read_arrays(file_of(path, "state"), spec, crc32)
    return jax.tree.unflatten(jax.tree.structure(like), state.values())


def read_others(path: Path, meta: dict[str, Any]) -> Arrays:
    """What is there beside the train state.

    Raises:
      Damaged: a file is not as it was written.
    """
    arrays = {}
    for owner in meta["files"]:
        if owner != "state":
            spec, crc32 = _entry(path, meta, owner)
            name = file_of(path, owner)
            arrays[owner] = files.read_arrays(name, spec, crc32)
    return arrays


def read_part(
    path: Path, meta: dict[str, Any], like: dict[str, Any]
) -> dict[str, Any]:
    """Some fields of the train state, such as `params`, as NumPy arrays.

    Args:
      path: of the checkpoint.
      meta: of `read_meta`.
      like: by field, trees of what has a shape and a dtype.

    Raises:
      Damaged: the file of the train state is not as it was written.
      ConfigError: it has other arrays than `like`.
    """
    spec, _ = _entry(path, meta, "state")
    saved = {name: spec[name] for name in _of_fields(spec, like)}
    _check_sizes(path, saved, files.spec_of(leaves(like)))
    arrays = read_fields(path, meta, like)
    return jax.tree.unflatten(jax.tree.structure(like), arrays.values())


def read_fields(
    path: Path, meta: dict[str, Any], fields: Container[str]
) -> dict[str, np.ndarray]:
    """Some fields of the train state by the names of their arrays.

    Raises:
      Damaged: the file of the train state is not as it was written.
    """
    spec, crc32 = _entry(path, meta, "state")
    name = file_of(path, "state")
    return files.read_arrays(name, spec, crc32, _of_fields(spec, fields))


def bytes_of(path: Path, meta: dict[str, Any], fields: Container[str]) -> int:
    """What a file with these fields of the train state alone would take.

    Raises:
      Damaged: the meta file makes no sense.
    """
    spec, _ = _entry(path, meta, "state")
    return files.file_size({x: spec[x] for x in _of_fields(spec, fields)})


def _of_fields(spec: Spec, fields: Container[str]) -> list[str]:
    return [name for name in spec if name.split("/")[0] in fields]


def _entry(path: Path, meta: dict[str, Any], owner: str) -> tuple[Spec, Any]:
    """What the meta file says of an owner's file: its arrays and CRC-32."""
    value = meta["files"].get(owner)
    fits = isinstance(value, dict) and {"crc32", "arrays"} <= value.keys()
    if not fits or not re.fullmatch("[a-z_]{1,40}", owner):
        raise Damaged(f"{path}: damaged, {owner[:40]!r} is no file of it")
    return files.spec_from_json(value["arrays"]), value["crc32"]


def _check_sizes(path: Path, saved: Spec, here: Spec) -> None:
    if list(saved.items()) == list(here.items()):
        return
    for name in [*saved, *here]:
        sides = [
            f"{np.dtype(spec[name][1])}{list(spec[name][0])}"
            if name in spec
            else "none"
            for spec in (saved, here)
        ]
        if sides[0] != sides[1]:
            break
    raise ConfigError(
        f"{path}: this checkpoint holds other parameters than this agent has:"
        f" {name[:80]!r} is {sides[0]} in it, {sides[1]} here"
    )


def _seal(body: bytes) -> bytes:
    """JSON that tells whether a byte of it has changed.

    Every format from 2 on does it so, lest damage look like another format.
    """
    return b'{"crc32": "%08x", "meta": %s}\n' % (zlib.crc32(body), body)


def _unseal(content: bytes) -> bytes:
    body = content[len(_seal(b"")) - len("}\n") : -len("}\n")]
    if content != _seal(body):
        raise ValueError("another checksum")
    return body
