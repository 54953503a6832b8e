"""A network as one function of JAX: pixels of any size -> unit embeddings; and the formats that
are made from it, StableHLO and TensorFlow's SavedModel.

Height, width and number of the images are open in both, so the resize makes its matrices inside
the function, from the sizes that come.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float

from crfr.model.losses import unit
from crfr.model.resnet import ResNet
from crfr.views.degrade import SIDE

PLATFORMS = ("cpu", "cuda", "tpu")
SIZES = "b, h, w, 3"

Inference = Callable[[Array], Array]


def make_inference(network: ResNet, variables: Any) -> Inference:
    """The function (images [b h w 3], RGB 0..255, uint8 or float32) -> unit embeddings float32
    [b d], in true float32 on every device.
    """
    held = jax.tree.map(jnp.asarray, variables)

    def embed(images: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            return unit(jnp.asarray(network.apply(held, resize(images.astype(jnp.float32)))))

    return embed


def resize(images: Float[Array, "b h w 3"]) -> Float[Array, "b 112 112 3"]:
    """Antialiased bicubic to 112 px, clipped to 0..255, of sizes that may be symbolic.

    As `degrade.resize_matrix`; 112 px are left as they are, to the bit.
    """
    _, height, width, _ = images.shape
    tall = jnp.einsum("oh,bhwc->bowc", _matrix(height), images, precision="highest")
    square = jnp.einsum("pw,bowc->bopc", _matrix(width), tall, precision="highest")
    return jnp.clip(square, 0.0, 255.0)


def _matrix(size: Any) -> Float[Array, "112 i"]:
    """The matrix that resizes a line of `size` samples, an int or a symbol, to 112."""
    scale = jnp.asarray(size).astype(jnp.float32) / SIDE  # input samples an output sample
    centre_out = (jnp.arange(SIDE, dtype=jnp.float32)[:, None] + 0.5) * scale
    centre_in = jnp.arange(size, dtype=jnp.float32)[None] + 0.5
    x = jnp.abs(centre_out - centre_in) / jnp.maximum(scale, 1.0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weight = jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))
    return weight / weight.sum(axis=1, keepdims=True)


def make_stablehlo(embed: Inference, pixels: str) -> tuple[bytes, int]:
    """(a serialised `jax.export.Exported` of `embed` for images of the type `pixels`, the version
    of its calling convention), for CPU, CUDA and TPU.
    """
    shape = export.symbolic_shape(SIZES)
    images = jax.ShapeDtypeStruct(shape, np.dtype(pixels))
    # Without the places in the source that operations come from: paths of this machine are
    # nobody's business, and would make other bytes of the same model on the next.
    limit = jax.config.jax_traceback_in_locations_limit  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        exported = export.export(jax.jit(embed), platforms=PLATFORMS)(images)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
    return bytes(exported.serialize()), exported.calling_convention_version
