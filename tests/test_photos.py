"""Photographs of all kinds -> upright RGB, against Pillow and by hand."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from crfr.data import photos
from crfr.data.photos import LARGE, ORIENTATION, convert_picture, decode_photo, read_photo, turn
from crfr.errors import InputError
from crfr.use.faces import prepare


def picture(width=24, height=16):
    """Something smooth, without any symmetry."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, 40 + 3 * x + 5 * y], axis=-1).astype(np.uint8)


def encoded(image, format="PNG", **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_photo(format, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(picture(), format, exif=exif, **({"quality": 95} if format != "PNG" else {}))
    found = decode_photo(data, "x")
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_array_equal(found.pixels, expected)
    turned = f"turned by EXIF orientation {orientation}"
    assert found.notes == ((turned,) if orientation > 1 else ())


def test_a_strange_orientation_turns_nothing():
    exif = Image.Exif()
    exif[ORIENTATION] = 9
    assert decode_photo(encoded(picture(), exif=exif), "x").notes == ()


def test_grey_alpha_palette_and_16_bits():
    grey = picture()[..., 0]
    found = decode_photo(encoded(grey), "x")
    np.testing.assert_array_equal(found.pixels, np.repeat(grey[..., None], 3, axis=2))
    assert found.notes == ()
    deep = grey.astype(np.uint16) * 256 + 255
    found = decode_photo(encoded(deep), "x")
    np.testing.assert_array_equal(found.pixels, np.repeat(grey[..., None], 3, axis=2))
    assert found.notes == ("16 bits a channel, of which the upper 8 are kept",)
    alpha = np.zeros((16, 24, 1), np.uint8)
    alpha[:, 12:] = 255
    seen = np.concatenate([picture(), alpha], axis=2)
    for format in ("PNG", "WEBP"):
        found = decode_photo(encoded(seen, format, **({"lossless": True} if format == "WEBP" else {})), "x")  # fmt: skip  # noqa: E501
        assert not found.pixels[:, :12].any()
        np.testing.assert_array_equal(found.pixels[:, 12:], picture()[:, 12:])
        assert found.notes == ("transparent parts on black",)
    opaque = encoded(np.concatenate([picture(), np.full_like(alpha, 255)], axis=2))
    assert decode_photo(opaque, "x").notes == ()
    palette = Image.fromarray(picture()).convert("P")
    np.testing.assert_array_equal(
        decode_photo(encoded(palette), "x").pixels, np.asarray(palette.convert("RGB"))
    )


def deep_png(channels):
    """A PNG of 16 bits a channel, which Pillow cannot write; (data, its upper 8 bits)."""
    values = np.random.default_rng(1).integers(0, 2**16, (4, 5, channels)).astype(">u2")
    values[..., -1] |= 0 if channels % 2 else 0xFF00  # opaque

    def chunk(kind, body):
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, kind, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    ), (values >> 8).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pngs_of_16_bits_a_channel_are_noted(channels):
    data, upper = deep_png(channels)
    found = decode_photo(data, "x")
    assert found.notes == ("16 bits a channel, of which the upper 8 are kept",)
    colours = upper[..., :3] if channels > 2 else np.repeat(upper[..., :1], 3, axis=2)
    np.testing.assert_array_equal(found.pixels, colours)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_photo_is_decoded_once(format, monkeypatch):
    """Of a PNG without EXIF, Pillow decodes all to look for some behind the pixels."""
    data, loads = encoded(picture(), format), []

    def opened(*arguments, **options):
        found = pillow(*arguments, **options)
        load = found.load
        monkeypatch.setattr(found, "load", lambda: (found in loads or loads.append(found), load())[1])  # fmt: skip  # noqa: E501
        return found

    pillow = Image.open
    monkeypatch.setattr(Image, "open", opened)
    assert decode_photo(data, "x").pixels.shape == (16, 24, 3)
    assert len(loads) == (format != "JPEG")


def test_an_image_of_pillow_is_what_its_file_is():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(picture(), exif=exif)
    found, wanted = convert_picture(Image.open(io.BytesIO(data)), "x"), decode_photo(data, "x")
    np.testing.assert_array_equal(found.pixels, wanted.pixels)
    assert found.notes == wanted.notes
    grey = Image.fromarray(picture()[..., 0])
    np.testing.assert_array_equal(convert_picture(grey, "x").pixels[..., 1], picture()[..., 0])
    with pytest.raises(InputError, match=r"^x: an image of Pillow .*truncated"):
        convert_picture(Image.open(io.BytesIO(encoded(smooth_noise())[:3000])), "x")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_an_opened_image_may_be_given_to_several_threads(format):
    """Pillow decodes it at its first use, and two threads at once would get half of it each."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = np.random.default_rng(0).integers(0, 255, (500, 700, 3), np.uint8)
    data = encoded(image, format, **({"exif": exif} if format != "GIF" else {}))
    wanted = convert_picture(Image.open(io.BytesIO(data)), "x")
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            opened = Image.open(io.BytesIO(data))
            for found in threads.map(lambda _, one=opened: convert_picture(one, "x"), range(8)):
                np.testing.assert_array_equal(found.pixels, wanted.pixels)
                assert found.notes == wanted.notes


def smooth_noise():
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def test_pillow_s_own_warnings_of_large_images_stay_away(monkeypatch):
    """Between its limit and twice that it warns, in lines of Python; warnings are errors here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    for format in ("PNG", "JPEG", "GIF"):
        assert decode_photo(encoded(picture(), format), "x").pixels.shape == (16, 24, 3)


def test_a_hundred_million_pixels_are_taken_and_large_photos_one_at_a_time():
    white = np.full((10_000, 10_000, 1), 255, np.uint8)
    data = simplejpeg.encode_jpeg(white, colorspace="GRAY")
    found = decode_photo(data, "x").pixels
    assert found.shape == (10_000, 10_000, 3)
    assert (found[::999] == 255).all()
    small = encoded(picture())
    with turn(data), turn(small), turn(b"none"):
        assert photos._turn.locked()
    assert not photos._turn.locked()
    assert white.size > LARGE


def test_cmyk():
    data = encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95)
    found = decode_photo(data, "x")
    assert np.abs(found.pixels.astype(int) - picture()).mean() < 6
    assert found.notes == ("CMYK, converted without its profile",)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(format):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    found = decode_photo(data, "x")
    assert found.pixels.tolist() == np.full((6, 8, 3), (255, 0, 0)).tolist()
    assert found.notes == ("the first frame of an animation",)


def test_one_pixel():
    assert decode_photo(encoded(picture(1, 1)), "x").pixels.shape == (1, 1, 3)


def test_ten_thousand_pixels():
    wide = Image.new("L", (10_000, 20), 77)
    found = decode_photo(encoded(wide), "x").pixels
    assert found.shape == (20, 10_000, 3)
    assert (found == 77).all()


def claiming(format, width, height):
    """A small image whose header claims another size."""
    # of WebP an animation, as a still picture has to have its canvas's size
    moving = [Image.new("L", (24, 16))] if format == "WEBP" else []
    options = {"save_all": True, "append_images": moving} if moving else {}
    data = bytearray(encoded(picture()[..., 0], format, **options))
    if format == "PNG":
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif format == "GIF":
        data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    elif format == "BMP":
        data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    elif format == "WEBP":  # VP8X, the size of the canvas, each side less one
        data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("width", "height"),
    [(12_000, 12_000), (13_000, 13_000), (65_000, 65_000), (32_769, 16), (24, 65_000),
     (5_000_000, 16), (24, 5_000_000)],
)  # fmt: skip
@pytest.mark.parametrize("format", ["PNG", "GIF", "JPEG", "WEBP", "BMP"])
def test_bombs_are_refused_before_they_are_decoded(format, width, height):
    """Their headers claim what would take gigabytes, decoded or when it is resized."""
    if format in ("GIF", "JPEG"):  # which have no longer sides
        width, height = min(width, 65_500), min(height, 65_500)
    with pytest.raises(InputError, match=r"^x: .*scale it down first"):
        decode_photo(claiming(format, width, height), "x")


def test_a_line_of_five_million_pixels_is_refused_whole_and_as_an_array():
    """Some 10 kB of PNG, and no more pixels than a small photo has; the matrix that would resize
    it takes 22 GB.
    """
    line = Image.new("L", (5_000_000, 1), 77)
    for refused in (
        lambda: decode_photo(encoded(line), "x"),
        lambda: convert_picture(line, "x"),
        lambda: prepare("x", np.zeros((5_000_000, 1, 3), np.uint8)),
        lambda: prepare("x", np.zeros((1, 32_769, 3), np.uint8)),
    ):
        with pytest.raises(InputError, match=r"^x: .* the 32,768 px a side .*scale it down first"):
            refused()
    assert decode_photo(encoded(Image.new("L", (32_768, 1), 77)), "x").pixels.shape[1] == 32_768


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.9])
def test_truncated_photos_are_errors(format, kept):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encoded(noise, format)
    with pytest.raises(
        InputError, match=r"^x: .* do not decode as .*: convert it, or copy it again"
    ):
        decode_photo(data[: int(len(data) * kept)], "x")


def test_what_is_no_image(tmp_path):
    for data in (b"", b"GIF89a", b"\xff\xd8", b"not an image at all"):
        with pytest.raises(InputError, match=r"^x: .*do not decode"):
            decode_photo(data, "x")
    for name, message in (("absent.jpg", "No such file"), (".", "Is a directory")):
        with pytest.raises(InputError, match=message):
            read_photo(tmp_path / name)
