"""States of environments as bytes, in a form that cannot run anything.

A blob is an uncommon sort of `.npz` file: named arrays of numbers, and under
the name `facts` a JSON object. Every part has a checksum. Reading one loads no
pickle, so that a blob from a stranger is no more than numbers. Read next:
`atari.py` and `gym.py`, which write and read them.
"""

import io
import json
from typing import Any

import numpy as np


def pack(facts: dict[str, Any], **arrays: np.ndarray) -> bytes:
    """Facts that JSON can hold, and arrays of numbers -> bytes."""
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, facts=text, **arrays)
    return buffer.getvalue()


def unpack(blob: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `pack` was given.

    Raises:
        ValueError: if these are no bytes of `pack`.
    """
    # Whatever can be wrong with bytes, some layer of reading them objects in
    # its own way.
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(arrays.pop("facts").tobytes())
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"state of an environment: {reason}") from None
    if not isinstance(facts, dict):
        raise ValueError("state of an environment: no facts in it")
    return facts, arrays
