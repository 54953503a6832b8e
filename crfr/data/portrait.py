"""Paints one procedural face: the numbers of a person and of a shot (people.py) become pixels."""

import numpy as np
from jaxtyping import Float32, UInt8

from crfr.data.draw import (
    Numbers,
    Plane,
    Sheet,
    blank,
    blend,
    bump,
    cover,
    cut,
    hill,
    stain,
)
from crfr.data.features import paint_brow, paint_eye, paint_mouth, paint_nose


def _hair(sheet: Sheet, person: Numbers) -> tuple[Plane, Plane, Float32[np.ndarray, "3 h w"]]:
    """(silhouette, before, colour [3 h w]) of the hair; the second is its part before the face."""
    x, y = sheet[4], sheet[5]
    style = person["hair"]
    outer, tall = person["width"] + style["side"], 48 + style["top"]
    above = np.minimum(y + 22, 0) * np.float32(1 / tall)
    across = x * np.float32(1 / outer)
    across, above = across * across, above * above
    outline = np.sqrt(across + above - np.float32(0.3) * np.minimum(across * above, 1))
    outline = (outline - 1) * np.float32(outer)
    if style["curl"]:
        bend = np.float32(style["tight"])
        strand = np.sin(x * bend + person["phase"] + 1.2 * np.sin(y * bend * 0.7))
        strand *= np.sin(y * bend - person["phase"] + 1.2 * np.sin(x * bend * 0.6)) * 1.5
        outline += np.float32(style["curl"]) * strand
    else:
        strand = (x - np.float32(style["part"])) / (y + 105) * np.float32(style["fine"])
        wave = np.sin(y * 0.11 + person["phase"]) * np.float32(style["wave"])
        strand = np.sin(strand + wave) + np.sin(strand * 2.3) * np.sin(strand * 0.41 + wave)
    outline = np.maximum(outline, y - np.float32(style["length"]) - 1.5 * strand)
    # The face looks out of the hair through an opening: a rounded arch below the hairline.
    lift = y + 14 - np.float32(style["slant"]) * x
    lift -= np.float32(style["peak"]) * np.cos(x * 0.16)
    arch = np.minimum(lift, 0) * np.float32(1 / (-14 - style["line"]))
    across = x * np.float32(1 / style["open"])
    opening = across * across + arch * arch - np.float32(style["square"]) * (across * arch) ** 2
    opening = (opening - 1) * np.float32(style["open"] / 2) + 0.9 * strand
    silhouette = cover(outline, 2.5) * np.float32(style["cover"])
    before = silhouette * (1 - cover(opening, style["edge"]))
    tone = 0.09 * strand
    tone += 0.9
    tone[:48] += 0.3 * hill(x[:48] + person["width"] * 0.2, y[:48] + 52, 30, 9)  # the sheen on top
    return silhouette, before, person["hair_colour"].astype(np.float32)[:, None, None] * tone


def _head(sheet: Sheet, person: Numbers) -> Plane:
    """Signed distance to the outline of the head: round above, a rounder or squarer jaw below."""
    x = sheet[4] * np.float32(1 / person["width"])
    y = sheet[5] + 14
    below = np.maximum(y, 0) * np.float32(1 / (person["chin"] + 14))
    above = np.minimum(y, 0) * np.float32(1 / 54)
    x, below, above = x * x, below * below, above * above
    # The product pushes the corners out (jaw > 0) or draws them in; unbounded it folds far out.
    ring = x + below + above - np.float32(person["jaw"]) * np.minimum(x * below, 1)
    ring -= np.float32(0.4) * np.minimum(x * above, 1)
    return (ring - 1) * np.float32(person["width"] / 2)


def _background(sheet: Sheet, shot: Numbers) -> None:
    """Two colours across the picture, and a soft blob of a third."""
    x, y = sheet[4], sheet[5]
    ramp = cover(x * np.float32(shot["ramp"][0]) + y * np.float32(shot["ramp"][1]) + 8, 120)
    sheet[:3] = shot["background"][0][:, None, None]
    blend(sheet, ramp, shot["background"][1])
    blob = hill(x - np.float32(shot["blob"][0]), y - np.float32(shot["blob"][1]), 22, 30)
    blend(sheet, 0.7 * blob, shot["background"][2])


def _skin(sheet: Sheet, shot: Numbers, person: Numbers, head: Plane) -> None:
    """Neck, ears and head, and what lies on the skin: blush, sockets, furrows, freckles, moles."""
    skin, wide = person["skin"], person["width"]
    below = sheet[:, 80:]
    neck = np.maximum(np.abs(below[4]) - np.float32(person["neck"]), 18 - below[5])
    blend(below, cover(neck, 3), skin * 0.62)
    for side in (-1, 1):
        ear = person["ear"]
        ear_x = side * (wide + ear["out"] - 3)
        patch, u, v = cut(sheet, shot, ear_x, -10, ear["width"], ear["height"])
        ring = np.sqrt((u / ear["width"]) ** 2 + (v / ear["height"]) ** 2)
        blend(patch, cover((ring - 1) * 6), skin * 0.88)
        blend(patch, 0.5 * cover((ring - 0.55) * 6, 3), skin * 0.62)
    blend(sheet, cover(head, 1.6), skin)
    for side in (-1, 1):
        eye = person["eye"]
        stain(sheet, shot, side * 23, 6, 11, 9, person["blush"], 0.35)
        stain(sheet, shot, side * eye["x"], eye["y"] - 1, 12, 8, skin * 0.72, eye["deep"])
        # The furrow from the wing of the nose to the corner of the mouth.
        patch, u, v = cut(sheet, shot, side * 15.5, 8, 8, 11)
        line = np.maximum(np.abs(side * u - 0.5 * v + 0.012 * v * v) - 0.3, np.abs(v) - 8)
        blend(patch, np.float32(person["furrow"]) * cover(line, 4), skin * 0.6)
    for number in range(person["wrinkles"]):
        patch, u, v = cut(sheet, shot, 0, -46 + 4.5 * number, 20, 4)
        line = np.maximum(np.abs(v + 0.004 * u * u) - 0.3, np.abs(u) - 18)
        blend(patch, 0.35 * cover(line, 2.0), skin * 0.6)
    for spot_x, spot_y, radius, opacity in person["spots"]:
        patch, u, v = cut(sheet, shot, spot_x, spot_y, radius + 1, radius + 1)
        spot = cover(np.sqrt(u * u + v * v) - np.float32(radius))
        blend(patch, np.float32(opacity) * spot, skin * (0.6 if opacity < 0.6 else 0.28))


def _beard(sheet: Sheet, person: Numbers, head: Plane) -> None:
    """Cheeks and chin below the beard's line, the chin alone, the upper lip: each its density."""
    beard, mouth = person["beard"], person["mouth"]
    rows = slice(50, None)  # nothing grows above the ears
    x, y = sheet[4, rows], sheet[5, rows]
    face = cover(head[rows] + 0.5, 3)
    grain = 0.85 + 0.15 * np.sin(x * 2.1 + y * 0.4) * np.sin(y * 1.7 - x * 0.3)
    bare = (np.sqrt((x / (person["width"] * 0.70)) ** 2 + ((y + 6) / beard["line"]) ** 2) - 1) * 16
    full = cover(-bare, 4) * cover(-16 - y, 8)
    chin = cover((np.sqrt((x / 13) ** 2 + ((y - mouth["y"] - 15) / 11) ** 2) - 1) * 11, 5)
    lip_y = y - mouth["y"] + 7.0 - 0.012 * x * x
    lip = cover(np.maximum(np.abs(lip_y) - np.float32(beard["bushy"]), np.abs(x) - 17), 2.5)
    opacity = np.maximum(full * np.float32(beard["full"]), chin * np.float32(beard["chin"]))
    opacity = np.maximum(opacity, lip * np.float32(beard["lip"]))
    blend(sheet[:, rows], opacity * grain * face, person["brow_colour"])


def _light(sheet: Sheet, shot: Numbers, person: Numbers, head: Plane, hair: Plane) -> None:
    """Shades the head by its relief under the shot's light, and under the hair's shadow."""
    for side in (-1, 1):
        bump(sheet, shot, side * person["cheek"]["x"], 2, 9, 8, person["cheek"]["high"])
        bump(sheet, shot, side * person["eye"]["x"], -20, 9, 6, -person["eye"]["deep"] * 6)
        bump(sheet, shot, side * 16, -30, 11, 4, person["brow"]["ridge"])
    bump(sheet, shot, 0, person["chin"] - 7, 8, 5, person["cleft"])
    relief = sheet[3]
    slope_x, slope_y = np.empty_like(relief), np.empty_like(relief)
    slope_x[:, 1:-1], slope_x[:, [0, -1]] = relief[:, 2:] - relief[:, :-2], 0
    slope_y[1:-1], slope_y[[0, -1]] = relief[2:] - relief[:-2], 0
    # The head itself is a paraboloid, whose slope grows with the distance from its middle.
    normal_x = sheet[4] * np.float32(0.75 / person["width"]) - 0.5 * slope_x
    normal_y = (sheet[5] + 12) * np.float32(0.011) - 0.5 * slope_y
    light_x, light_y, light_z = shot["light"].tolist()
    lit = normal_x * light_x + normal_y * light_y + light_z
    lit /= np.sqrt(normal_x * normal_x + normal_y * normal_y + 1)
    shade = np.float32(shot["ambient"]) + np.float32(1 - shot["ambient"]) * np.maximum(lit, 0)
    shadow = np.zeros_like(shade)
    shadow[4:] = hair[:-4]  # the hair's shadow falls on the skin below it
    shade *= 1 - 0.3 * shadow
    sheet[:3] *= 1 + cover(head - 1.2, 2.0) * (shade - 1)


def _glasses(sheet: Sheet, shot: Numbers, person: Numbers) -> None:
    glasses, eye = person["glasses"], person["eye"]
    for side in (-1, 1):
        patch, u, v = cut(sheet, shot, side * (eye["x"] + 0.5), eye["y"] + 1, 24, 14)
        across, down = u * (1 / glasses["width"]), v * (1 / glasses["height"])
        across, down = across * across, down * down
        lens = across + down - np.float32(glasses["square"]) * np.minimum(across * down, 1)
        rim = np.abs(lens - 1) * np.float32(glasses["height"] / 2) - np.float32(glasses["thick"])
        # From the rim outwards to the ear and inwards to the middle of the nose.
        out = side * u
        bar = np.abs(v + 2) - np.float32(glasses["thick"])
        bar = np.maximum(bar, glasses["width"] - np.abs(out))
        bar = np.maximum(bar, out - (person["width"] - eye["x"] - 1.5))
        bar = np.maximum(bar, -out - (eye["x"] + 1.5))
        rim = np.minimum(rim, bar)
        blend(patch, 0.08 * cover((lens - 1) * 5), np.full(3, 255.0))
        blend(patch, 0.95 * cover(rim, 1.3), glasses["colour"])


def paint(person: Numbers, shot: Numbers) -> UInt8[np.ndarray, "112 112 3"]:
    """The picture of `person` that `shot` describes: uint8 RGB [112 112 3]."""
    sheet = blank(shot)
    head = _head(sheet, person)
    silhouette, before, hair = _hair(sheet, person)
    _background(sheet, shot)
    blend(sheet, silhouette, person["hair_colour"] * 0.55)
    _skin(sheet, shot, person, head)
    if person["beard"] is not None:
        _beard(sheet, person, head)
    paint_mouth(sheet, shot, person)
    paint_nose(sheet, shot, person)
    for side in (-1, 1):
        paint_eye(sheet, shot, person, side)
        paint_brow(sheet, shot, person, side)
    _light(sheet, shot, person, head, before)
    if person["glasses"] is not None:
        _glasses(sheet, shot, person)
    blend(sheet, before, hair)
    pixels = sheet[:3]
    pixels *= shot["gain"].astype(np.float32)[:, None, None]
    pixels += shot["noise"]
    np.clip(pixels, 0, 255, out=pixels)
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(1, 2, 0))
