"""From a batch of images to the embeddings of every branch: each device takes its share of the
images.

The branches are one `jax.vmap` of shared weights.  The whole way from pixels to embeddings runs in
`jax.shard_map`: under automatic sharding, a vmap over branches of a batch that is sharded inside it
makes every device compute the whole batch, with the right loss and without an error.
"""

from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from crfr.errors import InputError
from crfr.model.losses import unit
from crfr.model.norm import AXIS
from crfr.model.resnet import ResNet
from crfr.views.augment import Draws, make_views

P = jax.P
Tree = Any  # a nested dict of arrays


def group_span(batch: int, group: int, devices: int) -> int:
    """How many devices a BatchNorm group of `group` images spans (1: every group fits in a device).

    `group` 0 means the whole global batch.  Raises InputError where the batch does not divide by
    the devices, the group does not divide the batch, or group and device share do not divide one
    another.
    """
    if batch % devices:
        raise InputError(
            f"batch {batch} does not divide by {devices} devices: give a multiple of {devices}"
        )
    group = group or batch
    share = batch // devices
    if batch % group:
        raise InputError(
            f"model.bn_group={group} does not divide the batch of {batch}: give a divisor"
        )
    if share % group and group % share:
        raise InputError(
            f"model.bn_group={group} fits neither in nor around a device's share of {share} images "
            f"(batch {batch} on {devices} devices): one must divide the other"
        )
    return max(group // share, 1)


def embed_branches(
    network: ResNet,
    mesh: Mesh,
    group: int,
    frozen: bool,
    params: Tree,
    batch_stats: Tree,
    images: UInt8[Array, "b h w c"],
    which: Int[Array, "r b"],
    draws: Draws,
    matrices: Float[Array, "s o h w"],
    dropout_keys: Array,
) -> tuple[Float[Array, "r b d"], Tree]:
    """Unit embeddings of every view of every image, and the new running statistics.

    Every branch and every BatchNorm group of `group` consecutive images is a forward pass with
    statistics of its own; their mean over groups and branches goes into the running statistics.
    `frozen`: all are normalised by the running statistics, which stay as they are.
    `dropout_keys` is [r b].
    """

    def forward(
        params: Tree, batch_stats: Tree, views: Float[Array, "g h w c"], keys: Array
    ) -> tuple[Float[Array, "g d"], Tree]:
        embedding, new = network.apply(
            {"params": params, "batch_stats": batch_stats},
            views,
            train=not frozen,
            dropout_keys=keys,
            mutable=["batch_stats"],
        )
        return unit(embedding), new["batch_stats"]

    def moved(old: Array, new: Float[Array, "s r c"]) -> Array:
        kept = network.bn_momentum
        return kept * old + (1 - kept) * jax.lax.pmean(new.mean((0, 1)), AXIS)

    over_branches = jax.vmap(forward, in_axes=(None, None, 0, 0))
    over_groups = jax.vmap(over_branches, in_axes=(None, None, 1, 1), out_axes=(1, 0))

    def share(params, batch_stats, images, which, draws, matrices, keys):
        # the gradients of what every device has are summed over them; here, and not at every use
        params = jax.tree.map(lambda p: jax.lax.pcast(p, AXIS, to="varying"), params)
        branches, local = which.shape
        size = min(group or local, local)
        with jax.named_scope("views"):
            views = make_views(images, which, draws, matrices)
        views = views.reshape(branches, local // size, size, *views.shape[2:])
        keys = keys.reshape(branches, local // size, size)
        embeddings, stats = over_groups(params, batch_stats, views, keys)
        embeddings = embeddings.reshape(branches, local, -1)
        if frozen:
            return embeddings, batch_stats
        return embeddings, jax.tree.map(moved, batch_stats, stats)

    return jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(P(), P(), P(AXIS), P(None, AXIS), P(AXIS), P(), P(None, AXIS)),
        out_specs=(P(None, AXIS), P()),
    )(params, batch_stats, images, which, draws, matrices, dropout_keys)
