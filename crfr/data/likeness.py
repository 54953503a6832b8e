"""How alike two images of aligned faces are: coarsely, as a dot product; and closely.

`thumbnails` cost a matrix product for many pairs, `correlation` some milliseconds a pair.
"""

import functools

import numpy as np
from jaxtyping import Float32, UInt8

from crfr.data.alignment import SIZE

HINT = 0.75  # correlation at even shifts, below which odd ones and other scales are not tried

_CELL, _MARGIN, _LOCAL = 8, 8, 2  # px, px, cells: a thumbnail's cell, border, local mean
_CELLS = (SIZE - 2 * _MARGIN) // _CELL
_SCALES = (1.0, 0.97, 1.03)
_REACH = 4  # px, the largest shift tried
_EDGE = 12  # px left out all round when full images are compared
_BLOCK = 1024  # images turned into float32 at once: 40 MB
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def thumbnails(images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n k"]:
    """Grey 12 x 12 of the inner 96 px, less the mean of 5 x 5 cells around, of norm 1.

    A flat image has norm 0.  The border is left out: what an alignment fills it with says nothing.
    """
    inner = slice(_MARGIN, SIZE - _MARGIN)
    shape = (-1, _CELLS, _CELL, _CELLS, _CELL)
    # In parts, as float32 needs four times the bytes.
    parts = [
        (images[at : at + _BLOCK, inner, inner] @ _GREY).reshape(shape).mean((2, 4))
        for at in range(0, len(images), _BLOCK)
    ]
    grey = np.concatenate([np.empty((0, _CELLS, _CELLS), np.float32), *parts])
    flat = (grey - _box(grey, _LOCAL)).reshape(len(grey), _CELLS**2)
    return _unit(flat - flat.mean(1, keepdims=True, dtype=np.float32), 1.0)


def whitening(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [k], matrix [k k]) that take out what all faces share; half of a whitening.

    Zeros and the identity for images too few to tell: they are compared as they are.
    """
    if len(thumbs) < 2 * _CELLS**2:
        return np.zeros(_CELLS**2, np.float32), np.eye(_CELLS**2, dtype=np.float32)
    values, vectors = np.linalg.eigh(np.cov(thumbs.T))
    values = np.maximum(values, 0.01 * values.max())
    return thumbs.mean(0), (vectors * values**-0.25).astype(np.float32)


def project(thumbs: np.ndarray, mean: np.ndarray, whiten: np.ndarray) -> np.ndarray:
    """Thumbnails [n k], whitened and of norm 1, so that a dot product says how alike two are."""
    there = np.any(thumbs, axis=1, keepdims=True)  # a flat image resembles nothing
    return _unit((thumbs - mean) @ whiten, 1e-6) * there


def _unit(rows: np.ndarray, least: float) -> np.ndarray:
    """Rows of norm 1; of norm 0 where it was less than `least`."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.where(norm < least, 0, rows / np.maximum(norm, least)).astype(np.float32)


def correlation(
    left: UInt8[np.ndarray, "p h w c"], right: UInt8[np.ndarray, "p h w c"]
) -> Float32[np.ndarray, " p"]:
    """Correlation of the inner 88 px in [-1, 1], the best over scales and shifts.

    Grey levels between wavelengths of some 3 and 17 px count: coarser is what the lighting and
    all faces share, finer is what a JPEG loses.
    """
    target, grey = _window(_band(right @ _GREY), 0, 0), left @ _GREY
    best = np.full(len(left), -1, np.float32)
    hopeful = np.arange(len(left))
    for scale in _SCALES:
        stretch = _stretch(scale)
        ours = _band(stretch @ grey[hopeful] @ stretch.T)
        near, shifts = _even_shifts(ours, target[hopeful])
        best[hopeful] = np.maximum(best[hopeful], near)
        # Odd shifts too, around the best even one, for the few pairs that come close.
        for at in np.flatnonzero(near > HINT):
            pair, (y, x) = hopeful[at], shifts[at].tolist()
            for dy in (y - 1, y, y + 1):
                for dx in (x - 1, x, x + 1):
                    window = _window(ours[at : at + 1], dy, dx)
                    best[pair] = max(best[pair], float(window[0] @ target[pair]))
        # The first scale, 1, is within 3 % of what would fit: it has to come close already.
        hopeful = hopeful[best[hopeful] > HINT]
        if not hopeful.size:
            break
    return np.minimum(best, 1)


def _even_shifts(ours: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(highest correlation [p], its shift [p 2] in px) over the shifts by an even number of px."""
    best = np.full(len(ours), -1, np.float32)
    shifts = np.zeros((len(ours), 2), int)
    for dy in range(-_REACH, _REACH + 1, 2):
        for dx in range(-_REACH, _REACH + 1, 2):
            flat = _crop(ours, dy, dx)
            # The target's mean is 0, so that the window's need not be taken out.
            squares = np.einsum("pk,pk->p", flat, flat) - flat.mean(1) ** 2 * flat.shape[1]
            value = np.einsum("pk,pk->p", flat, target) / np.sqrt(np.maximum(squares, 1))
            better = value > best
            best[better], shifts[better] = value[better], (dy, dx)
    return best, shifts


def _window(bands: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """The crop with mean 0 and norm 1."""
    flat = _crop(bands, dy, dx)
    return _unit(flat - flat.mean(1, keepdims=True), 1.0)


def _crop(bands: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """[p 112 112] -> [p 44 * 44], every other pixel."""
    rows, columns = (slice(_EDGE + shift, SIZE - _EDGE + shift, 2) for shift in (dy, dx))
    return bands[:, rows, columns].reshape(len(bands), -1)


def _band(grey: np.ndarray) -> np.ndarray:
    smooth = _box(grey, 1)
    return smooth - _box(smooth, 8)


def _box(images: np.ndarray, radius: int) -> np.ndarray:
    """Means over (2 radius + 1)^2 of [n h w], the edge repeated."""
    width = 2 * radius + 1
    around = [(0, 0), (radius + 1, radius), (radius + 1, radius)]
    sums = np.pad(images, around, mode="edge").cumsum(1, dtype=np.float32)
    sums = (sums[:, width:] - sums[:, :-width]).cumsum(2, dtype=np.float32)
    return (sums[:, :, width:] - sums[:, :, :-width]) / np.float32(width**2)


@functools.cache
def _stretch(scale: float) -> np.ndarray:
    """[112 112]: linear interpolation that enlarges an axis about its centre."""
    centre = (SIZE - 1) / 2
    at = np.clip((np.arange(SIZE) - centre) / scale + centre, 0, SIZE - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(SIZE))).astype(np.float32)
