"""Embeddings that are made by somebody else's code: a Python function, and the checks on whatever
it or an ONNX model returns.
"""

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from crfr.errors import InputError, one_line, unknown

WANTED = "a function takes uint8 RGB [b 112 112 3] and returns one embedding an image, [b d]"


class Foreign(NamedTuple):
    """function: pixels [b 112 112 3], RGB 0..255, of the type `pixels` ("float32" or "uint8") ->
    float32 [b d], not normalised.  fingerprint: a hash of what makes the embeddings.  runtime:
    what runs it, in words.
    """

    function: Callable[[np.ndarray], np.ndarray]
    pixels: str
    fingerprint: str
    runtime: str


def as_embeddings(name: str, result: Any, images: int) -> Float32[np.ndarray, "n d"]:
    """What `name` returned for a number of images, as float32 [n d] on the host.

    Arrays of NumPy, JAX and torch, and nested lists of numbers.  InputError for anything that is
    not numbers, not 2-D, or not one row an image; whether they are finite is asked later.
    """
    if all(hasattr(result, method) for method in ("detach", "cpu", "float")):  # a torch tensor
        result = result.detach().cpu().float()  # NumPy knows no bfloat16
    try:
        found = np.asarray(result)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name}: returned a {type(result).__name__} that NumPy cannot read "
            f"({one_line(error)}); {WANTED}"
        ) from error
    real = jnp.issubdtype(found.dtype, jnp.floating) or jnp.issubdtype(found.dtype, jnp.integer)
    if not real:
        raise InputError(
            f"{name}: returned a {type(result).__name__} of {found.dtype}, not of numbers; {WANTED}"
        )
    if found.ndim != 2 or len(found) != images or not found.shape[1]:
        raise InputError(
            f"{name}: returned shape {list(found.shape)} for {images} images, not [{images} d]; "
            "it has to return one row an image"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which is refused
        return found.astype(np.float32)


def load_callable(spec: str) -> Foreign:
    """The function `module:function`, or `module:Class.method` and other attributes of attributes.

    The module is imported with the current directory first on the path, which stays there for
    what it imports later.  The fingerprint is of the module's own source file and the function's
    name: weights that it reads from elsewhere are not in it.  InputError where there is no such
    module or attribute, where importing or calling raises, and as `as_embeddings`.
    """
    name, _, attributes = spec.partition(":")
    module = _import(spec, name)
    found: Any = module
    for part, attribute in enumerate(attributes.split(".")):
        owner = ".".join([name, *attributes.split(".")[:part]])
        if not hasattr(found, attribute):
            known = [n for n in dir(found) if n[0] != "_" and callable(getattr(found, n, None))]
            raise unknown(f"attribute of {owner}", attribute, known)
        found = getattr(found, attribute)
    if not callable(found):
        raise InputError(
            f"{spec}: cannot be called, being of type {type(found).__name__}; {WANTED}"
        )

    def embed(pixels: UInt8[np.ndarray, "b 112 112 3"]) -> Float32[np.ndarray, "b d"]:
        try:
            # A copy: it may write into the array, and torch warns of one that it could not.
            result = found(np.array(pixels, order="C"))
        except (Exception, SystemExit) as error:  # somebody else's code raises anything
            raise InputError(f"{spec}: raised {_described(error)}; {WANTED}") from error
        return as_embeddings(spec, result, len(pixels))

    file = getattr(module, "__file__", None)  # a module that is built in has none
    source = Path(file).read_bytes() if file else b""
    digest = hashlib.sha256(spec.encode() + b"\0" + source).hexdigest()[:16]
    return Foreign(embed, "uint8", digest, "Python")


def _import(spec: str, name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f"{spec}: module {name!r} needs {error.name!r}, which is not installed"
            ) from error
        raise InputError(
            f"{spec}: no module {error.name!r} in {here} or among the installed packages; go to "
            "the folder that holds it, or set PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:  # somebody else's code raises anything
        raise InputError(f"{spec}: importing {name!r} raised {_described(error)}") from error


def _described(error: BaseException) -> str:
    """Type, message and place of an error, in one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} ({one_line(error)}) at {place.filename}:{place.lineno}"
