"""Who is in a procedural picture and how it was taken: the numbers that portrait.paint paints.

Identity lives at two scales, so that resolution matters.  Coarse: skin, hair (colour, style, line),
width of head and jaw, beard; a 7 px image still shows it.  Fine: lids, irises, brows, nose, lips,
moles, wrinkles; gone below some 20 px.  Lengths are px of the aligned 112 px crop, places are in
the face coordinates of draw.py, colours RGB in 0..255, opacities 0..1.
"""

import numpy as np

from crfr.data.draw import SIDE, Numbers

Generator = np.random.Generator

_SKIN = np.array(
    [[247, 218, 198], [238, 197, 166], [216, 168, 128], [176, 124, 88], [124, 82, 58], [84, 56, 44]]
)
_HAIR = np.array(
    [
        [26, 22, 22],  # black
        [56, 38, 28],  # dark brown
        [96, 64, 42],  # brown
        [128, 60, 34],  # auburn
        [158, 122, 76],  # dark blonde
        [214, 180, 118],  # blonde
        [180, 88, 44],  # red
        [142, 140, 140],  # grey
        [222, 220, 216],  # white
    ]
)
_IRIS = np.array(
    [[64, 38, 22], [92, 60, 32], [124, 98, 52], [92, 126, 86], [96, 140, 186], [138, 150, 160]]
)

_FRAMES = np.array([[24, 22, 22], [96, 60, 34], [150, 130, 90], [120, 30, 34]])  # of glasses

# What a hair style is.  side, top: how far hair stands off the head; length: where its sides end
# (y); line: where the hairline lies (y); open: the share of the face's width that it leaves free.
_STYLES = {
    "crop": dict(side=(-1, 3), top=(-2, 4), length=(-22, -6), line=(-50, -42), open=(0.90, 1.0)),
    "parted": dict(side=(2, 5), top=(2, 8), length=(-16, -2), line=(-50, -42), open=(0.86, 0.97)),
    "fringe": dict(side=(2, 7), top=(2, 8), length=(-8, 60), line=(-38, -33), open=(0.80, 0.92)),
    "long": dict(side=(3, 10), top=(2, 8), length=(24, 60), line=(-54, -44), open=(0.78, 0.92)),
    "bob": dict(side=(6, 11), top=(3, 8), length=(6, 22), line=(-50, -40), open=(0.78, 0.92)),
    "curls": dict(side=(4, 11), top=(4, 12), length=(-6, 40), line=(-50, -40), open=(0.84, 0.96)),
    "tied": dict(side=(-1, 1), top=(-1, 3), length=(-14, -6), line=(-56, -48), open=(0.94, 1.0)),
    "receding": dict(
        side=(-1, 2), top=(-6, 0), length=(-16, -2), line=(-66, -56), open=(0.92, 1.0)
    ),
    "bald": dict(side=(-2, -2), top=(-6, -6), length=(-20, -12), line=(-70, -70), open=(1.05, 1.1)),
}
_MENS = {"crop": 24, "parted": 24, "fringe": 10, "long": 7, "curls": 12, "receding": 12, "bald": 11}
_WOMENS = {"long": 28, "bob": 16, "fringe": 18, "curls": 14, "tied": 12, "crop": 4, "parted": 8}
_BEARDS = {"none": 40, "stubble": 20, "full": 20, "goatee": 10, "moustache": 10}

# The range of every number of a feature; where men and women differ, theirs follow.
_HAIR_RANGES = {"part": (-18, 18), "fine": (45, 80), "wave": (0, 4), "tight": (0.35, 0.8)}
_HEAD = {"width": (36, 43), "cleft": (-0.5, 3.0), "phase": (0, 6)}
_EAR = {"out": (1.5, 5), "width": (3.5, 6), "height": (9, 13)}
_CHEEK = {"x": (20, 26), "high": (0, 3)}
_EYE = {
    "x": (16.4, 19.6),
    "y": (-21.4, -18.6),
    "tilt": (-0.6, 0.6),
    "width": (7.0, 9.8),
    "lower": (1.6, 3.2),
    "slant": (-0.10, 0.20),
    "skew": (-0.35, 0.35),
    "fold": (0.4, 3.2),
    "bag": (1.8, 3.6),
    "iris": (3.2, 4.4),
    "deep": (0.05, 0.6),
}
_BROW = {
    "x": (17.5, 20.5),
    "y": (-34, -29),
    "uneven": (-0.8, 0.8),
    "width": (9, 13),
    "slant": (-0.12, 0.22),
    "arch": (0, 3.6),
    "taper": (0.2, 0.9),
    "hairs": (0.9, 2.2),
    "dense": (0.45, 0.95),
}
_NOSE = {
    "x": (-1.2, 1.2),
    "y": (-2.2, 2.2),
    "bridge": (3.2, 5.6),
    "high": (2, 5),
    "tip": (4.5, 7),
    "ball": (1.5, 4),
    "wing": (6.5, 10.5),
    "nostril": (1, 2),
}
_MOUTH = {
    "x": (-1, 1),
    "y": (18.2, 21.8),
    "width": (11.5, 17.5),
    "upper": (1.4, 4.0),
    "lower": (2.2, 5.4),
    "cupid": (0, 0.55),
    "curve": (-1.2, 1.8),
    "hang": (-0.7, 0.7),
    "red": (0.55, 0.95),
}
_GLASSES = {"width": (12.5, 15.5), "height": (8, 11.5), "square": (-0.2, 0.7), "thick": (0.4, 1.3)}
_MAN = {
    "head": {"chin": (34, 42), "jaw": (0, 0.5), "neck": (27, 33)},
    "eye": {"upper": (2.6, 4.8), "lash": (0.4, 0.9)},
    "brow": {"thick": (1.4, 3.2), "ridge": (0, 2.4)},
}
_WOMAN = {
    "head": {"chin": (32, 40), "jaw": (-0.5, 0.25), "neck": (22, 28)},
    "eye": {"upper": (3.1, 5.3), "lash": (0.6, 1.5)},
    "brow": {"thick": (0.7, 2.2), "ridge": (0, 1)},
}


def _between(rng: Generator, ranges: dict) -> Numbers:
    return {name: rng.uniform(low, high) for name, (low, high) in ranges.items()}


def _choose(rng: Generator, percent: dict[str, int]) -> str:
    return str(rng.choice(list(percent), p=np.array(list(percent.values())) / 100))


def _near(rng: Generator, colour: np.ndarray, spread: float) -> np.ndarray:
    """A colour like `colour`: lighter or darker, its hue a little off."""
    shift = rng.normal(0, spread) + rng.normal(0, 0.25 * spread, 3)
    return np.clip(colour + shift, 8, 250)


def _hair(rng: Generator, style: str, width: float) -> Numbers:
    hair = _between(rng, _STYLES[style] | _HAIR_RANGES)
    hair["open"] *= width
    hair["square"] = rng.uniform(0.3, 0.6) if style in ("fringe", "crop") else rng.uniform(0, 0.4)
    hair["slant"] = rng.choice([-1, 1]) * rng.uniform(0.15, 0.4) if style == "parted" else 0.0
    hair["peak"] = rng.uniform(-1, 3) if style != "fringe" else 0.0
    hair["curl"] = rng.uniform(1.2, 2.8) if style == "curls" else 0.0
    hair["edge"] = rng.uniform(2, 4) if style != "crop" else rng.uniform(3, 7)
    hair["cover"] = 0.0 if style == "bald" else 1.0
    return hair


def _beard(rng: Generator) -> Numbers | None:
    kind = _choose(rng, _BEARDS)
    if kind == "none":
        return None
    dense = rng.uniform(0.15, 0.35) if kind == "stubble" else rng.uniform(0.6, 0.9)
    grows = {"goatee": ("chin", "lip"), "moustache": ("lip",)}.get(kind, ("full", "chin", "lip"))
    beard = _between(rng, {"line": (18, 27), "bushy": (1.5, 3.2)})
    return beard | {place: dense * (place in grows) for place in ("full", "chin", "lip")}


def _spots(rng: Generator, freckled: bool) -> list[tuple[float, float, float, float]]:
    """(x, y, radius, opacity) of moles, and of freckles about the nose."""
    spots = []
    for _ in range(rng.poisson(0.9)):
        spots.append((rng.uniform(-30, 30), rng.uniform(-44, 30), rng.uniform(0.8, 1.6), 0.9))
    for _ in range(rng.integers(12, 28) if freckled else 0):
        x = rng.choice([-1, 1]) * rng.uniform(3, 30)
        spots.append((x, rng.uniform(-8, 10), rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.5)))
    return spots


def draw_person(rng: Generator) -> Numbers:
    """The numbers of one identity: nested dictionaries of floats and of colours [3]."""
    man, age, tone = rng.random() < 0.5, rng.random(), rng.uniform(0, 5)
    own = _MAN if man else _WOMAN
    low = min(int(tone), 4)
    skin = _SKIN[low] + (tone - low) * (_SKIN[low + 1] - _SKIN[low])
    skin = skin * (1 + rng.normal(0, 0.03)) + rng.uniform(-3, 9) * np.array([0.5, -0.6, -0.8])
    skin = np.clip(skin, 30, 250)
    if age > 0.72 and rng.random() < 0.6:
        shade = rng.integers(7, 9)  # grey or white
    else:
        shade = rng.integers(0, 7 if tone < 1.8 else 4 if tone < 3.2 else 3)
    hair = _near(rng, _HAIR[shade], 6.0)
    brow = hair * (0.75 if shade < 4 or shade == 6 else 0.62)
    made_up = not man and rng.random() < 0.4
    lip = skin * (np.array([0.86, 0.46, 0.48]) if made_up else np.array([0.92, 0.66, 0.64]))
    person = _between(rng, _HEAD | own["head"]) | {
        "skin": skin,
        "blush": skin * np.array([1.05, 0.80, 0.76]),
        "hair_colour": hair,
        "brow_colour": brow,
        "lash_colour": np.minimum(brow, skin) * 0.35,
        "iris_colour": _near(rng, _IRIS[rng.integers(0, 6 if tone < 2.5 else 2)], 8.0),
        "lip_colour": lip * rng.uniform(0.9, 1.08, 3),
        "furrow": rng.uniform(0.05, 0.25) + 0.35 * age * (rng.random() < 0.7),
        "wrinkles": int(rng.integers(1, 4)) if age > 0.55 and rng.random() < 0.6 else 0,
        "spots": _spots(rng, freckled=tone < 2 and rng.random() < 0.3),
        "ear": _between(rng, _EAR),
        "cheek": _between(rng, _CHEEK),
        "eye": _between(rng, _EYE | own["eye"]) | {"bagged": rng.uniform(0, 0.25) + 0.4 * age},
        "brow": _between(rng, _BROW | own["brow"]),
        "nose": _between(rng, _NOSE),
        "mouth": _between(rng, _MOUTH),
        "beard": _beard(rng) if man else None,
        "glasses": None,
    }
    person["hair"] = _hair(rng, _choose(rng, _MENS if man else _WOMENS), person["width"])
    if rng.random() < 0.2:
        person["glasses"] = _between(rng, _GLASSES) | {"colour": _FRAMES[rng.integers(4)]}
    return person


def draw_shot(rng: Generator) -> Numbers:
    """The numbers of one picture: pose (px, radians), expression, light, background, noise."""
    light = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.55, 0.1), 1.0])  # x, y, to the viewer
    gain = rng.uniform(0.82, 1.14) * rng.uniform(0.96, 1.04, 3)
    background = np.clip(rng.uniform(40, 215, (3, 1)) + rng.normal(0, 22, (3, 3)), 10, 245)
    talking = rng.random() < 0.3
    return {
        "shift": rng.normal(0, 0.9, 2).tolist(),
        "roll": rng.normal(0, 0.025),
        "scale": rng.normal(1, 0.018),
        "yaw": min(max(rng.normal(0, 3.0), -7), 7),
        "pitch": min(max(rng.normal(0, 1.6), -4), 4),
        "smile": rng.uniform(-0.3, 1.0),
        "mouth": rng.uniform(1.0, 5.5) if talking else 0.0,
        "open": rng.uniform(0.78, 1.12),
        "brow": rng.normal(0, 0.9),
        "gaze": rng.normal(0, (1.1, 0.4)),
        "light": light / np.sqrt(light @ light),
        "ambient": rng.uniform(0.35, 0.65),
        "gain": gain,
        "background": background,
        "ramp": rng.normal(0, 0.8, 2),
        "blob": (rng.uniform(-50, 50), rng.uniform(-70, 30)),
        "noise": rng.uniform(1, 4) * rng.standard_normal((SIDE, SIDE), dtype=np.float32),
    }
