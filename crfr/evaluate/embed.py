"""Embeddings of images at a resolution: one compiled function for all resolutions, no image
dropped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, UInt8
from tqdm import tqdm

from crfr.errors import InputError
from crfr.model.losses import unit
from crfr.model.resnet import ResNet
from crfr.train.sharding import by_example, replicated
from crfr.views.degrade import apply_degradation

Embed = Callable[[Any, Array, Array], Array]


def compile_embed(
    network: ResNet, mesh: Mesh, *, variant: str = "bicubic", flip: bool = False
) -> Embed:
    """The jitted function (variables, images uint8 [b h w c], resolutions [b]) -> unit embeddings
    [b d].

    Products are true float32 on every device.  `flip`: the embedding is the normalised sum of those
    of the image and its mirror image, as InsightFace evaluates.
    """

    def embed(
        variables: Any, images: UInt8[Array, "b h w c"], resolutions: Int[Array, " b"]
    ) -> Float[Array, "b d"]:
        with jax.default_matmul_precision("highest"):
            pixels = apply_degradation(images.astype(network.dtype), resolutions, variant)
            embedding = jnp.asarray(network.apply(variables, pixels))
            if flip:
                embedding += jnp.asarray(network.apply(variables, pixels[:, :, ::-1]))
        return unit(embedding)

    whole, examples = replicated(mesh), by_example(mesh)
    return jax.jit(embed, in_shardings=(whole, examples, examples), out_shardings=examples)


def embed_images(
    embed: Embed,
    variables: Any,
    images: UInt8[np.ndarray, "n h w c"],
    resolution: int,
    *,
    mesh: Mesh,
    batch: int,
    progress: tqdm | None = None,
) -> Float32[np.ndarray, "n d"]:
    """Unit embeddings of all images at one resolution (px); the last batch is padded and cut.

    `batch` is rounded up to a multiple of the devices.  Raises InputError for embeddings that are
    not finite.
    """
    batch = -(-batch // mesh.size) * mesh.size
    place = by_example(mesh)
    resolutions = jax.device_put(np.full(batch, resolution, np.int32), place)
    parts = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        real = len(part)
        if real < batch:
            part = np.concatenate([part, np.zeros((batch - real, *part.shape[1:]), np.uint8)])
        parts.append(embed(variables, jax.device_put(part, place), resolutions)[:real])
        if progress is not None:
            progress.update(real)
    embeddings = np.asarray(jnp.concatenate(parts), np.float32)
    broken = np.flatnonzero(~np.isfinite(embeddings).all(1))
    if broken.size:
        raise InputError(
            f"{broken.size} of {len(images)} embeddings at {resolution} px are not finite (first: "
            f"image {broken[0]}): the model has diverged; choose another step"
        )
    return embeddings
