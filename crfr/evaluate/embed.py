"""Embeddings of images, each at a resolution of its own: one compiled function for all, no image
dropped.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Float32, Int, Num, UInt8

from crfr.errors import InputError
from crfr.evaluate.encoders import Encoder
from crfr.model.fold import fold
from crfr.model.losses import unit
from crfr.model.resnet import ResNet
from crfr.train.sharding import by_example, replicated
from crfr.views.degrade import apply_degradation

HELD = 2**30  # bytes of images that each device may hold: LFW's are 290 MB
PRECISIONS = ("float32", "bfloat16")  # of a network's products, where it is one of crfr's

# (images uint8 [b h w c], resolutions [b]) -> unit embeddings [b d], on the devices or on the host.
Embed = Callable[[Array, Array], Any]


class BrokenEmbeddingsError(InputError):
    """Embeddings that are not finite, or zero: of this model, and no other's affair."""


def compile_embed(
    network: ResNet, mesh: Mesh, *, variant: str | None = "bicubic", flip: bool = False
) -> Callable[[Any, Array, Array], Array]:
    """The jitted function (variables, images uint8 [b h w c], resolutions [b]) -> unit embeddings
    [b d].

    Degradation and norm are float32 at least, and so are the products of a network in float32, on
    every device.  `flip`: the embedding is the normalised sum of those of the image and its mirror
    image, as InsightFace evaluates.  With `variant` None images are taken as they are, float32 in
    0..255, and the resolutions are ignored.
    """

    def embed(
        variables: Any, images: Num[Array, "b h w c"], resolutions: Int[Array, " b"]
    ) -> Float[Array, "b d"]:
        with jax.default_matmul_precision("highest"):
            pixels = images.astype(jnp.promote_types(network.dtype, jnp.float32))
            if variant is not None:
                pixels = apply_degradation(pixels, resolutions, variant)
            embedding = jnp.asarray(network.apply(variables, pixels)).astype(pixels.dtype)
            if flip:
                embedding += jnp.asarray(network.apply(variables, pixels[:, :, ::-1]))
        return unit(embedding)

    whole, examples = replicated(mesh), by_example(mesh)
    # whole, so that every process has them all; they are small beside the images
    return jax.jit(embed, in_shardings=(whole, examples, examples), out_shardings=whole)


def make_embed(
    encoder: Encoder, mesh: Mesh, *, variant: str | None = "bicubic", flip: bool = False
) -> Embed:
    """The function of an encoder that embeds a batch.

    Of a network, with its BatchNorms folded away, it is compiled together with the degradation.
    Any other encoder gets the degraded pixels from a compiled function, in float32 or rounded to
    uint8, as it wants them.  `variant` and `flip` as in `compile_embed`.
    """
    if encoder.network is not None:
        network, weights = fold(encoder.network, encoder.variables)
        compiled = compile_embed(network, mesh, variant=variant, flip=flip)
        variables = jax.device_put(weights, replicated(mesh))
        return lambda images, resolutions: compiled(variables, images, resolutions)

    examples = by_example(mesh)
    function, rounded = encoder.function, encoder.pixels == "uint8"
    assert function is not None

    def degraded(
        images: Num[Array, "b h w c"], resolutions: Int[Array, " b"]
    ) -> UInt8[Array, "b h w c"] | Float32[Array, "b h w c"]:
        pixels = images.astype(jnp.float32)
        if variant is not None:
            pixels = apply_degradation(pixels, resolutions, variant)
        return jnp.round(jnp.clip(pixels, 0, 255)).astype(jnp.uint8) if rounded else pixels

    compiled = jax.jit(degraded, in_shardings=(examples, examples), out_shardings=examples)

    def embed(images: Array, resolutions: Array) -> Float32[np.ndarray, "b d"]:
        pixels = np.asarray(compiled(images, resolutions))
        embedding = function(pixels)
        if flip:
            embedding = embedding + function(np.ascontiguousarray(pixels[:, :, ::-1]))
        # In float64, where no square overflows.  Not finite stays so, which the check finds.
        with np.errstate(invalid="ignore"):
            norm = np.linalg.norm(embedding.astype(np.float64), axis=1, keepdims=True)
            return (embedding / np.where(norm > 0, norm, 1)).astype(np.float32)  # zeros stay zeros

    return embed


def embed_work(
    embed: Embed,
    images: UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n h w c"],
    which: Int[np.ndarray, " m"],
    resolutions: Int[np.ndarray, " m"],
    *,
    mesh: Mesh,
    batch: int,
    pad: bool = True,
) -> Iterator[tuple[slice, Float32[np.ndarray, "b d"]]]:
    """Unit embeddings of `images[which]`, each at its resolution (px), as (part of the m, [b d]).

    Images that are embedded several times, as in a sweep, go to the devices once and are picked
    there, if they take no more than `HELD`: gathering them on the host for each batch would take
    longer than a GPU takes to embed them.  Batches hold whatever comes next, of one resolution or
    several; the last one is padded and cut.  `batch` is rounded up to a multiple of the devices.
    Without `pad` the last one is filled up to a multiple of the devices only: for encoders that
    need no fixed shape.  One batch is under way while the one before it is handed out, unchecked:
    see `check_embeddings`.
    """
    batch = -(-batch // mesh.size) * mesh.size
    place = by_example(mesh)
    held = None
    if len(which) > len(images) and images.nbytes <= HELD:
        held = _spread(images, replicated(mesh))

    def finish(part: slice, result: Any) -> tuple[slice, np.ndarray]:
        return part, np.asarray(result, np.float32)[: part.stop - part.start]

    before = None
    for start in range(0, len(which), batch):
        part = slice(start, min(start + batch, len(which)))
        real = part.stop - start
        size = batch if pad else -(-real // mesh.size) * mesh.size
        at = np.full(size, which[start], np.int32)
        at[:real] = which[part]
        sizes = np.full(size, resolutions[start], np.int32)
        sizes[:real] = resolutions[part]
        # one copy: nearly all that the host does where the devices hold no images
        pixels = _spread(np.asarray(images[at]), place) if held is None else _pick(mesh)(held, at)
        result = embed(pixels, _spread(sizes, place))
        if before is not None:
            yield finish(*before)
        before = part, result
    if before is not None:
        yield finish(*before)


@functools.cache
def _pick(mesh: Mesh) -> Callable[[Array, Any], Array]:
    """The jitted function (images [n h w c], whole on each device; indices [b]) -> [b h w c]."""
    whole, examples = replicated(mesh), by_example(mesh)
    return jax.jit(
        lambda images, at: images[at], in_shardings=(whole, whole), out_shardings=examples
    )


def _spread(values: np.ndarray, place: NamedSharding) -> Array:
    """An array over all devices, of which each process sends its own devices their parts."""
    return jax.make_array_from_callback(values.shape, place, lambda part: values[part])


def check_embeddings(
    embeddings: Float32[np.ndarray, "m d"], which: Int[np.ndarray, " m"], resolution: int
) -> None:
    """Raises BrokenEmbeddingsError where embeddings of images at a resolution (px) are not finite,
    or zero.
    """
    broken = ~np.isfinite(embeddings).all(1)
    empty = ~broken & (
        np.linalg.norm(np.where(np.isfinite(embeddings), embeddings, 0), axis=1) == 0
    )
    for bad, what in ((broken, "not finite"), (empty, "zero")):
        if bad.any():
            named = ", ".join(map(str, which[bad][:5])) + (", ..." if bad.sum() > 5 else "")
            raise BrokenEmbeddingsError(
                f"{bad.sum()} of {len(which)} embeddings at {resolution} px are {what} (of images "
                f"{named} of the benchmark): the model has diverged or is fed wrongly; choose "
                "another step, or check its preset"
            )


def embed_images(
    embed: Embed,
    images: UInt8[np.ndarray, "n h w c"],
    resolution: int,
    *,
    mesh: Mesh,
    batch: int,
) -> Float32[np.ndarray, "n d"]:
    """Unit embeddings of all images at one resolution (px), checked."""
    every, sizes = np.arange(len(images)), np.full(len(images), resolution, np.int32)
    parts = embed_work(embed, images, every, sizes, mesh=mesh, batch=batch)
    embeddings = np.concatenate([found for _, found in parts])
    check_embeddings(embeddings, every, resolution)
    return embeddings
