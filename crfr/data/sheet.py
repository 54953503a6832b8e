"""Pictures of a data set: rows of images with captions, and a mean face with marked points."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

COLUMNS, SIDE, CAPTION, TITLE = 16, 112, 12, 20  # images in a row; px


@dataclass(frozen=True)
class Strip:
    title: str
    images: list[np.ndarray]  # uint8 [h w 3] of any size
    captions: list[str]


def contact_sheet(strips: list[Strip]) -> Image.Image:
    """The strips one below the other, each wrapped after COLUMNS images."""
    heights = [TITLE + -(-len(s.images) // COLUMNS) * (SIDE + CAPTION) for s in strips]
    sheet = Image.new("RGB", (COLUMNS * SIDE, sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for strip, height in zip(strips, heights, strict=True):
        draw.text((4, top + 5), _plain(strip.title), fill="black")
        for number, (pixels, caption) in enumerate(zip(strip.images, strip.captions, strict=True)):
            row, column = divmod(number, COLUMNS)
            x, y = column * SIDE, top + TITLE + row * (SIDE + CAPTION)
            image = Image.fromarray(pixels)
            image.thumbnail((SIDE, SIDE))
            sheet.paste(image, (x, y))
            draw.text((x + 2, y + SIDE), _plain(caption)[:17], fill="black")
        top += height
    return sheet


def face_pictures(mean: np.ndarray, points: np.ndarray) -> tuple[Image.Image, Image.Image]:
    """[112 112 3] grey levels -> (the picture, the same four times as large with (x, y) marked)."""
    picture = Image.fromarray(np.clip(np.rint(mean), 0, 255).astype(np.uint8))
    marked = picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(marked)
    for x, y in (points + 0.5) * 4:
        draw.line([(x - 10, y), (x + 10, y)], fill=(0, 255, 0), width=2)
        draw.line([(x, y - 10), (x, y + 10)], fill=(0, 255, 0), width=2)
    return picture, marked


def _plain(text: str) -> str:
    # Pillow's built-in font may have no more than Latin letters.
    return text.encode("ascii", "replace").decode()
