"""The sheet a procedural face is painted on, and the means of painting on it.

Everything is placed in face coordinates: px of an aligned 112 x 112 crop, x to the right and y down
from the middle of the face, so that an unmoved face has its eyes at (-18, -20) and (18, -20), the
tip of its nose at (0, 0) and the corners of its mouth at (-14.5, 20) and (14.5, 20).  A shape is a
signed distance (px, negative inside) and its coverage a ramp of it.  Each feature is painted in
its own patch of the sheet, which is most of what makes a face quick to paint.

The sheet is float32 [6 h w]: red, green, blue (0..255), relief (px towards the viewer), x, y.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

SIDE = 112  # px, the side of an aligned face
_CENTRE = 56.0, 72.0  # column and row of the tip of the nose
_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float32)

Numbers: TypeAlias = dict[str, Any]
Plane: TypeAlias = Float32[np.ndarray, "h w"]
Sheet: TypeAlias = Float32[np.ndarray, "6 h w"]


def cover(distance: Plane, edge: float = 1.4) -> Plane:
    """Coverage in 0..1 of a shape from its signed distance: a ramp `edge` px wide."""
    ramp = distance * np.float32(-1 / edge)  # in place from here: covers are much of a face's time
    ramp += 0.5
    np.maximum(ramp, 0, out=ramp)
    np.minimum(ramp, 1, out=ramp)
    return ramp


def blend(sheet: Sheet, opacity: Plane, colour: np.ndarray) -> None:
    """Paints `colour` [3] or [3 h w] over the sheet with `opacity` (0..1)."""
    pixels = sheet[:3]
    colour = np.asarray(colour, np.float32).reshape(3, *(np.shape(colour)[1:] or (1, 1)))
    change = colour - pixels
    change *= opacity
    pixels += change


def _depth(x: Any, y: Any) -> Any:
    """How near the viewer a point of the head is: 1 at the nose, 0 on the outline, less beyond."""
    x, y = x * (1 / 46), y * (1 / 62) + 0.1
    return 1 - x * x - y * y


def blank(shot: Numbers) -> Sheet:
    """A sheet with its coordinates: shifted, rolled, scaled, and turned by yaw and pitch.

    A turned head moves its near points further than its outline, so yaw and pitch (px at the nose)
    are a shift in proportion to the depth.
    """
    sheet = np.zeros((6, SIDE, SIDE), np.float32)
    cos, sin = math.cos(shot["roll"]) / shot["scale"], math.sin(shot["roll"]) / shot["scale"]
    column = _COLUMNS - np.float32(_CENTRE[0] + shot["shift"][0])
    row = _ROWS - np.float32(_CENTRE[1] + shot["shift"][1])
    x = np.float32(cos) * column + np.float32(sin) * row
    y = np.float32(cos) * row - np.float32(sin) * column
    depth = np.maximum(_depth(x, y), 0)
    sheet[4] = x - np.float32(shot["yaw"]) * depth
    sheet[5] = y - np.float32(shot["pitch"]) * depth
    return sheet


def cut(
    sheet: Sheet, shot: Numbers, x: float, y: float, width: float, height: float
) -> tuple[Float32[np.ndarray, "6 a b"], Float32[np.ndarray, "a b"], Float32[np.ndarray, "a b"]]:
    """The patch of the sheet within `width` and `height` px of (x, y), and coordinates about it.

    A view, placed where the pose takes (x, y); empty where that is off the sheet.
    """
    depth = max(_depth(x, y), 0)
    across, down = x + shot["yaw"] * depth, y + shot["pitch"] * depth
    cos, sin = math.cos(shot["roll"]) * shot["scale"], math.sin(shot["roll"]) * shot["scale"]
    column = _CENTRE[0] + shot["shift"][0] + cos * across - sin * down
    row = _CENTRE[1] + shot["shift"][1] + cos * down + sin * across
    # Roll tilts the patch and the turn of the head bends it: a little margin holds both.
    wide, high = 1.06 * width + 0.1 * height + 1, 1.06 * height + 0.1 * width + 1
    top, left = max(0, int(row - high)), max(0, int(column - wide))
    patch = sheet[:, top : max(top, int(row + high) + 1), left : max(left, int(column + wide) + 1)]
    return patch, patch[4] - np.float32(x), patch[5] - np.float32(y)


def hill(x: Plane, y: Plane, width: float, height: float) -> Plane:
    x, y = x * np.float32(1 / width), y * np.float32(1 / height)
    return np.exp(-(x * x) - y * y)


def bump(
    sheet: Sheet, shot: Numbers, x: float, y: float, width: float, height: float, px: float
) -> None:
    """Raises the relief by a Gaussian of `px` at (x, y)."""
    patch, u, v = cut(sheet, shot, x, y, 2.4 * width, 2.4 * height)
    patch[3] += np.float32(px) * hill(u, v, width, height)


def stain(
    sheet: Sheet,
    shot: Numbers,
    x: float,
    y: float,
    width: float,
    height: float,
    colour: np.ndarray,
    opacity: float,
) -> None:
    """Colours the sheet with a Gaussian at (x, y)."""
    patch, u, v = cut(sheet, shot, x, y, 2.2 * width, 2.2 * height)
    blend(patch, np.float32(opacity) * hill(u, v, width, height), colour)
