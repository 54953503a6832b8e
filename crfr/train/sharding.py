"""The mesh and what lies where on it: one axis, examples in the backbone, classes in the head."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jaxtyping import Array, Int

from crfr.model.norm import AXIS

P = jax.P


def make_mesh(devices: int | None = None) -> Mesh:
    """A mesh of one axis over all devices, or over the first `devices`.

    Of several processes each has a piece of it, in their order: the examples that a process reads
    are then those of its devices, whatever the number of processes.
    """
    chosen = jax.devices()[:devices]
    if jax.process_count() == 1:
        return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)
    # make_mesh would follow the network, which on a TPU pod runs through the hosts in another order
    chosen = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """All of an array on every device."""
    return NamedSharding(mesh, P())


def by_example(mesh: Mesh) -> NamedSharding:
    """The first axis of an array divided among the devices."""
    return NamedSharding(mesh, P(AXIS))


def of_classes(path: tuple, leaf: Any) -> bool:
    """Whether a leaf has a row for each class: the class matrix, and what optimizers keep of it."""
    return len(leaf.shape) == 2 and any(getattr(p, "key", None) == "classes" for p in path)


def state_sharding(state: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf: class matrices (and their momenta) by class, all else replicated.

    `state` is a State of arrays or of shapes, made for the mesh's number of devices.
    """
    by_class = NamedSharding(mesh, P(AXIS, None))

    def place(path: tuple, leaf: Any) -> NamedSharding:
        return by_class if of_classes(path, leaf) else replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


def take_rows(tree: Any, rows: Int[Array, " s"], mesh: Mesh) -> Any:
    """The tree with the given rows of its class matrices; each device takes `rows` of its own."""
    take = jax.shard_map(
        lambda matrix, rows: matrix[rows],
        mesh=mesh,
        in_specs=(P(AXIS, None), P(AXIS)),
        out_specs=P(AXIS, None),
    )

    def of(path: tuple, leaf: Any) -> Any:
        return take(leaf, rows) if of_classes(path, leaf) else leaf

    return jax.tree_util.tree_map_with_path(of, tree)


def put_rows(tree: Any, new: Any, rows: Int[Array, " s"], mesh: Mesh) -> Any:
    """The reverse: `new`, but for the rows of the class matrices that are not among `rows` and are
    those of `tree`.  `rows` rise on each device.
    """
    put = jax.shard_map(
        lambda matrix, some, rows: matrix.at[rows].set(
            some, unique_indices=True, indices_are_sorted=True
        ),
        mesh=mesh,
        in_specs=(P(AXIS, None), P(AXIS, None), P(AXIS)),
        out_specs=P(AXIS, None),
    )

    def of(path: tuple, leaf: Any, some: Any) -> Any:
        return put(leaf, some, rows) if of_classes(path, leaf) else some

    return jax.tree_util.tree_map_with_path(of, tree, new)
