"""The cosines of embeddings and class centres: the head's work, in the network's own precision.

The class matrix is by far the largest array of a step, and every pass over it counts: the centres
are not normalised before the product, but their logits after it, and the gradient is written out so
that it takes what is radial in it from the cosines and not from the matrix.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from crfr.model.losses import SMALLEST


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def cosines(
    embeddings: Float[Array, "r b d"], centres: Float[Array, "k d"], dtype: jnp.dtype
) -> Float[Array, "r b k"]:
    """The cosines of float32 (float64) unit embeddings and centres of any norm, in their type.

    A centre of zeros has the cosine 0 with everything.
    dtype: of the network.  bfloat16: factors are rounded to it, forward and backward, and the
    centres' gradient, as that of the convolutions' kernels; sums are float32.  On a GPU true
    float32 would take a quarter of a ResNet-50 step, and TF32, its default, rounds the factors as
    well.  Any other: true products in the type of the arguments.
    """
    return _forward(embeddings, centres, dtype)[0]


def _forward(
    embeddings: Array, centres: Array, dtype: jnp.dtype
) -> tuple[Array, tuple[Array, Array, Array]]:
    product = _product("rbd,kd->rbk", embeddings, centres, dtype)
    # Behind a barrier: else the compiler keeps logits and cosines, not the product that both are
    # made of.
    cosine = jax.lax.optimization_barrier(product) * _scale(centres)
    return cosine, (embeddings, centres, cosine)


def _backward(
    dtype: jnp.dtype, kept: tuple[Array, Array, Array], slope: Array
) -> tuple[Array, Array]:
    """For s the scale of a centre w, c the cosines and g = s x slope: of the embeddings g w; of w
    the sum of g e, less its part along w, which is (the sum of g c) s w.
    """
    embeddings, centres, cosine = kept
    scale = _scale(centres)
    scaled = slope * scale
    if dtype == jnp.bfloat16:
        # behind a barrier: else it is written in float32 and rounded in a pass of its own
        scaled = jax.lax.optimization_barrier(scaled.astype(dtype))
    of_embeddings = _product("rbk,kd->rbd", scaled, centres, dtype)
    # of what is rounded like the product that it is subtracted from
    radial = (scaled.astype(cosine.dtype) * cosine).sum((0, 1)) * scale
    radial = jnp.where(_squares(centres) > SMALLEST, radial, 0)  # below it the scale is a constant
    straight = _product("rbk,rbd->kd", scaled, embeddings, dtype)
    if dtype == jnp.bfloat16:
        straight = straight.astype(dtype)
    return of_embeddings.astype(embeddings.dtype), straight - radial[:, None] * centres


cosines.defvjp(_forward, _backward)


def _squares(centres: Float[Array, "k d"]) -> Float[Array, " k"]:
    return jnp.sum(centres * centres, -1)


def _scale(centres: Float[Array, "k d"]) -> Float[Array, " k"]:
    """1 over the norm of each."""
    return jax.lax.rsqrt(jnp.maximum(_squares(centres), SMALLEST))


def _product(equation: str, a: Array, b: Array, dtype: jnp.dtype) -> Array:
    if dtype == jnp.bfloat16:
        a, b = a.astype(dtype), b.astype(dtype)
        return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
    return jnp.einsum(equation, a, b, precision="highest")
