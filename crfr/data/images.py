"""Encoded images -> arrays: JPEG, PNG, BMP and WebP; damage is an error that names the image."""

import io
import struct
import zlib

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from crfr.data.recordio import DAMAGED
from crfr.errors import InputError

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
            f"({' '.join(str(error).split())}); {DAMAGED}"
        ) from error
    raise InputError(f"{where}: {width}x{height} px is too large; {DAMAGED}")
