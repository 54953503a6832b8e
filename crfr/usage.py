"""The flags of the commands that put a model to use: calibrate, verify, embed, search."""

import math
import sys
from pathlib import Path

from absl import flags

from crfr.arguments import Flags, folder, need, parse, ranges, string
from crfr.errors import InputError

MODEL = "WORKDIR[@STEP or @best], FILE.onnx[:KEY=VALUE,...], FILE.stablehlo or module:function."
DETECTOR = "YuNet's ONNX file: the images are photos; without it they are aligned crops."
CALIBRATION = "File of crfr calibrate, if it is not beside the model."
CODES = """exit codes:
  0  the same person
  3  different people
  4  declined: a resolution is outside the calibrated range
  2  bad input: no model, no face, no thresholds ...
(1 is what a program leaves that fails, and no decision)"""


def calibrate(arguments: list[str]) -> None:
    """Measure a model's thresholds at every two resolutions, for verify and search."""

    def define(values: Flags) -> None:
        string(values, "model", None, MODEL)
        text = "Benchmark specs with commas between them (docs/data.md), taken together."
        string(values, "benchmark", None, text)
        text = "In px, as 7,14,40-56; between them thresholds are interpolated."
        defaults = ["7", "10", "14", "20", "28", "40", "56", "80", "112"]
        flags.DEFINE_list("resolutions", defaults, text, flag_values=values)
        text = "False accept rates to find thresholds for, besides that of the best accuracy."
        flags.DEFINE_list("fars", ["1e-2", "1e-3"], text, flag_values=values)
        string(values, "out", "", "The file; by default beside the model, where it is looked for.")
        text = "bicubic, bilinear, area, quantize (as stored images are) or noclip."
        string(values, "degradation", "quantize", text)
        flags.DEFINE_integer("batch", 256, "Images a batch.", lower_bound=1, flag_values=values)

    values = parse("calibrate", arguments, define)
    need("calibrate", values, "model", "benchmark", "resolutions")
    resolutions = ranges("resolutions", values.resolutions)
    fars = fractions("fars", values.fars)
    from crfr import apply

    apply.calibrate(
        values.model,
        values.benchmark,
        resolutions,
        folder("out", values.out) if values.out else None,
        fars=fars,
        degradation=values.degradation,
        batch=values.batch,
    )


def verify(arguments: list[str]) -> None:
    """Compare two images by the threshold for their resolutions: one person or two?"""

    def define(values: Flags) -> None:
        string(values, "model", None, MODEL)
        string(values, "detector", "", DETECTOR)
        string(values, "calibration", "", CALIBRATION)
        text = "Decide at this false accept rate, a calibrated one; else at the best accuracy."
        string(values, "far", "", text)
        flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=values)

    values = parse("verify", arguments, define, ("A", "B"), CODES)
    need("verify", values, "model")
    far = fractions("far", [values.far])[0] if values.far else None
    from crfr import apply

    same = apply.verify(
        values.model,
        values.A,
        values.B,
        detector=values.detector or None,
        calibration=values.calibration or None,
        far=far,
        as_json=values.json,
    )
    if same is not True:
        sys.exit(4 if same is None else 3)


def embed(arguments: list[str]) -> None:
    """Embed the faces in a folder of images into one file."""

    def define(values: Flags) -> None:
        string(values, "model", None, MODEL)
        string(values, "out", None, "FILE.npz or FILE.parquet.")
        string(values, "detector", "", DETECTOR)

    values = parse("embed", arguments, define, ("DIR",))
    need("embed", values, "model", "out")
    out = folder("out", values.out)
    from crfr import apply

    apply.embed(values.model, Path(values.DIR), out, detector=values.detector or None)


def search(arguments: list[str]) -> None:
    """Find the faces of an index (crfr embed) that are nearest to the one in an image."""

    def define(values: Flags) -> None:
        string(values, "model", None, MODEL)
        string(values, "detector", "", DETECTOR)
        string(values, "calibration", "", CALIBRATION)
        flags.DEFINE_integer("top", 10, "How many.", lower_bound=1, flag_values=values)
        string(values, "far", "", "Decide at this false accept rate; else at the best accuracy.")
        flags.DEFINE_boolean("faiss", False, "Search by faiss.", flag_values=values)
        flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=values)

    values = parse("search", arguments, define, ("QUERY", "INDEX"))
    need("search", values, "model")
    far = fractions("far", [values.far])[0] if values.far else None
    from crfr import apply

    apply.search(
        values.model,
        values.QUERY,
        Path(values.INDEX),
        detector=values.detector or None,
        calibration=values.calibration or None,
        top=values.top,
        far=far,
        faiss=values.faiss,
        as_json=values.json,
    )


def fractions(name: str, texts: list[str]) -> list[float]:
    """Shares above 0 and below 1: ["1e-2", "0.001"] -> [0.01, 0.001]."""
    found = []
    for text in texts:
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            raise InputError(f"--{name}: {text!r} is no share between 0 and 1, such as 1e-3")
        found.append(share)
    return list(dict.fromkeys(found))
