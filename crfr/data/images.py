"""Encoded images -> arrays: JPEG, PNG, BMP and WebP; damage is an error that names the image."""

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from crfr.data.recordio import DAMAGED
from crfr.errors import InputError, one_line

SIZE = 112  # px, the side of every face
# An image's header may claim 65,500 px a side, 13 GB once decoded.
PIXEL_LIMIT = 2**26
# Formats besides JPEG; the fewer of Pillow's parsers damaged data can reach, the better.
FORMATS = ("PNG", "BMP", "WEBP")
# What the parsers raise on damaged data, found by flipping bits, and their kin.
UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode(image: bytes | np.ndarray, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """Encoded image (JPEG, PNG, BMP, WebP) or array -> RGB; greyscale is repeated over RGB.

    A damaged JPEG is an error even where a decoder could fill the damage with grey.  `where`
    names the image in the InputError.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"{where}: an array of {image.dtype} {list(image.shape)} is not an image; "
                "give uint8 [h w 3]"
            )
        return image
    try:
        if image[:2] == b"\xff\xd8":
            height, width = map(int, simplejpeg.decode_jpeg_header(image)[:2])
            if height * width <= PIXEL_LIMIT:
                return simplejpeg.decode_jpeg(image, colorspace="RGB")
        else:
            stream = io.BytesIO(image)
            try:
                picture = Image.open(stream, formats=FORMATS)
            except UnidentifiedImageError as error:  # whose message is the stream's address
                raise ValueError("none of these formats") from error
            width, height = picture.size
            if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                raise ValueError(f"mode {picture.mode}, not 8 bits a channel")
            if height * width <= PIXEL_LIMIT:
                # A palette with transparency has to pass through RGBA, or Pillow warns.
                picture = picture.convert("RGBA") if picture.mode == "P" else picture
                return np.array(picture.convert("RGB"))
    except UNDECODABLE as error:
        raise InputError(
            f"{where}: {len(image)} bytes that do not decode as a JPEG, PNG, BMP or WebP image "
            f"({one_line(error)}); {DAMAGED}"
        ) from error
    raise InputError(f"{where}: {width}x{height} px is too large; {DAMAGED}")


def decode_sized(image: bytes | np.ndarray, where: str) -> UInt8[np.ndarray, "112 112 3"]:
    """As `decode`; InputError for an image of another size than 112 px too."""
    decoded = decode(image, where)
    if decoded.shape != (SIZE, SIZE, 3):
        height, width = decoded.shape[:2]
        raise InputError(
            f"{where}: the image is {width}x{height} px (width x height), not {SIZE}x{SIZE}; "
            f"align the faces and crop them to {SIZE} px before packing"
        )
    return decoded


def decode_into(image: bytes | np.ndarray, target: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Decode a JPEG of the target's size, or copy an array of it, into `target`.

    False where it is none of these, or is damaged: `decode` then says what it is.  The decoder
    reads the header once and writes each pixel once; it refuses images larger than the target.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.shape != target.shape:
            return False
        target[:] = image
        return True
    if image[:2] != b"\xff\xd8":
        return False
    try:
        return simplejpeg.decode_jpeg(image, "RGB", buffer=target).shape == target.shape
    except UNDECODABLE:
        return False


def decode_faces(
    title: str,
    count: int,
    read: Callable[[int], bytes | np.ndarray],
    where: Callable[[int], str],
    crop: int | None = None,
) -> UInt8[np.ndarray, "n 112 112 3"]:
    """Images 0..count-1 as `read` gives them, decoded in threads; `where` names them in errors."""
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)

    def fill(index: int) -> None:
        image = decode(read(index), where(index))
        image = image if crop is None else crop_centre(image, crop, where(index))
        if image.shape != images.shape[1:]:
            height, width = image.shape[:2]
            raise InputError(
                f"{where(index)}: the image is {width}x{height} px (width x height), not "
                f"{SIZE}x{SIZE}; align the faces and crop them to {SIZE} px first"
            )
        images[index] = image

    with ThreadPoolExecutor() as threads:  # libjpeg works without the interpreter's lock
        filled = threads.map(fill, range(count))
        for _ in tqdm(filled, title, count, unit=" images", disable=None):
            pass
    return images


def crop_centre(
    image: UInt8[np.ndarray, "h w 3"], side: int, where: str
) -> UInt8[np.ndarray, "112 112 3"]:
    """The square of `side` px at the centre, resized to 112 px by antialiased bicubic."""
    height, width = image.shape[:2]
    if side > min(height, width):
        raise InputError(f"{where}: crop={side} is larger than the image, {width}x{height} px")
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
