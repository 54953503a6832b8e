"""Whether an exported model gives what the network does, and how long both take."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from crfr.model.losses import unit
from crfr.model.resnet import ResNet
from crfr.views.degrade import SIDE, resize_matrix

# images a batch, height and width in px: what the check feeds, of noise and of faces
SHAPES = ((8, 112, 112), (1, 112, 112), (3, 7, 7), (2, 28, 20), (4, 131, 160))
BATCHES = (1, 32)  # images that are timed
MOST = 1e-4  # by which distances of pairs may differ

Embed = Callable[[np.ndarray], Float32[np.ndarray, "b d"]]


def as_trained(network: ResNet, variables: Any) -> Embed:
    """The network as it was trained, nothing folded: images [b h w 3] -> unit embeddings [b d].

    The resize is NumPy's in float64, by the matrices of the degradation.
    """

    @jax.jit
    def embed(pixels: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return unit(jnp.asarray(network.apply(variables, pixels)))

    def run(images: np.ndarray) -> Float32[np.ndarray, "b d"]:
        if images.shape[1:3] != (SIDE, SIDE):
            images = np.clip(resized(images, SIDE, SIDE), 0, 255)
        return np.asarray(embed(jnp.asarray(images, jnp.float32)), np.float32)

    return run


def resized(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images [b h w c], antialiased bicubic, in float64, not clipped."""
    _, tall, wide, _ = images.shape
    rows, columns = resize_matrix(tall, height), resize_matrix(wide, width)
    return np.einsum("oh,bhwc,pw->bopc", rows, images.astype(np.float64), columns, optimize=True)


def check_images(faces: UInt8[np.ndarray, "n 112 112 3"], pixels: str) -> list[np.ndarray]:
    """Batches of noise and of faces, of every shape in SHAPES, of the type `pixels`."""
    rng = np.random.default_rng(0)
    batches = []
    for number, height, width in SHAPES:
        noise = rng.uniform(0, 255, (number, height, width, 3))
        which = np.arange(number) * len(faces) // number
        real = np.clip(resized(faces[which], height, width), 0, 255)
        for batch in (noise, real):
            whole = np.round(batch) if pixels == "uint8" else batch
            batches.append(whole.astype(pixels))
    return batches


def compare(original: Embed, exported: Embed, batches: list[np.ndarray]) -> dict[str, Any]:
    """How far the exported embeddings are from the original ones.

    `pairs`: of images, of all batches together; `difference`: the largest of a pair's two cosine
    distances; `distance`: the largest between the two embeddings of one image.
    """
    before = np.concatenate([original(batch) for batch in batches]).astype(np.float64)
    after = np.concatenate([exported(batch) for batch in batches]).astype(np.float64)
    images = len(before)
    return {
        "images": images,
        "pairs": images * (images - 1) // 2,
        "shapes": [list(shape) for shape in SHAPES],
        "difference": float(np.abs(after @ after.T - before @ before.T).max()),
        "distance": float(np.max(1 - np.einsum("nd,nd->n", before, after))),
    }


def timing_device() -> Any:
    """The device of JAX that both are timed on: the CPU, or what it has where it was told to leave
    that out.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def time_both(
    original: Embed, exported: Embed, faces: Shaped[np.ndarray, "n 112 112 3"], repeats: int
) -> list[dict[str, Any]]:
    """Of each batch of BATCHES, the median milliseconds of both, called in turns after a first
    call that is not counted.  `faces` are of the type that the exported one takes.
    """
    rows = []
    for number in BATCHES:
        images = faces[np.arange(number) % len(faces)]
        times: dict[str, list[float]] = {"original_ms": [], "exported_ms": []}
        for repeat in range(repeats + 1):
            for name, embed in zip(times, (original, exported), strict=True):
                started = time.perf_counter()
                embed(images)
                if repeat:
                    times[name].append(1000 * (time.perf_counter() - started))
        medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
        rows.append({"images": number, "repeats": repeats, **medians})
    return rows
