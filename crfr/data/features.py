"""The features of a procedural face: eyes, brows, nose, mouth, each painted in its own patch."""

import numpy as np

from crfr.data.draw import Numbers, Sheet, blend, bump, cover, cut, stain


def paint_eye(sheet: Sheet, shot: Numbers, person: Numbers, side: int) -> None:
    eye = person["eye"]
    at_x, at_y = side * eye["x"], eye["y"] + side * eye["tilt"]
    wide = eye["width"]
    patch, u, v = cut(sheet, shot, at_x, at_y, wide + 5, 10)
    # Mirrored, so that the outer corner is at +x in both eyes; slanted about the centre.
    out = side * u
    v = v + np.float32(eye["slant"]) * out
    t = out * np.float32(1 / wide)
    bow = np.maximum(1 - t * t, 0)
    skew = 1 + np.float32(eye["skew"]) * t
    upper = np.float32(eye["upper"] * shot["open"]) * bow * skew
    lower = np.float32(eye["lower"]) * bow
    beyond = (np.abs(t) - 1) * np.float32(wide * 0.5)
    slit = np.maximum(np.maximum(-v - upper, v - lower), beyond)
    shade, lash = person["skin"] * 0.62, person["lash_colour"]
    # The fold of the lid, the bag under the eye, the white, the iris, the lashes.
    fold = np.abs(v + upper * 1.05 + np.float32(eye["fold"])) - 0.5
    blend(patch, 0.6 * cover(np.maximum(fold, beyond + 0.5), 1.5), shade)
    bag = np.abs(v - lower - np.float32(eye["bag"])) - 0.4
    blend(patch, np.float32(eye["bagged"]) * cover(np.maximum(bag, beyond + 1), 2.2), shade)
    inside = cover(slit, 1.2)
    blend(patch, inside, np.array([236.0, 230.0, 224.0]))
    gaze_x, gaze_y = np.float32(shot["gaze"][0]), np.float32(shot["gaze"][1])
    ring = np.sqrt((u - gaze_x) ** 2 + (v - gaze_y + 0.4) ** 2) - np.float32(eye["iris"])
    blend(patch, inside * cover(ring, 1.2), person["iris_colour"] * 0.55)
    blend(patch, inside * cover(ring + 0.9, 1.4), person["iris_colour"])
    blend(patch, inside * cover(ring + np.float32(eye["iris"] * 0.58), 1.0), np.full(3, 14.0))
    blend(patch, inside * cover(v + upper - 1.4, 2.4) * 0.45, np.full(3, 30.0))
    glint = np.sqrt((u - gaze_x + 1.2) ** 2 + (v - gaze_y + 1.8) ** 2) - 0.8
    blend(patch, inside * cover(glint, 1.0) * 0.9, np.full(3, 255.0))
    line = np.abs(v + upper) - np.float32(eye["lash"]) * (0.6 + 0.4 * t)
    blend(patch, 0.9 * cover(np.maximum(line, beyond - 0.8), 1.2), lash)
    blend(patch, 0.35 * cover(np.maximum(np.abs(v - lower) - 0.3, beyond), 1.2), lash)


def paint_brow(sheet: Sheet, shot: Numbers, person: Numbers, side: int) -> None:
    brow = person["brow"]
    at_y = brow["y"] - shot["brow"] + side * brow["uneven"]
    patch, u, v = cut(sheet, shot, side * brow["x"], at_y, brow["width"] + 2, 9)
    out = side * u
    t = out * np.float32(1 / brow["width"])
    v = v + np.float32(brow["slant"]) * out + np.float32(brow["arch"]) * (1 - (t - 0.25) ** 2)
    thick = np.float32(brow["thick"]) * (1 - np.float32(brow["taper"]) * (t + 1) * 0.5)
    line = np.maximum(np.abs(v) - thick, (np.abs(t) - 1) * np.float32(brow["width"]))
    hairs = 0.8 + 0.2 * np.sin(out * np.float32(brow["hairs"]) + v * 1.3)
    blend(patch, np.float32(brow["dense"]) * hairs * cover(line, 1.8), person["brow_colour"])


def paint_nose(sheet: Sheet, shot: Numbers, person: Numbers) -> None:
    nose = person["nose"]
    # The nose stands out of the face: it moves further than the cheeks when the head turns.
    x, y = nose["x"] + 0.35 * shot["yaw"], nose["y"] + 0.25 * shot["pitch"]
    wing, skin = nose["wing"], person["skin"]
    bump(sheet, shot, 0.5 * x, y - 16, nose["bridge"], 15, nose["high"])
    bump(sheet, shot, x, y - 1, nose["tip"], nose["tip"], nose["ball"])
    for side in (-1, 1):
        bump(sheet, shot, x + side * wing * 0.8, y + 1.5, 3.2, 3.4, 1.6)
        stain(sheet, shot, 0.6 * x + side * (nose["bridge"] + 2.5), y - 14, 3, 10, skin * 0.7, 0.3)
        # The crease round the wing, then the nostril.
        patch, u, v = cut(sheet, shot, x + side * wing * 0.78, y + 1.2, 5.5, 6)
        ring = np.abs(np.sqrt(u * u + v * v) - 3.6) - 0.5
        ring = np.maximum(ring, -side * u + 0.5)
        blend(patch, 0.45 * cover(ring, 1.6), skin * 0.55)
        patch, u, v = cut(sheet, shot, x + side * wing * 0.45, y + 3.4, 4, 3)
        v = v + side * u * 0.25
        hole = (np.sqrt((u / 2.3) ** 2 + (v / nose["nostril"]) ** 2) - 1) * 1.6
        blend(patch, 0.85 * cover(hole, 1.4), skin * 0.25)
    stain(sheet, shot, x, y + 5.5, wing, 2.2, skin * 0.55, 0.35)
    stain(sheet, shot, x - 0.8, y - 2.5, 2.2, 2.2, np.full(3, 255.0), 0.22)


def paint_mouth(sheet: Sheet, shot: Numbers, person: Numbers) -> None:
    mouth = person["mouth"]
    wide = mouth["width"] * (1 + 0.10 * shot["smile"])
    patch, u, v = cut(sheet, shot, mouth["x"], mouth["y"], wide + 3, 13)
    t = u * np.float32(1 / wide)
    bow = np.maximum(1 - t * t, 0)
    # A smile lifts the corners; the person's own mouth curves too, and hangs a little to one side.
    v = v + np.float32(mouth["curve"] + 3.2 * shot["smile"]) * (t * t - 0.4)
    v = v + np.float32(mouth["hang"]) * t
    cupid = 1 - np.float32(mouth["cupid"]) * np.exp(-(t * t) * 30)
    gap = np.float32(shot["mouth"]) * bow
    top = np.float32(mouth["upper"]) * bow ** np.float32(0.8) * cupid
    bottom = np.float32(mouth["lower"]) * bow
    beyond = (np.abs(t) - 1) * np.float32(wide * 0.5)
    colour = person["lip_colour"]
    lips = np.maximum(np.maximum(-v - top - 0.4 * gap, v - bottom - 0.6 * gap), beyond)
    blend(patch, np.float32(mouth["red"]) * cover(lips, 1.8), colour)
    upper = np.maximum(lips, v + 0.4 * gap)
    blend(patch, 0.3 * cover(upper, 1.5), colour * 0.6)
    inside = np.maximum(np.maximum(-v - 0.4 * gap, v - 0.6 * gap), beyond)
    if shot["mouth"] > 0.7:
        blend(patch, cover(inside, 1.2), np.array([70.0, 24.0, 24.0]))
        teeth = np.maximum(inside, v - np.float32(0.35 * shot["mouth"]))
        blend(patch, 0.95 * cover(teeth, 1.4), np.array([232.0, 228.0, 216.0]))
    line = np.maximum(np.minimum(np.abs(v + 0.4 * gap), np.abs(v - 0.6 * gap)) - 0.45, beyond - 1)
    blend(patch, 0.75 * cover(line, 1.4), colour * 0.35)
    x, y = mouth["x"], mouth["y"]
    stain(sheet, shot, x, y + mouth["lower"] + 3.5, 8, 2.2, person["skin"] * 0.6, 0.3)
    bump(sheet, shot, x, y - 2.5, 8, 2.4, 1.1)
    bump(sheet, shot, x, y + 3.5, 8, 2.8, 1.5)
