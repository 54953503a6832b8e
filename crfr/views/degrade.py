"""Degradation of an image to a resolution r: down to r x r, up again to its own size (paper eq. 1).

Resizing is linear and separable, so down-then-up at r is `M_r X M_r^T` for each channel X, with
`M_r = U_r D_r`.  The bank holds one matrix a resolution, computed once in NumPy float64; a batch
gathers one matrix an image.  Every image has its own resolution under static shapes and without
recompilation.

The kernels are those of `jax.image.resize(..., antialias=True)`: half-pixel centres, the kernel
widened by the scale when it shrinks, weights renormalised at the borders.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Float32, Float64, Int

from crfr.errors import InputError, unknown

SIDE = 112  # px, the side of an aligned face and of the network's input (paper section 3.2)

LARGEST = 256  # px; the bank of a side holds side^3 numbers, three times

# What a variant of the degradation does: its kernel, whether the small image is rounded to uint8 as
# saving it would, whether the result is clipped to the pixel range as the authors' code does.
VARIANTS = {
    "bicubic": ("cubic", False, True),
    "bilinear": ("linear", False, True),
    "area": ("box", False, True),
    "quantize": ("cubic", True, True),
    "noclip": ("cubic", False, False),
}


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5 (paper ref. 25)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - np.abs(x))


def resize_matrix(
    size_in: int, size_out: int, kernel: str = "cubic", rows: slice = slice(None)
) -> Float64[np.ndarray, "o i"]:
    """The matrix that resizes a line of `size_in` samples to `size_out`, antialiased when it
    shrinks; of a large one some `rows`, as each takes 40 bytes a sample while it is made.

    `kernel` is "cubic", "linear" or "box" (each output the exact mean of the input it covers; where
    it grows, overlapping pixels in proportion).  Rows sum to 1.
    """
    scale = size_in / size_out  # input samples an output sample
    centre_out = (np.arange(size_out)[rows, None] + 0.5) * scale
    if kernel == "box":
        left, right = np.arange(size_in)[None], np.arange(size_in)[None] + 1
        covered = np.minimum(right, centre_out + scale / 2) - np.maximum(
            left, centre_out - scale / 2
        )
        weight = np.maximum(covered, 0.0)
    else:
        centre_in = np.arange(size_in)[None] + 0.5
        weight = {"cubic": cubic, "linear": _linear}[kernel](
            (centre_out - centre_in) / max(scale, 1.0)
        )
    return weight / weight.sum(axis=1, keepdims=True)


@functools.cache
def bank(
    kernel: str = "cubic", side: int = SIDE
) -> tuple[
    Float32[np.ndarray, "s i i"], Float32[np.ndarray, "s i i"], Float32[np.ndarray, "s i i"]
]:
    """(M, D, U) for every resolution 1..side, indexed r - 1; `M[r-1] = U_r D_r`.

    D_r [r side] and U_r [side r] are padded with zeros to [side side], so that all have one shape.
    M at r = side is the identity exactly.
    """
    down = np.zeros((side, side, side))
    up = np.zeros((side, side, side))
    for r in range(1, side + 1):
        down[r - 1, :r] = resize_matrix(side, r, kernel)
        up[r - 1, :, :r] = resize_matrix(r, side, kernel)
    both = up @ down
    return both.astype(np.float32), down.astype(np.float32), up.astype(np.float32)


def check_resolutions(resolutions: Int[np.ndarray, "..."], side: int = SIDE) -> None:
    """Raises InputError where a resolution is outside 1..side.

    On the host only: under a trace a bad index would wrap round in silence.
    """
    bad = resolutions[(resolutions < 1) | (resolutions > side)]
    if bad.size:
        raise InputError(
            f"resolution {int(bad.flat[0])} px is outside 1..{side}: give resolutions in it"
        )


def sandwich(
    rows: Float[Array, "n o h"],
    images: Float[Array, "n h w c"],
    columns: Float[Array, "n p w"],
    precision: str,
) -> Float[Array, "n o p c"]:
    """`rows X columns^T` for each image and channel: a separable linear map, as two batched
    products.
    """
    images = jnp.einsum("noh,nhwc->nowc", rows, images, precision=precision)
    return jnp.einsum("npw,nowc->nopc", columns, images, precision=precision)


def apply_degradation(
    images: Float[Array, "n h w c"],
    resolutions: Int[Array, " n"],
    variant: str = "bicubic",
    precision: str = "highest",
) -> Float[Array, "n h w c"]:
    """`degrade` for use inside a compiled function: float images in 0..255, resolutions unchecked.

    `precision` is that of the float32 products: a GPU's default is lower than float32 and would
    cost tenths of a grey level, so evaluation asks for "highest".
    """
    kernel, quantize, clip = VARIANTS[variant]
    both, down, up = (jnp.asarray(m) for m in bank(kernel, images.shape[1]))
    if quantize:
        small = sandwich(down[resolutions - 1], images, down[resolutions - 1], precision)
        small = jnp.round(jnp.clip(small, 0.0, 255.0))
        images = sandwich(up[resolutions - 1], small, up[resolutions - 1], precision)
    else:
        images = sandwich(both[resolutions - 1], images, both[resolutions - 1], precision)
    return jnp.clip(images, 0.0, 255.0) if clip else images


_compiled_degradation = jax.jit(apply_degradation, static_argnames=("variant", "precision"))


def degrade(
    images: ArrayLike, resolutions: ArrayLike, *, variant: str = "bicubic"
) -> Float32[Array, "n h w c"]:
    """Degrade each image to its resolution and bring it back to its own size (paper eq. 1).

    Args:
      images: [n h w c], square (h = w), uint8 or float, in 0..255.
      resolutions: the side in px of the down-sampled image, an int or ints [n], in 1..h; h leaves
        the image as it is.
      variant: "bicubic" (antialiased, the paper's), "bilinear", "area", "quantize" (bicubic, the
        small image rounded to uint8) or "noclip" (bicubic, over- and undershoot kept).

    Returns:
      float32 [n h w c] in 0..255.

    Raises:
      InputError: images that are not square, not [n h w c] or larger than 256 px; resolutions that
        are no integers, outside 1..h, or neither one nor n; an unknown variant.
    """
    shape = np.shape(images)
    if len(shape) != 4 or shape[1] != shape[2]:
        raise InputError(
            f"images of shape {list(shape)}: degrade takes square images [n h w c], h = w"
        )
    if shape[1] > LARGEST:
        raise InputError(
            f"images of {shape[1]} px: degrade keeps matrices for every resolution, which it does "
            f"up to {LARGEST} px; align the faces to 112 px first"
        )
    if variant not in VARIANTS:
        raise unknown("degradation", variant, VARIANTS)
    resolutions = np.asarray(resolutions)
    if not np.issubdtype(resolutions.dtype, np.integer):
        raise InputError(f"resolutions of type {resolutions.dtype}: give integers, the side in px")
    if resolutions.shape not in {(), (shape[0],)}:
        raise InputError(
            f"{list(resolutions.shape)} resolutions for {shape[0]} images: give one, or one each"
        )
    check_resolutions(resolutions, side=shape[1])
    resolutions = np.broadcast_to(resolutions, shape[:1]).astype(np.int32)
    return _compiled_degradation(jnp.asarray(images, jnp.float32), resolutions, variant=variant)
