"""ONNX models, run by onnxruntime."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from crfr.data.recordio import require_file
from crfr.errors import InputError, one_line, unknown
from crfr.evaluate.exported import read_onnx_metadata
from crfr.evaluate.foreign import Foreign, as_embeddings
from crfr.evaluate.onnx_graph import ARITHMETIC, external_files, first_operations
from crfr.evaluate.onnx_spec import LAYOUTS, Numbers, Settings
from crfr.views.degrade import SIDE

# What the input may be of, and what it is fed from: a network that takes uint8 is given what a
# camera would give, any other one the degraded image as it is.
TYPES = {
    "tensor(float)": (np.float32, "float32"),
    "tensor(float16)": (np.float16, "float32"),
    "tensor(uint8)": (np.uint8, "uint8"),
}


def load_onnx(settings: Settings, *, cpu: bool = False) -> Foreign:
    """The embeddings of an ONNX model, on a GPU where onnxruntime has one, else or if `cpu` is true
    on the CPU.

    One that crfr exported needs no settings: it says by itself that it takes pixels in 0..255.
    Batches of any length: a model of a fixed batch is fed in parts of its length, the last one
    filled up and cut.  The fingerprint is of the file, the files of its external tensors, and the
    settings.  InputError for a file that is missing or no ONNX model, for an input that is not
    faces of 112 px in float32, float16 or uint8, for an output that is not one embedding an image,
    and where the settings leave open how the input is made.
    """
    path = require_file(settings.path)
    session = _open(path, cpu)
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise InputError(f"{path}: takes {len(inputs)} inputs ({names}), not one batch of images")
    name, shape = inputs[0].name, list(inputs[0].shape)
    if inputs[0].type not in TYPES:
        raise InputError(
            f"{path}: input {name!r} is a {inputs[0].type}; export it with one of "
            f"{', '.join(TYPES)}"
        )
    dtype, pixels_type = TYPES[inputs[0].type]
    layout = _layout(path, shape, settings.layout)
    if settings.bare and read_onnx_metadata(path) is not None:
        settings = settings._replace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    mean, std = _normalisation(path, name, dtype, settings)
    shift, scale = np.array(mean, np.float32), np.array(std, np.float32)
    output = _output(path, session.get_outputs(), settings.output)
    fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None

    def embed(pixels: np.ndarray) -> Float32[np.ndarray, "b d"]:
        fed = pixels
        if dtype is not np.uint8:
            fed = (pixels.astype(np.float32) - shift) / scale
        if settings.color == "bgr":
            fed = fed[..., ::-1]
        if layout == "nchw":
            fed = fed.transpose(0, 3, 1, 2)
        fed = np.ascontiguousarray(fed, dtype)
        size = fixed or len(fed)
        parts = []
        for start in range(0, len(fed), size):
            part = fed[start : start + size]
            real = len(part)
            part = np.concatenate([part, np.repeat(part[-1:], size - real, axis=0)])
            try:
                result = session.run([output], {name: part})[0]
            except Exception as error:  # onnxruntime's errors have no class in common
                raise InputError(f"{path}: fails on {size} images: {one_line(error)}") from error
            parts.append(as_embeddings(f"{path}, output {output!r}", result, size)[:real])
        return np.concatenate(parts)

    digest = hashlib.sha256(repr((layout, settings.color, mean, std, output)).encode())
    for part in [path, *external_files(path)]:
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    runtime = f"onnxruntime {session.get_providers()[0]}"
    return Foreign(embed, pixels_type, digest.hexdigest()[:16], runtime)


def _open(path: Path, cpu: bool) -> Any:
    """A session of onnxruntime, which tells of errors alone and not of what could be tidier."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{path}: onnxruntime cannot be imported ({error}); pip install 'crfr[onnx]', or "
            "onnxruntime-gpu for a GPU"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Products in true float32, as crfr's own networks are evaluated: CUDA's default is TF32.
    wanted = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}
    there = ["CPUExecutionProvider"] if cpu else onnxruntime.get_available_providers()
    providers = [(name, settings) for name, settings in wanted.items() if name in there]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no class in common
        raise InputError(
            f"{path}: onnxruntime cannot load it: {one_line(error)}; check that it is a whole ONNX "
            "model, with the files of its external data beside it"
        ) from error


def _layout(path: Path, shape: list, given: str | None) -> str:
    def fits(layout: str) -> bool:
        colour, *sides = (shape[axis] for axis in LAYOUTS[layout])
        # a dimension that the model leaves open is a name or None
        of_colour = not isinstance(colour, int) or colour == 3
        return of_colour and all(not isinstance(s, int) or s == SIDE for s in sides)

    fitting = [layout for layout in LAYOUTS if fits(layout)] if len(shape) == 4 else []
    shown = "[" + " ".join(map(str, shape)) + "]"
    if not fitting:
        raise InputError(
            f"{path}: takes an input of shape {shown}, but a face is [n 3 {SIDE} {SIDE}] or "
            f"[n {SIDE} {SIDE} 3]; choose a model for aligned faces of {SIDE} px"
        )
    if given is None and len(fitting) > 1:
        raise InputError(
            f"{path}: an input of shape {shown} leaves the layout open; add layout=nchw or "
            "layout=nhwc"
        )
    if given is not None and given not in fitting:
        raise InputError(
            f"{path}: an input of shape {shown} is not {given}; give layout={fitting[0]}"
        )
    return given or fitting[0]


def _normalisation(
    path: Path, name: str, dtype: type, settings: Settings
) -> tuple[Numbers, Numbers]:
    """(mean, std) of red, green and blue."""
    none, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = settings.mean, settings.std
    if dtype is np.uint8:
        if (mean or none, std or one) != (none, one):
            raise InputError(
                f"{path}: takes uint8 pixels, which it has to normalise itself; give mean=0,std=1"
            )
        return none, one
    if mean is None or std is None:
        raise InputError(
            f"{path}: how its input is normalised is nowhere said, and a wrong guess would spoil "
            "the measurement; add preset=insightface, preset=opencv, or mean=M,std=S of pixels in "
            "0..255 (and color=bgr where it takes BGR), as in FILE.onnx:mean=127.5,std=127.5"
        )
    if settings.preset == "insightface":
        kinds = first_operations(path, name)
        # InsightFace asks for such nodes too (model_zoo/arcface_onnx.py): its models made with
        # MXNet subtract and scale by themselves, and get pixels in 0..255.
        if ARITHMETIC & {*kinds}:
            raise InputError(
                f"{path}: normalises its input itself (it begins with {', '.join(kinds)}); give it "
                "mean=0,std=1, as InsightFace does"
            )
    return mean, std


def _output(path: Path, outputs: list, given: str | None) -> str:
    names = [each.name for each in outputs]
    if given is not None:
        if given not in names:
            raise unknown(f"output of {path}", given, names)
        return given
    flat = [each.name for each in outputs if len(each.shape) == 2]
    if len(flat) == 1:
        return flat[0]
    if len(outputs) == 1 and not outputs[0].shape:  # of unknown rank: what comes is checked
        return names[0]
    shown = ", ".join(f"{o.name} [{' '.join(map(str, o.shape))}]" for o in outputs)
    if len(outputs) > 1:
        raise InputError(
            f"{path}: which of its outputs is the embedding is open ({shown}); add output=NAME"
        )
    raise InputError(f"{path}: returns {shown}, not one embedding an image, [n d]")
