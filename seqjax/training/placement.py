"""Placement of a run's arrays: on one device, or on several that share each batch.

A run has a mesh of devices with one axis. State, constants and resident data are on all of them alike, a
batch is cut by its rows, and XLA adds up what the parts find. One device is a mesh of one, so that there is
one way through the code. Under several processes each holds its own devices' part of an array.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

Tree: TypeAlias = Any
"""A nested structure of arrays."""

_ROWS = "data"


class Placement:
    """A mesh of devices.

    Args:
      devices: The devices of all processes; None is jax's default device.
    """

    def __init__(self, devices: Sequence[Any] | None = None) -> None:
        chosen = jnp.zeros(()).devices() if devices is None else devices
        ordered = sorted(chosen, key=lambda device: (device.process_index, device.id))
        mesh = Mesh(np.asarray(ordered), (_ROWS,))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        """The sharding of what is on all devices alike."""
        self.rows = NamedSharding(mesh, PartitionSpec(_ROWS))
        """The sharding of what is cut by its first axis."""
        mine = [place for place, one in enumerate(ordered) if one.process_index == jax.process_index()]
        self._mine = slice(mine[0], mine[-1] + 1)
        self.processes = len({device.process_index for device in ordered})
        self.size, self.own_size = len(ordered), len(mine)
        """Number of devices of all processes, and of this one."""
        self.is_cpu = ordered[0].platform == "cpu"
        """True if the devices are the processor's cores."""

    def replicate(self, tree: Tree) -> Tree:
        """Puts a tree on all devices alike, in buffers of its own; keys of jax.random included."""
        leaves, structure = jax.tree.flatten(tree)
        words = [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in leaves]
        placed = [
            jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if is_key(old) else new
            for old, new in zip(leaves, self._put(words), strict=True)
        ]
        return structure.unflatten(placed)

    def ensure_replicated(self, tree: Tree) -> Tree:
        """Replicates a tree, unless it is on all devices already, going by its first and its last leaf."""
        leaves = jax.tree.leaves(tree)
        ends = (leaves[0], leaves[-1]) if leaves else ()
        there = all(isinstance(leaf, jax.Array) and leaf.sharding == self.everywhere for leaf in ends)
        return tree if there else self.replicate(tree)

    def own_rows(self, count: int) -> slice:
        """The rows of a batch that this process's devices take; `count` is a multiple of `size`."""
        share = count // self.size
        return slice(self._mine.start * share, self._mine.stop * share)

    def from_local_rows(self, own: Shaped[np.ndarray, "own ..."]) -> Shaped[Array, "B ..."]:
        """An array that is sharded by its first axis, from this process's rows."""
        if self.processes == 1:
            return jax.device_put(own, self.rows)
        return jax.make_array_from_process_local_data(self.rows, own)

    def _put(self, arrays: list[np.ndarray]) -> list[Array]:
        if self.processes == 1:
            return jax.device_put(arrays, self.everywhere, may_alias=False)
        return [
            jax.make_array_from_callback(array.shape, self.everywhere, array.__getitem__) for array in arrays
        ]


def to_host(tree: Tree) -> Tree:
    """A copy in host memory, which later steps cannot change.

    A plain fetch may return a view of a buffer that the next step is given to overwrite.
    """
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


def is_key(leaf: object) -> bool:
    """Tells whether a leaf is a key of jax.random."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
