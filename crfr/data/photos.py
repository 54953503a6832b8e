"""Photographs as people have them -> upright RGB, and what had to be done to them.

Beyond the images of data sets (images.py): turned by EXIF, CMYK, 16 bits a channel, transparent,
animated.  Nothing is guessed in silence: every conversion is a note.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from crfr.data.images import UNDECODABLE
from crfr.errors import InputError, one_line

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
ENDINGS = (b".jpg", b".jpeg", b".png", b".bmp", b".webp", b".gif")
BYTES_LIMIT = 2**28  # of a file
PIXEL_LIMIT = 2**27  # decoded, a JPEG takes 6 bytes a pixel on the way, others up to 34
SIDE_LIMIT = 2**15  # px; resizing takes 3 kB a px of the longer side: 100 MB
LARGE = 2**25  # pixels; of larger photos one is in memory at a time
PNG = b"\x89PNG\r\n\x1a\n"
KNOWN = "a JPEG, PNG, BMP, WebP or GIF image"
AGAIN = "it is damaged or something else: convert it, or copy it again"
ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4 A

_turn = threading.Lock()  # of large photos (`turn`)
_opening = threading.Lock()  # while a warning is switched off, which is so for all threads
_lent = threading.Lock()  # of callers' images (`convert_picture`)


class Photo(NamedTuple):
    pixels: UInt8[np.ndarray, "h w 3"]  # RGB, upright
    notes: tuple[str, ...]  # what was done to it beyond decoding


def read_photo(path: str | os.PathLike) -> bytes:
    """A file, encoded; InputError for one that cannot be read, or is over 256 MB."""
    where = os.fsdecode(path)
    try:
        with open(path, "rb") as file:
            data = file.read(BYTES_LIMIT + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{where}: {reason}; name an image file that can be read") from error
    if len(data) > BYTES_LIMIT:
        raise InputError(f"{where}: more than {BYTES_LIMIT >> 20} MB; give a smaller image")
    return data


def turn(data: bytes) -> AbstractContextManager:
    """What to hold while a photo is decoded and used: a lock for one of more than 2^25 pixels, so
    that threads do not fill the memory with several; nothing for a smaller one.
    """
    try:
        width, height = _open(data).size
    except UNDECODABLE:
        return contextlib.nullcontext()
    return _turn if width * height > LARGE else contextlib.nullcontext()


def decode_photo(data: bytes, where: str) -> Photo:
    """An encoded photo (JPEG, PNG, BMP, WebP, GIF), as a person would see it.

    Turned as its EXIF says; greyscale is repeated over RGB; of 16 bits a channel the upper 8 are
    kept; transparent parts are on black; of an animation the first frame; CMYK is converted without
    its profile.  InputError for what is none of these formats, is damaged or cut short, or is too
    large (`check_size`), which is known before it is decoded.
    """
    with _named(where, f"{len(data):,} bytes that do not decode as {KNOWN}", AGAIN):
        if data[:2] == b"\xff\xd8":
            height, width, colours = simplejpeg.decode_jpeg_header(data)[:3]
            check_size(where, int(width), int(height))
            if colours not in ("CMYK", "YCCK"):
                pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
                return _upright(pixels, lambda: _open(data), [])
        # Pillow gives RGB and grey with alpha of 16 bits as 8; the header says it
        deep = data[:8] == PNG and data[24:25] == b"\x10"
        return _convert(_open(data), where, deep)


def convert_picture(picture: Image.Image, where: str) -> Photo:
    """An image of Pillow as `decode_photo` of its file would be; InputError likewise.

    One at a time: Pillow reads the pixels and the EXIF of an opened file at their first use, and
    the same image may be in several threads.
    """
    with _lent, _named(where, "an image of Pillow that does not decode", "open it again"):
        return _convert(picture, where, False)


@contextlib.contextmanager
def _named(where: str, what: str, remedy: str) -> Iterator[None]:
    """What decoders raise as InputError."""
    try:
        yield
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{where}: {error}; scale it down first") from error
    except UNDECODABLE as error:
        raise InputError(f"{where}: {what} ({one_line(error)}); {remedy}") from error


def check_size(where: str, width: int, height: int) -> None:
    """InputError for an image of more than 2^27 pixels, or with a side of more than 2^15."""
    if width * height > PIXEL_LIMIT or max(width, height) > SIDE_LIMIT:
        raise InputError(
            f"{where}: {width:,} x {height:,} px, more than the {PIXEL_LIMIT:,} pixels or the "
            f"{SIDE_LIMIT:,} px a side that are taken; scale it down first"
        )


def _open(data: bytes) -> Image.Image:
    try:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size tells
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:  # whose message is the stream's address
        raise ValueError("none of these formats") from error


def _convert(picture: Image.Image, where: str, deep: bool) -> Photo:
    check_size(where, *picture.size)
    given, notes = picture, []
    if getattr(picture, "is_animated", False):
        notes.append("the first frame of an animation")
    if deep or picture.mode.startswith("I"):
        notes.append("16 bits a channel, of which the upper 8 are kept")
    if picture.mode.startswith("I"):  # greyscale PNG
        grey = np.clip(np.asarray(picture, np.int32) >> 8, 0, 255).astype(np.uint8)
        return _upright(np.repeat(grey[..., None], 3, axis=2), lambda: given, notes)
    if picture.mode == "CMYK":
        notes.append("CMYK, converted without its profile")
    elif picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise ValueError(f"mode {picture.mode}")
    if picture.mode in ("LA", "RGBA") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        if np.asarray(seen)[..., 3].min() < 255:
            notes.append("transparent parts on black")
        black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, seen)
    return _upright(np.array(picture.convert("RGB")), lambda: given, notes)


def _upright(
    pixels: UInt8[np.ndarray, "h w 3"], picture: Callable[[], Image.Image], notes: list[str]
) -> Photo:
    """Turned and mirrored by the EXIF orientation 1..8.

    `picture` gives the image as Pillow opened it: the very one that was decoded, where Pillow did
    that, as it decodes a whole PNG in search of EXIF.
    """
    try:
        orientation = picture().getexif().get(ORIENTATION, 1)
    except UNDECODABLE:
        return Photo(pixels, (*notes, "EXIF unreadable, not turned"))
    if orientation not in range(2, 9):  # absent, upright, or no orientation at all
        return Photo(pixels, tuple(notes))
    if orientation >= 5:  # rows and columns change places
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return Photo(
        np.ascontiguousarray(pixels), (*notes, f"turned by EXIF orientation {orientation}")
    )
