"""Images of any size -> 112 x 112 px in float32, by the project's antialiased bicubic.

What is resized to 112 px keeps no more detail than it had, so its resolution is recorded beside
it: the shorter side of an aligned crop, capped at 112.  That is an upper bound.  A crop that was
enlarged before it got here (saved at 112 px from a face of 20) shows nothing of it in its size;
whoever knows says so (`resolution=` of Model.embed).  Of crops that are not square the longer side
is squeezed to 112 px too, so that the shorter one says what detail there is in both directions.
"""

import functools

import numpy as np
from jaxtyping import Float32, UInt8

from crfr.views.degrade import SIDE, resize_matrix

AT_ONCE = 2**24  # numbers of float32 that a part of a large image takes: 64 MiB
ROWS_AT_ONCE = 2**18  # numbers of a matrix made at a time: 10 MiB with what lies about meanwhile
KEPT = 2**20  # numbers of a matrix that is kept, one of 16: 4 MiB each


def _matrix(size_in: int, size_out: int) -> Float32[np.ndarray, "o i"]:
    """In float32, of some rows at a time, and kept for the next image where it is small."""
    return _kept(size_in, size_out) if size_in * size_out <= KEPT else _make(size_in, size_out)


def _make(size_in: int, size_out: int) -> Float32[np.ndarray, "o i"]:
    matrix = np.empty((size_out, size_in), np.float32)
    step = max(1, ROWS_AT_ONCE // size_in)
    for start in range(0, size_out, step):
        rows = slice(start, start + step)
        matrix[rows] = resize_matrix(size_in, size_out, rows=rows)
    return matrix


_kept = functools.lru_cache(maxsize=16)(_make)


def resize(
    image: UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"],
    height: int = SIDE,
    width: int = SIDE,
) -> Float32[np.ndarray, "_ _ 3"]:
    """float32 [height width 3] in 0..255, by antialiased bicubic, clipped and not rounded.

    What `jax.image.resize(..., "cubic", antialias=True)` gives, as in the degradation (eq. 1); a
    side that stays is left as it is.  Large images pass in parts, so that they take little memory
    beside their own.
    """
    tall, wide = image.shape[:2]
    if (tall, wide) == (height, width):
        return np.clip(image, 0, 255, dtype=np.float32)
    rows, columns = _matrix(tall, height), _matrix(wide, width)
    reduced = np.zeros((height, wide * 3), np.float32)
    step = max(1, AT_ONCE // (3 * wide))
    for start in range(0, tall, step):
        part = image[start : start + step].reshape(-1, wide * 3).astype(np.float32)
        reduced += rows[:, start : start + step] @ part
    found = np.einsum("pw,owc->opc", columns, reduced.reshape(height, wide, 3), optimize=True)
    return np.clip(found, 0, 255, out=found)


def size_of(image: UInt8[np.ndarray, "h w 3"]) -> float:
    """The resolution (px) of an aligned crop: its shorter side, at most 112."""
    return float(min(*image.shape[:2], SIDE))
