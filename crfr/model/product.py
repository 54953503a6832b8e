"""The product of embeddings and class centres: the head's work, in the network's own precision."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def cosines(
    embeddings: Float[Array, "r b d"], centres: Float[Array, "k d"], dtype: jnp.dtype
) -> Float[Array, "r b k"]:
    """The cosines of float32 (float64) unit embeddings and unit centres, in their type.

    dtype: of the network.  bfloat16: factors are rounded to it, forward and backward, and sums are
    float32: on a GPU true float32 would take a quarter of a ResNet-50 step, and TF32, its default,
    rounds the factors as well.  Any other: true products in the type of the arguments.
    """
    if dtype == jnp.bfloat16:
        return _rounded(embeddings, centres)
    return jnp.einsum("rbd,kd->rbk", embeddings, centres, precision="highest")


def _product(equation: str, a: Array, b: Array) -> Array:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _rounded(embeddings: Array, centres: Array) -> Array:
    return _product("rbd,kd->rbk", embeddings, centres)


def _forward(embeddings: Array, centres: Array) -> tuple[Array, tuple[Array, Array]]:
    kept = embeddings.astype(jnp.bfloat16), centres.astype(jnp.bfloat16)
    return _rounded(embeddings, centres), kept


def _backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    embeddings, centres = kept
    # the slope of a float32 product would make float32 products of both
    of_embeddings = _product("rbk,kd->rbd", slope, centres)
    return of_embeddings, _product("rbk,rbd->kd", slope, embeddings)


_rounded.defvjp(_forward, _backward)
