"""Training views of a batch on the device: crop, flip, degradation, colour and clip.

Crop and flip are linear and separable as the degradation is, so one gathered matrix an axis does
all three at once.  Brightness and saturation are affine in a pixel's channels and the matrices'
rows sum to 1, so colour commutes with resizing and is computed after the products, before the one
clip.  All views of an image share its crop, flip and colour.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8

from crfr.errors import InputError
from crfr.views.degrade import SIDE, bank, resize_matrix, sandwich

LUMA = (0.299, 0.587, 0.114)  # Rec. 601, RGB


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of the random variation (paper section 3.1 names the kinds, not the ranges).

    crop: side in px of the grid the image is resized to before a box of 112 is cut from it at a
      random offset; 112 means no crop.
    flip: left-right flip with probability 1/2.
    brightness: largest shift, as a fraction of the range 0..255.
    saturation: the blend with luma is drawn from 1 - saturation .. 1 + saturation.
    """

    crop: int = 128
    flip: bool = True
    brightness: float = 0.4
    saturation: float = 0.4

    def __post_init__(self):
        if not SIDE <= self.crop <= 2 * SIDE:
            raise InputError(f"augment.crop={self.crop}: give {SIDE} (no crop) to {2 * SIDE}")
        if not 0 <= self.brightness <= 1:
            raise InputError(f"augment.brightness={self.brightness}: give 0 to 1")
        if not 0 <= self.saturation <= 1:
            raise InputError(f"augment.saturation={self.saturation}: give 0 to 1")


class Draws(NamedTuple):
    """The random variation of each image: offsets in px on the crop grid, flip, colour."""

    top: Int[Array, " b"]
    left: Int[Array, " b"]
    flip: Bool[Array, " b"]
    shift: Float[Array, " b"]  # grey levels
    saturation: Float[Array, " b"]


def draw(augmentation: Augmentation, key: Array, batch: int) -> Draws:
    """Draw the variation of a global batch of images; for use inside a compiled function."""
    top, left, flip, shift, saturation = jax.random.split(key, 5)
    offsets = augmentation.crop - SIDE + 1
    span = augmentation.saturation
    return Draws(
        jax.random.randint(top, (batch,), 0, offsets),
        jax.random.randint(left, (batch,), 0, offsets),
        jax.random.bernoulli(flip, 0.5, (batch,)) & augmentation.flip,
        jax.random.uniform(shift, (batch,), minval=-1, maxval=1) * (255 * augmentation.brightness),
        jax.random.uniform(saturation, (batch,), minval=1 - span, maxval=1 + span),
    )


def view_bank(resolutions: tuple[int, ...], crop: int) -> Float32[np.ndarray, "s o h w"]:
    """The matrix `M_r C_o` for each resolution and crop offset: crop at o, then degrade to r.

    C_o [112 112] is the part of the resize to the crop grid that a box at offset o keeps: no
    padding.
    """
    degradations = bank()[0][np.asarray(resolutions) - 1].astype(np.float64)
    grid = resize_matrix(SIDE, crop)
    crops = np.stack([grid[o : o + SIDE] for o in range(crop - SIDE + 1)])
    return np.einsum("sij,ojk->soik", degradations, crops).astype(np.float32)


def make_views(
    images: UInt8[Array, "b h w c"],
    which: Int[Array, "r b"],
    draws: Draws,
    matrices: Float[Array, "s o h w"],
    precision: str = "highest",
) -> Float[Array, "r b h w c"]:
    """The views of each image, float in 0..255.

    `which` [r b] indexes the resolutions of `matrices` (`view_bank`).
    """
    pixels = images.astype(matrices.dtype)
    luma = jnp.asarray(LUMA, pixels.dtype)

    def view(index: Int[Array, " b"]) -> Float[Array, "b h w c"]:
        rows = matrices[index, draws.top]
        columns = matrices[index, draws.left]
        # the mirror image of a row of pixels is the mirror image of its degradation
        columns = jnp.where(draws.flip[:, None, None], columns[:, ::-1], columns)
        result = sandwich(rows, pixels, columns, precision) + draws.shift[:, None, None, None]
        grey = jnp.matmul(result, luma, precision=precision)[..., None]
        result = grey + draws.saturation[:, None, None, None] * (result - grey)
        return jnp.clip(result, 0.0, 255.0)

    return jax.vmap(view)(which)
