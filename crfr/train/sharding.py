"""The mesh and what lies where on it: one axis, examples in the backbone, classes in the head."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

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
    return NamedSharding(mesh, P())


def by_example(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(AXIS))


def state_sharding(state: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf: class matrices (and their momenta) by class, all else replicated.

    `state` is a State of arrays or of shapes.  Where the devices do not divide the padded classes,
    the class matrix is replicated: every device then computes all logits of the head.
    """

    def place(path: tuple, leaf: Any) -> NamedSharding:
        of_classes = any(getattr(p, "key", None) == "classes" for p in path)
        if of_classes and leaf.ndim == 2 and leaf.shape[0] % mesh.size == 0:
            return NamedSharding(mesh, P(AXIS, None))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)
