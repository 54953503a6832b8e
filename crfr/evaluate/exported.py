"""What `crfr export` writes, read: its metadata, and StableHLO files as encoders.

A `.stablehlo` file is a zip archive, not compressed, of `metadata.json` and `model.stablehlo`, which
`jax.export.deserialize` takes.  An ONNX model has the same metadata as JSON, under the key `crfr` of
its own metadata.  `sha256` in them is that of `model.stablehlo`, or of the ONNX file's graph: what
is said of a model holds for that one alone.
"""  # noqa: E501

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Float32

from crfr.data.recordio import require_file
from crfr.errors import InputError, one_line
from crfr.evaluate.foreign import Foreign, as_embeddings
from crfr.evaluate.onnx_graph import graph_digest, properties
from crfr.evaluate.onnx_spec import parse_onnx

SUFFIX = ".stablehlo"
PROGRAM, METADATA = "model.stablehlo", "metadata.json"
KEY = "crfr"  # of an ONNX model's metadata
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip archive can hold: the same bytes always


def pack(program: bytes, metadata: dict[str, Any]) -> bytes:
    """The content of a `.stablehlo` file; a function of its arguments."""
    file = io.BytesIO()
    about = metadata | {"sha256": hashlib.sha256(program).hexdigest()}
    text = json.dumps(about, indent=2, allow_nan=False) + "\n"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in ((METADATA, text.encode()), (PROGRAM, program)):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return file.getvalue()


def unpack(path: Path) -> tuple[bytes, dict[str, Any]]:
    """(the program, the metadata) of a `.stablehlo` file; InputError where it is none, is damaged,
    or has another program than crfr gave it.
    """
    require_file(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            program, text = archive.read(PROGRAM), archive.read(METADATA)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path}: is no file of crfr export --format=stablehlo, or a damaged one "
            f"({one_line(error)}); export it again"
        ) from error
    metadata = _parse(path, text.decode(errors="replace"))
    _check(path, metadata, hashlib.sha256(program).hexdigest(), "export it again")
    return program, metadata


def read_onnx_metadata(path: Path) -> dict[str, Any] | None:
    """What crfr says of an ONNX model that it exported; None of any other.

    `path` is a file that onnxruntime has read.  InputError where the graph has changed since.
    """
    text = properties(path).get(KEY)
    if text is None:
        return None
    metadata = _parse(path, text)
    remedy = (
        "export it again, or give the settings of an ONNX model that is not crfr's: mean=0,std=1"
    )
    _check(path, metadata, graph_digest(path), remedy)
    return metadata


def held_calibration(model: str) -> tuple[Path, dict[str, Any]] | None:
    """(the file, the thresholds that `crfr export` put into it) of a MODEL; None of any that has
    none, and of one with settings: its input may be made otherwise, and its graph have changed.
    """
    settings = parse_onnx(model)
    if settings and not settings.bare:
        return None
    path = Path(settings.path if settings else model)
    if path.is_dir():  # a work directory may be called anything
        return None
    if path.suffix == SUFFIX:
        metadata = unpack(path)[1]
    elif path.suffix == ".onnx":
        metadata = read_onnx_metadata(path)
    else:
        return None
    content = (metadata or {}).get("calibration")
    return (path, content) if content else None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or not {"sha256", "input"} <= metadata.keys():
        raise InputError(f"{path}: its metadata are not those of crfr export; export it again")
    return metadata


def _check(path: Path, metadata: dict[str, Any], digest: str, remedy: str) -> None:
    if metadata["sha256"] != digest:
        raise InputError(
            f"{path}: has been changed since crfr exported it, so what is said of it there no "
            f"longer holds; {remedy}"
        )


def load_stablehlo(path: Path) -> Foreign:
    """The embeddings of a `.stablehlo` file on this process's devices, of batches of any length.

    InputError as `unpack`, and for a program that this JAX cannot read or this device not run.
    """
    program, _ = unpack(path)
    try:
        exported = export.deserialize(bytearray(program))
    except Exception as error:  # the reader of another version's program fails anywhere
        raise InputError(
            f"{path}: JAX {jax.__version__} cannot read it ({one_line(error)}); export it again "
            "with this version"
        ) from error
    (images,) = exported.in_avals
    call = jax.jit(exported.call)

    def embed(pixels: np.ndarray) -> Float32[np.ndarray, "b d"]:
        try:
            result = call(np.ascontiguousarray(pixels, images.dtype))
        except ValueError as error:
            raise InputError(f"{path}: does not run here: {one_line(error)}") from error
        return as_embeddings(str(path), result, len(pixels))

    digest = hashlib.sha256(program).hexdigest()[:16]
    return Foreign(embed, str(images.dtype), digest, f"jax.export {jax.default_backend()}")
