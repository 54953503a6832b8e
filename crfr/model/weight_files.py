"""Files of weights as dicts of named arrays: Keras' .h5, torch's .pth, .safetensors.

A file is known by its first bytes, not by its name.  Nothing in it is ever run: of pickled files
only those are read that torch's `weights_only` reads.
"""

import io
import pickle
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from crfr.environment import write_atomically
from crfr.errors import InputError

Arrays = dict[str, np.ndarray]

# what torch.load raises of files that are damaged in one place or another
TORCH_ERRORS = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError,
    AttributeError, AssertionError, OSError, OverflowError, struct.error,
)  # fmt: skip
# where training scripts put the backbone's state dict beside other things
NESTED = ("state_dict_backbone", "state_dict", "model")
SAFETENSORS = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip


def is_keras(path: Path) -> bool:
    """Whether a file is HDF5, which Keras' weights are and no others.

    Raises InputError for a file that is not there.
    """
    return _start(path).startswith(b"\x89HDF\r\n\x1a\n")


def read_arrays(path: Path) -> Arrays:
    """The arrays of a file of weights by their names; Keras' are called `LAYER/kernel`.

    Raises InputError for a file that is damaged, of another format or holds anything but arrays,
    and for a missing package.
    """
    start = _start(path)
    if is_keras(path):
        return _read_h5(path)
    if path.suffix == ".keras":
        raise InputError(
            f"{path}: a model of Keras 3; give the .h5 that model.save(NAME.h5) writes"
        )
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return _read_torch(path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    raise InputError(
        f"{path}: begins like no file of weights; give Keras' .h5, a state dict that torch.save "
        "wrote, or .safetensors"
    )


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a file of weights") from error


def _missing(path: Path, package: str, extra: str) -> InputError:
    return InputError(f"{path}: needs {package}, which is not installed: pip install crfr[{extra}]")


# --- Keras ---------------------------------------------------------------------------------------

KERAS_PARTS = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def _attribute(group: Any, name: str) -> list[str] | None:
    """A list of names, which Keras splits into NAME0, NAME1, ... where it is too long for HDF5."""
    if name in group.attrs:
        values = list(group.attrs[name])
    elif f"{name}0" in group.attrs:
        values, i = [], 0
        while f"{name}{i}" in group.attrs:
            values.extend(group.attrs[f"{name}{i}"])
            i += 1
    else:
        return None
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _read_h5(path: Path) -> Arrays:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing(path, "h5py", "h5") from error
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            root: Any = file.get("model_weights", file)
            layers = _attribute(root, "layer_names")
            if layers is None:
                raise InputError(
                    f"{path}: HDF5 without Keras' layer_names, as Keras 3 writes in .weights.h5; "
                    "give the .h5 that keras.applications downloads or model.save(NAME.h5) writes"
                )
            for layer in layers:
                group: Any = root[layer]
                names = _attribute(group, "weight_names") or []
                # by position, as Keras itself reads them: the names of 2015's files differ
                parts = KERAS_PARTS.get(len(names), tuple(map(str, range(len(names)))))
                for part, name in zip(parts, names, strict=True):
                    arrays[f"{layer}/{part}"] = np.asarray(group[name])
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged HDF5 ({_line(error)}); get it again") from error
    return arrays


# --- torch ---------------------------------------------------------------------------------------


def _read_torch(path: Path) -> Arrays:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"{path}: needs torch, which is not installed: pip install crfr[torch], or convert the "
            "file to .safetensors where torch is"
        ) from error
    try:
        with warnings.catch_warnings(action="ignore"):  # about the age of the file's format
            state = torch.load(path, map_location="cpu", weights_only=True)
    except TORCH_ERRORS as error:
        what = "damaged"
        if isinstance(error, pickle.UnpicklingError) and "nsupported" in str(error):
            what = "holds Python objects, which could run code when they are read"
        raise InputError(
            f"{path}: {what}; give a state dict alone: torch.save(model.state_dict(), PATH)"
        ) from error
    for name in NESTED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
            break
    if not isinstance(state, dict) or not state:
        raise InputError(
            f"{path}: holds no state dict but a {type(state).__name__}; give what "
            "torch.save(model.state_dict(), PATH) writes"
        )
    arrays = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"{path}: {name!r} is a {type(value).__name__}, not an array; give a state dict "
                "alone: torch.save(model.state_dict(), PATH)"
            )
        if value.is_quantized or value.layout != torch.strided or value.is_complex():
            raise InputError(f"{path}: {name} is {value.dtype}, {value.layout}; give floats")
        value = value.detach().contiguous()
        if value.dtype == torch.bfloat16:
            arrays[name] = value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        else:
            try:
                arrays[name] = value.numpy()
            except (TypeError, RuntimeError) as error:
                raise InputError(f"{path}: {name} is {value.dtype}; give floats") from error
    return arrays


def write_torch(path: Path, arrays: Arrays) -> None:
    """A state dict for `torch.load`.  Raises InputError without torch and where it cannot write."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"{path}: needs torch, which is not installed: pip install crfr[torch], or write "
            ".safetensors"
        ) from error
    buffer = io.BytesIO()
    torch.save({name: torch.tensor(value) for name, value in arrays.items()}, buffer)
    write_atomically(path, buffer.getvalue())


# --- safetensors ---------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> Arrays:
    try:
        import safetensors  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing(path, "safetensors", "safetensors") from error
    try:
        found = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: damaged .safetensors ({_line(error)}); get it again") from error
    arrays = {}
    for name, value in found:
        if value["dtype"] not in SAFETENSORS:
            raise InputError(f"{path}: {name} is {value['dtype']}; give floats")
        flat = np.frombuffer(value["data"], SAFETENSORS[value["dtype"]])
        arrays[name] = flat.reshape(value["shape"])
    return arrays


def write_safetensors(path: Path, arrays: Arrays) -> None:
    """Raises InputError without the package and where the file cannot be written."""
    try:
        from safetensors.numpy import save  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing(path, "safetensors", "safetensors") from error
    write_atomically(path, save(arrays))


def _line(error: Exception) -> str:
    text = str(error.args[0] if error.args else error).strip()  # a KeyError's str has quotes
    return text.splitlines()[0] if text else type(error).__name__


WRITERS: dict[str, Callable[[Path, Arrays], None]] = {
    ".pth": write_torch,
    ".pt": write_torch,
    ".safetensors": write_safetensors,
}
