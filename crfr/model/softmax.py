"""Margin softmax over classes that are sharded over the mesh: embeddings are gathered, class
centres and logits never are.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int

from crfr.model import losses
from crfr.model.margin import margin_logits
from crfr.model.norm import AXIS
from crfr.model.product import cosines

P = jax.P


class Head(NamedTuple):
    """margin: the keywords of `margin_logits`.  chunk: classes whose logits a device holds at a
    time; 0: all of its own.  dtype: of the network, and of the products (product.py).
    """

    margin: Mapping[str, Any]
    mesh: Mesh
    chunk: int
    dtype: jnp.dtype


def class_scores(
    embeddings: Float[Array, "r b d"],
    centres: Float[Array, "k d"],
    label: Int[Array, " b"],
    real: Bool[Array, " k"],
    head: Head,
) -> tuple[Float[Array, " r"], Float[Array, ""]]:
    """(cross-entropy of each branch, training accuracy of the plain cosine over all branches).

    Args:
      embeddings: of unit norm, sharded by example.
      centres: of any norm, sharded by class; the devices divide k.
      label: rows of `centres`.
      real: False for the rows that are no class.
    """
    if head.chunk:
        return _chunked(embeddings, centres, label, real, head)
    margin, mesh, _, dtype = head
    embeddings = jax.lax.with_sharding_constraint(embeddings, NamedSharding(mesh, P()))
    cosine = cosines(embeddings, centres, dtype)
    cosine = jax.lax.with_sharding_constraint(cosine, NamedSharding(mesh, P(None, None, AXIS)))
    logits = margin_logits(cosine, jnp.broadcast_to(label, cosine.shape[:2]), **margin)
    target = jnp.where(label[:, None] == jnp.arange(cosine.shape[-1]), cosine, -2).max(-1)
    accuracy = (target >= jnp.where(real, cosine, -2).max(-1)).mean()
    return losses.cross_entropy(logits, label, real), accuracy


def _chunked(
    embeddings: Array, centres: Array, label: Array, real: Array, head: Head
) -> tuple[Array, Array]:
    """`class_scores` with the logits of `chunk` classes at a time, forward and backward.

    The forward pass keeps the log of the softmax's denominator alone; the backward pass computes
    the logits again, chunk by chunk: four products of embeddings and centres a step, not three.
    """
    margin, mesh, chunk, dtype = head
    branches, batch, _ = embeddings.shape
    rows = centres.shape[0] // mesh.size  # of a device
    size = min(chunk, rows)
    steps = jnp.arange(-(-rows // size))
    by_example, by_class = P(None, AXIS), P(AXIS)

    def logits_of(
        e: Float[Array, "r b d"], w: Float[Array, "c d"], label: Int[Array, " b"]
    ) -> tuple[Float[Array, "r b c"], Float[Array, "r b c"]]:
        cosine: Any = cosines(e, w, dtype)  # custom_vjp hides the type
        return margin_logits(cosine, jnp.broadcast_to(label, cosine.shape[:2]), **margin), cosine

    def part(step: Array, centres: Array, label: Array, real: Array) -> tuple[Array, ...]:
        """(first row, rows, labels among them, which rows count) of a chunk.

        The last chunk begins early where the chunks do not divide the rows; what it shares with the
        one before counts there.
        """
        start = jnp.minimum(step * size, rows - size)
        w = jax.lax.dynamic_slice_in_dim(centres, start, size)
        counts = jax.lax.dynamic_slice_in_dim(real, start, size)
        counts &= start + jnp.arange(size) >= step * size
        mine = label - jax.lax.axis_index(AXIS) * rows - start
        return start, w, mine, counts

    def gather(embeddings: Array) -> Array:
        return jax.lax.all_gather(embeddings, AXIS, axis=1, tiled=True)

    def forward_share(
        embeddings: Array, centres: Array, label: Array, real: Array
    ) -> tuple[Array, Array, Array]:
        e = gather(embeddings)

        def add(carry: tuple, step: Array) -> tuple[tuple, None]:
            top, total, target, target_cosine, best = carry
            _, w, mine, counts = part(step, centres, label, real)
            logits, cosine = logits_of(e, w, mine)
            logits = jnp.where(counts, logits, -jnp.inf)
            hit = (mine[:, None] == jnp.arange(size)) & counts
            new = jnp.maximum(top, logits.max(-1))
            total = total * jnp.exp(top - new) + jnp.exp(logits - new[..., None]).sum(-1)
            target += jnp.where(hit, logits, 0).sum(-1)
            target_cosine = jnp.maximum(target_cosine, jnp.where(hit, cosine, -2).max(-1))
            best = jnp.maximum(best, jnp.where(counts, cosine, -2).max(-1))
            return (new, total, target, target_cosine, best), None

        def start(value: float) -> Array:
            filled = jnp.full((branches, batch), value, e.dtype)
            return jax.lax.pcast(filled, AXIS, to="varying")

        # finite, so that a chunk without a class leaves 0 and not the difference of infinities
        lowest = float(jnp.finfo(e.dtype).min) / 2
        first = (start(lowest), start(0), start(0), start(-2), start(-2))
        (top, total, target, target_cosine, best), _ = jax.lax.scan(add, first, steps)
        highest = jax.lax.pmax(top, AXIS)
        logsumexp = highest + jnp.log(jax.lax.psum(total * jnp.exp(top - highest), AXIS))
        hits = jax.lax.pmax(target_cosine, AXIS) >= jax.lax.pmax(best, AXIS)
        return logsumexp, jax.lax.psum(target, AXIS), hits.mean()

    def backward_share(
        embeddings: Array,
        centres: Array,
        label: Array,
        real: Array,
        logsumexp: Array,
        slope: Array,
    ) -> tuple[Array, Array]:
        e = gather(embeddings)

        def add(carry: tuple, step: Array) -> tuple[tuple, None]:
            of_e, of_centres = carry
            start, w, mine, counts = part(step, centres, label, real)
            (logits, _), pull = jax.vjp(lambda e, w: logits_of(e, w, mine), e, w)
            hit = mine[:, None] == jnp.arange(size)
            wrong = jnp.where(counts, jnp.exp(logits - logsumexp[..., None]) - hit, 0)
            more_e, more_w = pull((wrong * slope[:, None, None], jnp.zeros_like(wrong)))
            more_w += jax.lax.dynamic_slice_in_dim(of_centres, start, size)
            of_centres = jax.lax.dynamic_update_slice_in_dim(of_centres, more_w, start, 0)
            return (of_e + more_e, of_centres), None

        (of_e, of_centres), _ = jax.lax.scan(
            add, (jnp.zeros_like(e), jnp.zeros_like(centres)), steps
        )
        return jax.lax.psum_scatter(of_e, AXIS, scatter_dimension=1, tiled=True), of_centres

    in_specs = (by_example, by_class, P(), by_class)

    @jax.custom_vjp
    def scores(e: Array, centres: Array, label: Array, real: Array) -> tuple[Array, Array]:
        return forward(e, centres, label, real)[0]

    def forward(
        e: Array, centres: Array, label: Array, real: Array
    ) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        logsumexp, target, accuracy = jax.shard_map(
            forward_share, mesh=mesh, in_specs=in_specs, out_specs=(P(), P(), P())
        )(e, centres, label, real)
        entropies = (logsumexp - target).mean(1)
        return (entropies, accuracy), (e, centres, label, real, logsumexp)

    def backward(kept: tuple[Array, ...], slopes: tuple[Array, Array]) -> tuple:
        e, centres, label, real, logsumexp = kept
        of_e, of_centres = jax.shard_map(
            backward_share,
            mesh=mesh,
            in_specs=(*in_specs, P(), P()),
            out_specs=(by_example, by_class),
        )(e, centres, label, real, logsumexp, slopes[0] / batch)
        return of_e, of_centres, None, None

    scores.defvjp(forward, backward)
    return scores(embeddings, centres, label, real)
