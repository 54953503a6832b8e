"""How an ONNX model is named, and how its input is made: `FILE.onnx[:KEY=VALUE,...]`.

| key | what |
|---|---|
| preset | insightface (nchw, rgb, mean 127.5, std 127.5) or opencv (nchw, rgb, mean 0, std 1: SFace as cv2.FaceRecognizerSF feeds it); a key of its own overrules it |
| layout | nchw or nhwc; by default what the shape of the input says |
| color | rgb (default) or bgr: the order of the channels that the network takes |
| mean, std | the network gets (pixel - mean) / std of pixels in 0..255; one number, or three with `;` between them, of red, green and blue whatever `color` is |
| output | the name of the output that is the embedding; by default the only 2-D one |

A wrong normalisation gives embeddings that look right, so there is none by default.  What crfr has
exported normalises its input itself and needs no settings.
"""  # noqa: E501

import math
import re
from typing import NamedTuple

from crfr.errors import InputError, unknown

# The axes of [n ...] that are colour, height and width.
LAYOUTS = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2)}
COLORS = ("rgb", "bgr")
PRESETS = {
    "insightface": {"layout": "nchw", "color": "rgb", "mean": "127.5", "std": "127.5"},
    "opencv": {"layout": "nchw", "color": "rgb", "mean": "0", "std": "1"},
}
KEYS = ("preset", "layout", "color", "mean", "std", "output")
Numbers = tuple[float, float, float]


class Settings(NamedTuple):
    path: str
    preset: str | None
    layout: str | None
    color: str
    mean: Numbers | None  # of red, green, blue
    std: Numbers | None
    output: str | None
    bare: bool  # none was given


def parse_onnx(spec: str) -> Settings | None:
    """The settings of `FILE.onnx[:KEY=VALUE,...]`; None where `spec` is none."""
    match = re.fullmatch(r"(.+?\.onnx)(?::(.*))?", spec)
    if not match:
        return None
    given: dict[str, str] = {}
    for setting in filter(None, (match[2] or "").split(",")):
        key, equals, value = setting.partition("=")
        if key not in KEYS:
            raise unknown(f"setting of {match[1]}", key, KEYS)
        if not equals or not value:
            raise InputError(f"{spec}: {key} has no value; write {key}=VALUE")
        if key in given:
            raise InputError(f"{spec}: gives {key} twice; leave one out")
        given[key] = value
    preset = given.get("preset")
    if preset is not None and preset not in PRESETS:
        raise unknown(f"preset of {match[1]}", preset, PRESETS)
    values = PRESETS.get(preset or "", {}) | given
    for key, known in (("layout", LAYOUTS), ("color", COLORS)):
        if key in values and values[key] not in known:
            raise unknown(f"{key} of {match[1]}", values[key], known)
    return Settings(
        path=match[1],
        # a preset whose normalisation is given in full has no say in it
        preset=None if {"mean", "std"} <= given.keys() else preset,
        layout=values.get("layout"),
        color=values.get("color", "rgb"),
        mean=_numbers(spec, "mean", values.get("mean")),
        std=_numbers(spec, "std", values.get("std")),
        output=values.get("output"),
        bare=not given,
    )


def _numbers(spec: str, key: str, text: str | None) -> Numbers | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(";")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{spec}: {key}={text} is neither a number nor three with ; between them; write for "
            f"example {key}=127.5"
        )
    if key == "std" and min(numbers) <= 0:
        raise InputError(f"{spec}: std={text} divides the pixels; give numbers above 0")
    return numbers[0], numbers[1], numbers[2]
