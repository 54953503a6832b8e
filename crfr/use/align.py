"""Five-point alignment: photo and landmarks -> the face at 112 px and its resolution in the photo.

The similarity transform that takes the landmarks nearest to InsightFace's template (least squares,
S. Umeyama 1991) says where each pixel of the aligned face lies in the photo.  InsightFace samples
the photo there by OpenCV's bilinear warp, which looks at four pixels whatever the scale: of a face
of 1,000 px it skips most, and the result is aliased.  Here the photo is sampled as finely as it is
(by Keys' bicubic kernel, a = -0.5), upright and with a margin, and that is reduced to 112 px by the
antialiased bicubic of the degradation: a face that stands upright becomes what resizing its square
gives.  A face smaller than 112 px is enlarged by the kernel alone, as the degradation enlarges.
Outside the photo is black.

The resolution is the side of the 112 px square in the photo, 112 / scale, at most 112: what a
sensor had to draw the face with.
"""

import math

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from crfr.data.alignment import TEMPLATE
from crfr.errors import InputError
from crfr.use.pixels import resize
from crfr.views.degrade import SIDE, cubic

MARGIN = 4  # px of the template around the square, which the kernels reach into
FINEST = 4  # samples a template px and axis; the photo around a larger face is reduced to it first


def similarity(
    points: Float[np.ndarray, "5 2"], where: str = "landmarks"
) -> Float64[np.ndarray, "2 3"]:
    """The matrix [2 3] of scale, rotation and shift that takes points (x, y) of a photo nearest to
    the template: `matrix @ (x, y, 1)`, without mirroring.

    Points in px, pixel centres at whole numbers, in the template's order: the eye at the left of
    the image, the one at the right, the tip of the nose, the corners of the mouth, left and right.
    InputError where they are not finite, or all at one place.

    Source: S. Umeyama, Least-squares estimation of transformation parameters between two point
    patterns, IEEE TPAMI 13(4), 1991, eqs. 38-43.
    """
    points = np.asarray(points, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise InputError(f"{where}: five finite points (x, y) are needed, not {points.tolist()}")
    centre, aim = points.mean(0), TEMPLATE.mean(0)
    from_centre, from_aim = points - centre, TEMPLATE - aim
    spread = float((from_centre**2).sum())
    if spread < 1e-6:
        raise InputError(f"{where}: all five points lie at {points[0].tolist()}; give a face's")
    left, values, right = np.linalg.svd(from_aim.T @ from_centre)
    sign = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    rotation = (left * sign) @ right
    scale = float((values * sign).sum()) / spread
    if scale <= 0:
        raise InputError(f"{where}: {points.tolist()} is no face's arrangement; check their order")
    turned = scale * rotation
    return np.concatenate([turned, (aim - turned @ centre)[:, None]], axis=1)


def scale_of(matrix: Float64[np.ndarray, "2 3"]) -> float:
    """Template px a photo px."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def align(
    photo: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "5 2"], where: str = "landmarks"
) -> tuple[Float32[np.ndarray, "112 112 3"], float]:
    """(the aligned face in 0..255, its resolution in px) by landmarks as of `similarity`."""
    matrix = similarity(points, where)
    scale = scale_of(matrix)
    shares = ((np.asarray(points) >= 0) & (np.asarray(points) <= 1)).all()
    if shares or SIDE / scale < 1:
        raise InputError(
            f"{where}: landmarks {np.asarray(points).tolist()} are those of a face under a pixel; "
            "are they in px? shares of the photo's size are to be multiplied by it"
        )
    edges = np.array([-0.5 - MARGIN, SIDE - 0.5 + MARGIN])
    corners = _back(matrix, np.stack(np.meshgrid(edges, edges), axis=-1).reshape(-1, 2))
    low = np.floor(np.maximum(corners.min(0) - 2, 0)).astype(int)  # the kernel reaches 2 px far
    high = np.ceil(np.minimum(corners.max(0) + 3, photo.shape[1::-1])).astype(int)
    if (low >= high).any():
        raise InputError(f"{where}: the face lies outside the photo; check the landmarks")
    part = photo[low[1] : high[1], low[0] : high[0]]
    size, share, fine = np.array(part.shape[1::-1]), np.ones(2), max(1, math.ceil(1 / scale - 1e-9))
    if fine > FINEST:
        fine = FINEST
        reduced = np.maximum(1, np.rint(size * scale * FINEST)).astype(int)
        share = reduced / size
        pixels = resize(part, height=int(reduced[1]), width=int(reduced[0]))
    else:
        pixels = part.astype(np.float32)
    line = (np.arange((SIDE + 2 * MARGIN) * fine) + 0.5) / fine - 0.5 - MARGIN
    places = _back(matrix, np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)) - low
    places = (places + 0.5) * share - 0.5  # pixel centres are at whole numbers, edges at halves
    upright = _sample(pixels, places).reshape(len(line), len(line), 3)
    face = resize(upright, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return np.ascontiguousarray(face), min(SIDE / scale, float(SIDE))


def _back(matrix: Float64[np.ndarray, "2 3"], places: np.ndarray) -> Float64[np.ndarray, "m 2"]:
    """Places (x, y) of the template in the photo."""
    return (places - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def _sample(
    image: Float32[np.ndarray, "h w 3"], places: Float64[np.ndarray, "m 2"]
) -> Float32[np.ndarray, "m 3"]:
    """The image at places (x, y), by 4 x 4 px each; black outside."""
    height, width = image.shape[:2]
    first = np.floor(places).astype(int) - 1
    taps = first[:, None] + np.arange(4)[:, None]  # [m 4 (x y)]
    weight = cubic(places[:, None] - taps)
    inside = (taps >= 0) & (taps < (width, height))
    weight = np.where(inside, weight, 0.0).astype(np.float32)
    taps = np.where(inside, taps, 0)
    found = np.zeros((len(places), 3), np.float32)
    for row in range(4):
        for column in range(4):
            values = image[taps[:, row, 1], taps[:, column, 0]]
            found += values * (weight[:, row, 1] * weight[:, column, 0])[:, None]
    return found
