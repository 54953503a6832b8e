"""The loss of a step: cross-entropy of every branch, weighted distance of the low branches."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

SMALLEST = 1e-24  # squared norm: below it the norm counts as constant


def unit(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Scale to unit norm along the last axis; the zero vector stays zero, its gradient finite."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), SMALLEST))


def cosine_distance(a: Float[Array, "*#n d"], b: Float[Array, "*#n d"]) -> Float[Array, "*_"]:
    """`1 - cos` of unit vectors (paper eq. 2; its squared norms are slips)."""
    return 1 - jnp.sum(a * b, -1)


def distance_terms(embeddings: Float[Array, "r b d"]) -> Float[Array, " low"]:
    """L_dist of each low branch to branch 0, the mean over the batch (paper eq. 6); empty for one
    branch.

    Embeddings are of unit norm; gradients flow through both branches.
    """
    return cosine_distance(embeddings[:1], embeddings[1:]).mean(1)


def cross_entropy(
    logits: Float[Array, "r b k"], label: Int[Array, " b"], real: Bool[Array, " k"]
) -> Float[Array, " r"]:
    """Softmax cross-entropy of each branch, the mean over the batch; padded classes (not `real`)
    are out.
    """
    logits = jnp.where(real, logits, -jnp.inf)
    target = jnp.where(label[:, None] == jnp.arange(logits.shape[-1]), logits, 0).sum(-1)
    return (jax.nn.logsumexp(logits, -1) - target).mean(1)


def total(
    cross_entropies: Float[Array, " r"], distances: Float[Array, " low"], distance_weight: float
) -> Float[Array, ""]:
    """The sum over branches of CE plus the weighted sum over low ones of L_dist (eq. 7)."""
    return cross_entropies.sum() + distance_weight * distances.sum()
