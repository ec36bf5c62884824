"""Where the arrays of an update lie when several devices share it.

The devices form a mesh of one axis.  Sequences of a batch are spread over it
(data parallel), and so, if asked for, are the large parameters and all that
the optimiser keeps of them (fully sharded: each device holds a part, and a
whole copy only while an update computes with it).  The update itself is
written for one batch and one set of parameters: XLA divides it and adds the
collectives, so that losses, percentiles and random draws are those of the
whole batch, however many devices there are.  Next: agent.py.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"
LEAST = 2**14  # elements; whatever has fewer is not worth dividing


class Layout:
    """Devices that compute updates together.

    Args:
      devices: in one order on all processes of the run.
      fsdp: whether parameters and optimiser state are divided among them.

    Attributes:
      whole: sharding of what every device has a copy of.
      rows: sharding of what is divided along its first axis.
    """

    def __init__(self, devices: Sequence[jax.Device], fsdp: bool) -> None:
        self.fsdp = fsdp
        self.mesh = Mesh(np.array(devices), (AXIS,))
        self.whole = NamedSharding(self.mesh, PartitionSpec())
        self.rows = NamedSharding(self.mesh, PartitionSpec(AXIS))
        # One function, so that it is compiled once.
        self._unite = jax.jit(lambda tree: tree, out_shardings=self.whole)

    def shardings(self, shapes: Any) -> Any:
        """How the arrays of a train state, or of a part of it, are kept."""
        return jax.tree.map(lambda x: self._sharding(x.shape), shapes)

    def _sharding(self, shape: tuple[int, ...]) -> NamedSharding:
        axis = axis_to_divide(shape, self.mesh.size) if self.fsdp else None
        if axis is None:
            return self.whole
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))

    def gather(self, tree: Any) -> Any:
        """Whole copies for an update to compute with; traced by JAX.

        Gradients with respect to them come back divided as the tree is.
        """
        if not self.fsdp:
            return tree
        kept = self.shardings(tree)

        @jax.custom_vjp
        def gathered(tree: Any) -> Any:
            return jax.lax.with_sharding_constraint(tree, self.whole)

        gathered.defvjp(
            lambda tree: (gathered(tree), None),
            lambda _, grads: (jax.lax.with_sharding_constraint(grads, kept),),
        )
        return gathered(tree)

    def place(self, tree: Any) -> Any:
        """Host arrays, the same on all processes, where they are kept."""
        return jax.tree.map(_placed, tree, self.shardings(tree))

    def everywhere(self, tree: Any) -> Any:
        """Host arrays, the same on all processes, on every device."""
        return jax.tree.map(lambda x: _placed(x, self.whole), tree)

    def key(self, key: jax.Array) -> jax.Array:
        """A PRNG key, the same on all processes, on every device."""
        words = np.asarray(jax.random.key_data(key))
        return jax.random.wrap_key_data(self.everywhere(words))

    def load(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """The batch of which each process has its own share of the rows."""
        return {
            name: jax.make_array_from_process_local_data(self.rows, x)
            for name, x in batch.items()
        }

    def unite(self, tree: Any) -> Any:
        """A whole copy on every device of what may be divided.

        All processes must call it together.
        """
        if not self.fsdp:
            return tree
        return self._unite(tree)


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


def on_one_device(tree: Any) -> Any:
    """Of arrays that every device has whole, the copy of the first one here.

    It shares their memory: it is gone when they are donated.
    """
    return jax.tree.map(lambda x: x.addressable_data(0), tree)
