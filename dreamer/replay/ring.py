"""Ring: arrays that hold the newest steps of N environments.

All environments step together, so a step is named by its environment and by
one time index `t` that counts from 0 for the whole run. It lives in slot
`t % capacity` of arrays shaped (N, capacity, ...). The ring knows nothing of
sampling; `replay.py` is what uses it and is the file to read next.
"""

from collections.abc import Mapping

import numpy as np

Spec = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Name -> (shape, dtype) of what one environment yields in one step."""

Arrays = dict[str, np.ndarray]


def stored_dtype(name: str, dtype: np.dtype) -> np.dtype:
    """Dtype that holds the same bits as `dtype`, copied fast and savable.

    NumPy copies and saves its own dtypes as plain memory, but extension
    dtypes such as bfloat16 item by item or not at all; those are held as
    unsigned integers of the same width.

    Raises:
      ValueError: The dtype is no plain number.
    """
    dtype = np.dtype(dtype)
    if dtype.hasobject or dtype.isbuiltin not in (1, 2):
        raise ValueError(
            f"replay field {name}: dtype {dtype} is not a plain number"
        )
    if dtype.isbuiltin == 2:
        return np.dtype(f"u{dtype.itemsize}")
    return dtype


def check_specs(fields: Spec, latents: Spec) -> None:
    """Whether a replay can hold these.

    Raises:
      ValueError: A flag is missing, or a name is in both.
    """
    for name in ("is_first", "is_last"):  # which `Replay.gather` sets
        shape, dtype = fields.get(name, (None, None))
        if shape != () or np.dtype(dtype) != np.bool_:
            raise ValueError(f"replay field {name} must be a scalar bool")
    both = sorted(fields.keys() & latents.keys())
    if both:
        raise ValueError(f"replay field {both[0]} is also a latent")


class Ring:
    """The newest `capacity` steps of every one of `envs` environments.

    `arrays` is allocated zeroed, so the operating system commits memory only
    as steps arrive.
    """

    def __init__(self, spec: Spec, envs: int, capacity: int) -> None:
        self.spec = {
            name: (tuple(shape), np.dtype(dtype))
            for name, (shape, dtype) in spec.items()
        }
        self.envs = envs
        self.capacity = capacity
        self.arrays: Arrays = {
            name: np.zeros((envs, capacity, *shape), stored_dtype(name, dtype))
            for name, (shape, dtype) in self.spec.items()
        }

    def checked(
        self, values: Mapping[str, np.ndarray], lead: tuple[int, ...]
    ) -> Arrays:
        """`values` as stored bits, once each is `lead` + shape of its spec.

        Raises:
          ValueError: A name is missing, or a shape or dtype differs.
        """
        result = {}
        for name, (shape, dtype) in self.spec.items():
            if name not in values:
                raise ValueError(f"replay field {name} is missing")
            value = np.asarray(values[name])
            if value.dtype != dtype or value.shape != lead + shape:
                raise ValueError(
                    f"replay field {name}: got {value.dtype}{value.shape},"
                    f" expected {dtype}{lead + shape}"
                )
            result[name] = self._stored(name, value)
        return result

    def put(self, time: int, step: Arrays) -> None:
        """Stores step `time` of every environment: checked (N, ...) arrays."""
        slot = time % self.capacity
        for name, value in step.items():
            self.arrays[name][:, slot] = value

    def take(self, env: np.ndarray, time: np.ndarray) -> Arrays:
        """Copies steps out; `env` and `time` broadcast to the result's lead.

        One `np.take` per field copies step by step at memory speed, needs no
        care at the end of the ring, and lets other threads run meanwhile.
        """
        index = env * self.capacity + time % self.capacity
        count = self.envs * self.capacity
        result = {}
        for name, (shape, dtype) in self.spec.items():
            # (N*capacity, ...)
            rows = self.arrays[name].reshape(count, *shape)
            result[name] = np.take(rows, index, axis=0).view(dtype)
        return result

    def write(self, env: int, time: int, values: Arrays) -> None:
        """Overwrites steps `time`, `time` + 1, ... of one environment.

        Args:
          env: Number of the environment, from 0.
          time: Time of the first step.
          values: Stored bits (n, ...) of some or all fields, n <= capacity.
        """
        slot = time % self.capacity
        for name, value in values.items():
            head = min(len(value), self.capacity - slot)
            self.arrays[name][env, slot : slot + head] = value[:head]
            self.arrays[name][env, : len(value) - head] = value[head:]

    def _stored(self, name: str, value: np.ndarray) -> np.ndarray:
        stored = self.arrays[name].dtype
        return value if value.dtype == stored else value.view(stored)
