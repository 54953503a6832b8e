"""Whatever people have of faces -> faces ready for a network: pixels, resolution, what was done.

An input is an aligned crop or a photo: uint8 RGB [h w 3], an image of Pillow, or a file's path.
"""

import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image as Pillow

from crfr.data.photos import Photo, check_size, convert_picture, decode_photo, read_photo, turn
from crfr.errors import InputError
from crfr.use.align import align
from crfr.use.detect import Detector, find_face
from crfr.use.pixels import resize, size_of

Image = np.ndarray | Pillow.Image | str | os.PathLike
Images = Image | Sequence[Image]
WANTED = "give uint8 RGB [h w 3], an image of Pillow or a path"


class Face(NamedTuple):
    name: str
    pixels: Float32[np.ndarray, "112 112 3"]  # RGB, 0..255
    resolution: float  # px
    found: int | None  # faces in the photo; None where nobody looked
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Faces:
    """Embedded faces; `faces[2]`, `faces[:5]` are some of them.

    embedding: unit vectors.  resolution: px, at most 112.  found: faces in each photo, -1 where
    nobody looked.  names, notes: where each comes from, and what was done to it.
    """

    embedding: Float32[np.ndarray, "n d"]
    resolution: Float32[np.ndarray, " n"]
    found: np.ndarray
    names: tuple[str, ...]
    notes: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: SupportsIndex | slice) -> "Faces":
        rows = which
        if not isinstance(rows, slice):
            number = operator.index(rows)  # NumPy's numbers too
            if not -len(self) <= number < len(self):
                raise IndexError(f"face {number} of {len(self)}")
            rows = slice(number, number + 1 or None)
        return Faces(
            self.embedding[rows],
            self.resolution[rows],
            self.found[rows],
            self.names[rows],
            self.notes[rows],
        )


def listed(images: Any) -> list[tuple[str, Image]]:
    """`Images` one by one, each with a name: its path, or "image 0" and so on of arrays.

    InputError for what is none.
    """
    if isinstance(images, str | os.PathLike):
        return [(os.fsdecode(images), images)]
    if isinstance(images, np.ndarray):
        if images.ndim not in (3, 4):
            raise InputError(
                f"images of shape {list(images.shape)}: give uint8 RGB [h w 3] or [n h w 3]; a "
                "greyscale image is repeated over RGB by np.repeat(image[..., None], 3, axis=2)"
            )
        images = list(images) if images.ndim == 4 else [images]
    if isinstance(images, Pillow.Image):
        images = [images]
    if not isinstance(images, Iterable):
        raise InputError(f"images: {WANTED}, or several of them, not {type(images).__name__}")
    found = []
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            found.append((os.fsdecode(image), image))
        else:
            found.append((f"image {number}", image))
    return found


def prepare(
    name: str,
    image: Image,
    *,
    detector: Detector | None = None,
    points: Float[np.ndarray, "5 2"] | None = None,
    resolution: float | None = None,
) -> Face:
    """One face of one input: aligned by `points`, or those that the detector finds, or as it is.

    `resolution` (px) is for those who know better than the size (pixels.py).  InputError for an
    image that cannot be read or is none, and for a photo without a face.
    """
    if not isinstance(image, str | os.PathLike):
        if isinstance(image, Pillow.Image):
            photo = convert_picture(image, name)
        else:
            photo = Photo(_checked(name, image), ())
        return _prepare(name, photo, detector, points, resolution)
    data = read_photo(image)
    with turn(data):
        return _prepare(name, decode_photo(data, name), detector, points, resolution)


def _prepare(
    name: str,
    photo: Photo,
    detector: Detector | None,
    points: Float[np.ndarray, "5 2"] | None,
    resolution: float | None,
) -> Face:
    pixels, notes = photo
    found = None
    if detector is not None:
        points, found = find_face(detector, pixels, name)
        if found > 1:
            notes = (*notes, f"{found} faces, of which the largest is taken")
    if points is not None:
        face, size = align(pixels, points, name)
    else:
        face, size = resize(pixels), size_of(pixels)
        height, width = pixels.shape[:2]
        if height != width:
            notes = (*notes, f"{width} x {height} px are not square, squeezed")
    if resolution is not None:
        size = float(resolution)
        if not 1 <= size <= 112:
            raise InputError(f"{name}: resolution {resolution} px is outside 1..112")
    return Face(name, face, size, found, notes)


def _checked(name: str, image: Any) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        raise InputError(f"{name}: is a {type(image).__name__}; {WANTED}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"{name}: an array of {image.dtype} {list(image.shape)}; give uint8 RGB [h w 3] in "
            "0..255"
        )
    check_size(name, image.shape[1], image.shape[0])
    return image


def join(parts: Sequence[Faces]) -> Faces:
    """Several as one."""
    return Faces(
        np.concatenate([part.embedding for part in parts]),
        np.concatenate([part.resolution for part in parts]),
        np.concatenate([part.found for part in parts]),
        tuple(name for part in parts for name in part.names),
        tuple(notes for part in parts for notes in part.notes),
    )


def pick(faces: Faces, rows: Sequence[int]) -> Faces:
    """Some, in this order."""
    which = np.array(rows, np.int64)
    return Faces(
        faces.embedding[which],
        faces.resolution[which],
        faces.found[which],
        tuple(faces.names[row] for row in rows),
        tuple(faces.notes[row] for row in rows),
    )


def cosine_distance(a: Float32[np.ndarray, " d"], b: Float32[np.ndarray, " d"]) -> float:
    """1 - cos of two unit vectors (paper eq. 2), summed in float64."""
    cosine = float(a.astype(np.float64) @ b.astype(np.float64))
    return min(max(1 - cosine, 0.0), 2.0)  # what rounding adds is no distance
