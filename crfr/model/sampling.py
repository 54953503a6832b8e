"""Sampled classes: a step's softmax over its own classes and a random part of the others.

Partial FC (An et al., "Partial FC: Training 10 Million Identities on a Single Machine", 2021, and
"Killing Two Birds with One Stone", 2022): each device keeps the classes of the whole batch that it
holds and draws others at random, until it has its share.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from crfr.model.norm import AXIS

P = jax.P


class Sample(NamedTuple):
    """The rows of the class matrix that take part in a step; s of each device, in rising order.

    rows: numbers among the rows of the device that holds them, sharded by device.
    real: False for rows that are no class.
    label: the place of each image's class among all sampled rows.
    """

    rows: Int[Array, " s"]
    real: Bool[Array, " s"]
    label: Int[Array, " b"]


def sample_size(rows: int, fraction: float, batch: int) -> int:
    """How many of a device's `rows` are sampled: the fraction, and never less than the positives.

    All views of an image have its label, so a batch has at most `batch` positives however many
    branches there are, and a device no more than its rows.
    """
    return max(math.ceil(fraction * rows), min(batch, rows))


def draw_sample(
    label: Int[Array, " b"],
    key: Array,
    *,
    rows: int,
    classes: int,
    fraction: float,
    mesh: Mesh,
) -> Sample:
    """Draw the classes of a step: all of `label`, others with equal probability.

    `rows` are those of the whole class matrix, of which the first `classes` are classes.  What is
    drawn depends on the number of devices, for each has a share of its own to fill.
    """
    own = rows // mesh.size
    size = sample_size(own, fraction, label.shape[0])

    def share(label: Array, key: Array) -> tuple[Array, Array, Array]:
        device = jax.lax.axis_index(AXIS)
        mine = label - device * own
        inside = (mine >= 0) & (mine < own)
        # positives before all others, rows that are no class after them
        chance = jax.random.uniform(jax.random.fold_in(key, device), (own,))
        chance = jnp.where(device * own + jnp.arange(own) < classes, chance, -1)
        chance = chance.at[jnp.where(inside, mine, own)].set(2, mode="drop")
        drawn = jnp.sort(jax.lax.top_k(chance, size)[1])
        place = jnp.where(inside, device * size + jnp.searchsorted(drawn, mine), 0)
        return drawn, device * own + drawn < classes, jax.lax.psum(place, AXIS)

    return Sample(
        *jax.shard_map(share, mesh=mesh, in_specs=(P(), P()), out_specs=(P(AXIS), P(AXIS), P()))(
            label, key
        )
    )
