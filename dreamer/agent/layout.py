"""Where the arrays of an update lie when several devices share it.

The devices form a mesh of one axis.  Sequences of a batch are spread over it
(data parallel), and so, if asked for, are the large parameters and all that
the optimiser keeps of them (fully sharded: each device holds a part, and a
whole copy only while an update computes with it).  The update itself is
written for one batch and one set of parameters: XLA divides it and adds the
collectives, so that losses, percentiles and random draws are those of the
whole batch, however many devices there are.  `OneDevice` stands for one that
shares with nobody.  Next: agent.py.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dreamer.agent.types import Batch

AXIS = "data"
LEAST = 2**14  # elements; whatever has fewer is not worth dividing


class OneDevice:
    """One device that computes updates alone, the one that JAX takes.

    Its methods are those of `Layout`, with nothing to divide or to send.

    Attributes:
      size: number of devices.
      fsdp: as in `Layout`.
      replicated, batch_sharded: no shardings, so that `jax.jit` chooses.
    """

    size = 1
    fsdp = False
    replicated = None
    batch_sharded = None

    def shardings(self, shapes: Any) -> None:
        """How the arrays of a train state are kept: as `jax.jit` chooses."""

    def gather(self, tree: Any) -> Any:
        """What an update computes with: the same arrays."""
        return tree

    def place(self, tree: Any) -> Any:
        """Host arrays on the device."""
        return jax.device_put(tree)

    def replicate(self, tree: Any) -> Any:
        """Host arrays on the device."""
        return jax.device_put(tree)

    def replicate_key(self, key: jax.Array) -> jax.Array:
        """The same PRNG key."""
        return key

    def shard_batch(self, batch: dict[str, np.ndarray]) -> Batch:
        """A batch on the device."""
        return jax.device_put(batch)

    def to_one_device(self, tree: Any) -> Any:
        """The same arrays."""
        return tree

    def gather_to_host(self, tree: Any, keep: bool = True) -> Any:
        """The same arrays, or None where they are not kept."""
        return tree if keep else None


ONE_DEVICE = OneDevice()


class Layout:
    """Devices that compute updates together.

    Args:
      devices: all of them, in one order on all processes of the run.
      fsdp: whether parameters and optimiser state are divided among them.

    Attributes:
      size: number of devices.
      replicated: sharding of what every device has a copy of.
      batch_sharded: sharding of what is divided along its first axis.
    """

    def __init__(self, devices: Sequence[jax.Device], fsdp: bool) -> None:
        self.size = len(devices)
        self.fsdp = fsdp
        self._mesh = Mesh(np.array(devices), (AXIS,))
        self.replicated = NamedSharding(self._mesh, PartitionSpec())
        self.batch_sharded = NamedSharding(self._mesh, PartitionSpec(AXIS))
        # One function, so that it is compiled once for each shape.
        self._all_gather = jax.jit(
            lambda tree: tree, out_shardings=self.replicated
        )

    def shardings(self, shapes: Any) -> Any:
        """How the arrays of a train state, or of a part of it, are kept."""
        return jax.tree.map(lambda x: self._sharding(x.shape), shapes)

    def _sharding(self, shape: tuple[int, ...]) -> NamedSharding:
        axis = axis_to_divide(shape, self.size) if self.fsdp else None
        if axis is None:
            return self.replicated
        return NamedSharding(self._mesh, PartitionSpec(*[None] * axis, AXIS))

    def gather(self, tree: Any) -> Any:
        """Whole copies for an update to compute with; traced by JAX.

        Gradients with respect to them come back divided as the tree is.
        """
        if not self.fsdp:
            return tree
        kept = self.shardings(tree)

        @jax.custom_vjp
        def gathered(tree: Any) -> Any:
            return jax.lax.with_sharding_constraint(tree, self.replicated)

        gathered.defvjp(
            lambda tree: (gathered(tree), None),
            lambda _, grads: (jax.lax.with_sharding_constraint(grads, kept),),
        )
        return gathered(tree)

    def place(self, tree: Any) -> Any:
        """Host arrays, the same on all processes, where they are kept."""
        return jax.tree.map(_placed, tree, self.shardings(tree))

    def replicate(self, tree: Any) -> Any:
        """Host arrays, the same on all processes, on every device."""
        return jax.tree.map(lambda x: _placed(x, self.replicated), tree)

    def replicate_key(self, key: jax.Array) -> jax.Array:
        """A PRNG key, the same on all processes, on every device."""
        words = np.asarray(jax.random.key_data(key))
        return jax.random.wrap_key_data(self.replicate(words))

    def shard_batch(self, batch: dict[str, np.ndarray]) -> Batch:
        """The batch of which each process has its own share of the rows."""
        return {
            name: jax.make_array_from_process_local_data(self.batch_sharded, x)
            for name, x in batch.items()
        }

    def to_one_device(self, tree: Any) -> Any:
        """Whole arrays on the first device of this process.

        They may share memory with the tree: invalid once it is donated.  All
        processes must call it together.
        """
        whole = self._all_gather(tree) if self.fsdp else tree
        return jax.tree.map(lambda x: x.addressable_data(0), whole)

    def gather_to_host(self, tree: Any, keep: bool = True) -> Any:
        """Arrays that this process can read, whole.

        What is divided among processes comes to the host, one array after the
        other: no device ever holds more than one of them whole.  All
        processes must call it together.

        Args:
          tree: arrays as they are kept.
          keep: whether this process wants them, or only sends its parts.

        Returns:
          NumPy arrays, and those of JAX that could be read as they are; None
          where they are not kept.
        """

        def one(x: jax.Array) -> np.ndarray | jax.Array | None:
            if x.is_fully_addressable or x.is_fully_replicated:
                return x
            # Of the copies on all devices here, that of the first alone.
            whole = self._all_gather(x).addressable_data(0)
            return np.asarray(whole) if keep else whole.block_until_ready()

        if keep:
            return jax.tree.map(one, tree)
        for x in jax.tree.leaves(tree):
            one(x)
        return None


def axis_to_divide(shape: tuple[int, ...], count: int) -> int | None:
    """The longest axis that `count` devices can share, if it is worth it."""
    fits = [axis for axis, size in enumerate(shape) if size % count == 0]
    if math.prod(shape) < LEAST or not fits:
        return None
    return max(fits, key=lambda axis: shape[axis])


def _placed(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])


def on_host(x: jax.Array) -> np.ndarray:
    """This process's rows of an array, or all of it if it has all."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    parts = {s.index[0].start: s.data for s in x.addressable_shards}
    return np.concatenate([np.asarray(parts[i]) for i in sorted(parts)])
