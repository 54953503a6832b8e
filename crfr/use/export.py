"""A trained network as a file for other runtimes: made, checked there, and kept only if it agrees.

The file takes pixels of any size and gives unit embeddings: resize, normalisation and folded
network are in it.  It lies beside its place until it has passed.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from crfr import environment
from crfr.errors import InputError
from crfr.evaluate import exported
from crfr.evaluate.foreign import Foreign
from crfr.evaluate.onnx_model import load_onnx
from crfr.evaluate.onnx_spec import parse_onnx
from crfr.model.fold import fold
from crfr.model.resnet import ResNet
from crfr.use import export_check, export_jax, export_onnx, export_tensorflow

FORMATS = {"stablehlo": ".stablehlo", "onnx": ".onnx", "saved_model": ""}  # and how files end
PIXELS = ("uint8", "float32")


def check_place(format: str, out: Path) -> None:
    """InputError for a name that does not go with a format, and a format that lacks a package."""
    suffix = FORMATS[format]
    if out.suffix != suffix and suffix:
        raise InputError(f"--out={out}: files of --format={format} end in {suffix}")
    if format == "saved_model":
        export_tensorflow.import_tensorflow()
        if out.exists():
            raise InputError(
                f"--out={out}: exists, and a SavedModel is a folder; choose a new name"
            )
    elif out.is_dir():
        raise InputError(f"--out={out}: is a folder; name the file in it")
    if format == "onnx":
        export_onnx.import_onnx()


def export(
    network: ResNet,
    variables: Any,
    metadata: dict[str, Any],
    faces: UInt8[np.ndarray, "n 112 112 3"],
    out: Path,
    *,
    format: str,
    pixels: str,
    source: str,
    repeats: int,
) -> dict[str, Any]:
    """Write a network to `out`, with what is said of it in `metadata`; returns the report.

    `pixels`: the type of the images, "uint8" or "float32", RGB in 0..255.  `faces`: real images
    for the check, beside noise, and `source` where they are from.  The same report goes to
    `OUT.json`.  InputError as `check_place`, where the place cannot be written, and where the
    file's embeddings are not the network's.
    """
    check_place(format, out)
    environment.make_folder(out.parent, f"--out={out}", "choose another place")
    partial = out.with_name(f".partial-{out.name}")
    about = metadata | {
        "schema": 1,
        "format": format,
        "input": {
            "shape": ["b", "h", "w", 3],
            "type": pixels,
            "pixels": "RGB, 0..255",
            "resize": "antialiased bicubic (a = -0.5, borders renormalised) to 112 x 112 px, "
            "clipped to 0..255; 112 x 112 px stay as they are",
        },
        "output": {"shape": ["b", network.embedding], "type": "float32", "norm": 1},
    }
    variables = jax.tree.map(np.asarray, variables)
    _remove(partial)  # what a kill has left
    try:
        made = _write(fold(network, variables), about, partial, format, pixels)
        report = _examine(made, network, variables, faces, pixels, repeats)
        report["checked"]["faces"] = source
        checked = report["checked"]
        worst = max(checked["difference"], checked["distance"])
        if not worst <= export_check.MOST:
            raise InputError(
                f"{out}: not kept, as {made.runtime} gives other embeddings than the network: "
                f"distances of pairs differ by up to {checked['difference']:.1e}, an image's two "
                f"embeddings by {checked['distance']:.1e}, and {export_check.MOST:.0e} is allowed; "
                "try another version of the runtime, or another format"
            )
        report = {
            "file": out.name,
            "format": format,
            "bytes": _size(partial),
            "original_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(variables)),
            **report,
            **environment.made_with(),
        }
        partial.replace(out)
    finally:
        _remove(partial)
    environment.write_json(out.with_name(f"{out.name}.json"), report)
    return report


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _write(
    folded: tuple[ResNet, Any], about: dict[str, Any], path: Path, format: str, pixels: str
) -> Foreign:
    """Write a format, and load it in its runtime."""
    network, variables = folded
    if format == "onnx":
        environment.write_atomically(path, export_onnx.make_onnx(network, variables, pixels, about))
        settings = parse_onnx(str(path))
        assert settings is not None
        return load_onnx(settings, cpu=True)
    embed = export_jax.make_inference(network, variables)
    if format == "saved_model":
        export_tensorflow.write_saved_model(embed, network.embedding, pixels, about, path)
        return export_tensorflow.load_saved_model(path, pixels)
    program, version = export_jax.make_stablehlo(embed, pixels)
    about = about | {"platforms": list(export_jax.PLATFORMS), "calling_convention": version}
    environment.write_atomically(path, exported.pack(program, about))
    return exported.load_stablehlo(path)


def _examine(
    made: Foreign,
    network: ResNet,
    variables: Any,
    faces: UInt8[np.ndarray, "n 112 112 3"],
    pixels: str,
    repeats: int,
) -> dict[str, Any]:
    """What the report says of the agreement and the speed of what was made."""
    original = export_check.as_trained(network, variables)
    batches = export_check.check_images(faces, pixels)
    checked = export_check.compare(original, made.function, batches)
    device = export_check.timing_device()
    with jax.default_device(device):
        latency = export_check.time_both(original, made.function, faces.astype(pixels), repeats)
    return {
        "checked": checked | {"most": export_check.MOST},
        "latency": latency,
        "runtime": made.runtime,
        "original_runtime": f"jax {device.platform}",
    }


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def describe(report: dict[str, Any]) -> str:
    """A report as the lines that the command prints."""
    checked = report["checked"]
    shapes = dict.fromkeys(f"{height} x {width}" for _, height, width in checked["shapes"])
    lines = [
        f"checked in {report['runtime']} on {checked['images']} images, noise and faces of "
        f"{checked['faces']}, of {', '.join(shapes)} px: "
        f"distances of {checked['pairs']} pairs differ by at most {checked['difference']:.1e} "
        f"({checked['most']:.0e} is allowed)",
        "",
        f"{'':<10}{'size':>10}"
        + "".join(f"{_images(row['images']):>15}" for row in report["latency"]),
    ]
    for name, size in (("original", report["original_bytes"]), ("exported", report["bytes"])):
        times = "".join(f"{row[f'{name}_ms']:>12.1f} ms" for row in report["latency"])
        lines.append(f"{name:<10}{size / 1e6:>7.1f} MB{times}")
    repeats = report["latency"][0]["repeats"]
    lines.append(
        f"median of {repeats} calls each, in turns; original: the network's weights alone, run by "
        f"{report['original_runtime']}"
    )
    return "\n".join(lines)
