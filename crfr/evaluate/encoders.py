"""Models to measure.  A MODEL is

- `WORKDIR[@STEP]`: the folder of a training run and one of its steps, or `WORKDIR@best`;
- `FILE.onnx[:KEY=VALUE,...]`: an ONNX model and how its input is made (onnx_spec.py);
- `FILE.stablehlo`: a model that crfr exported (exported.py);
- `module:function`: a Python function (foreign.py).
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from crfr import agreement
from crfr.errors import InputError
from crfr.evaluate.exported import SUFFIX, load_stablehlo
from crfr.evaluate.foreign import load_callable
from crfr.evaluate.onnx_model import load_onnx
from crfr.evaluate.onnx_spec import parse_onnx
from crfr.model.resnet import ResNet
from crfr.train import sharding
from crfr.train.checkpoint import Checkpoints
from crfr.views.degrade import SIDE
from crfr.workdir import checkpoint_folder, read_config

Build = Callable[[dict[str, Any]], ResNet]  # from a config
FORMS = "WORKDIR[@STEP|best], FILE.onnx[:KEY=VALUE,...], FILE.stablehlo or module:function"


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What makes embeddings, and what to call it in results.

    A crfr model has `network` and `variables`, any other `function`: pixels [b 112 112 3], RGB
    0..255, of the type `pixels` -> float32 [b d] on the host, not normalised.

    model: the spec without the step.  step: finished updates, None of others than crfr's.
    method: the training method, "onnx", "stablehlo" or "callable".  fingerprint: a hash of what
    makes the embeddings, which tells a model from another one of the same name and step.
    precision: of the network, or "model" where that is its own affair.  pixels: "float32" or
    "uint8", what the degraded image is given as.  runtime: what runs `function`.
    """

    model: str
    step: int | None
    method: str
    network: ResNet | None
    variables: Any
    fingerprint: str
    precision: str = "float32"
    pixels: str = "float32"
    function: Callable[[np.ndarray], np.ndarray] | None = None
    runtime: str | None = None  # what runs `function`, in words


def fingerprint(variables: Any) -> str:
    """A hash of all names and values of a tree of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def load_encoder(spec: str, build: Build) -> Encoder:
    """Load a MODEL; one of crfr at the latest step where none is given, in float32 and replicated.

    `build` makes the network of a config; of a checkpoint nothing else is read.  Raises InputError
    for a spec that names nothing, a step that is not there, and a model that does not take faces of
    112 px or return one embedding an image.
    """
    if Path(spec).is_dir():  # a folder's name may hold anything, an @ and a : too
        return _load_checkpoint(Path(spec), None, build)
    settings = parse_onnx(spec)
    if settings is not None:
        foreign, name, method = load_onnx(settings), spec, "onnx"
    elif spec.endswith(SUFFIX):
        foreign, name, method = load_stablehlo(Path(spec)), spec, "stablehlo"
    elif _is_callable(spec):
        foreign, name, method = load_callable(spec), spec, "callable"
    else:
        folder, at, number = spec.rpartition("@")
        folder = folder if at else spec
        if not Path(folder).is_dir() and (Path(folder).is_file() or ":" in folder):
            raise InputError(f"model {spec!r}: is none; a MODEL is {FORMS}")
        if at and number != "best" and not (number.isascii() and number.isdecimal()):
            raise InputError(f"model {spec!r}: the step after @ is not a number, nor best")
        asked = None if not at else number if number == "best" else int(number)
        return _load_checkpoint(Path(folder), asked, build)
    return Encoder(
        model=name,
        step=None,
        method=method,
        network=None,
        variables=None,
        fingerprint=foreign.fingerprint,
        precision="model",
        pixels=foreign.pixels,
        function=foreign.function,
        runtime=foreign.runtime,
    )


def _is_callable(spec: str) -> bool:
    parts = spec.split(":")
    if parts[0].endswith(".py"):  # a file, not the module `py` of a package
        return False
    return len(parts) == 2 and all(n.isidentifier() for part in parts for n in part.split("."))


def _load_checkpoint(workdir: Path, asked: int | str | None, build: Build) -> Encoder:
    if (workdir / "saved_model.pb").is_file():
        raise InputError(
            f"{workdir}: is a SavedModel, for TensorFlow alone; name the run that it was exported "
            "from, or export that as ONNX or StableHLO"
        )
    config = agreement.together(lambda: read_config(workdir))
    with Checkpoints(checkpoint_folder(workdir, config)) as checkpoints:
        step = checkpoints.choose(asked)
        if not step:
            raise agreement.SharedError(f"{workdir}: no checkpoint yet; go on with its training")
        network = build(config)
        image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
        shapes = jax.eval_shape(network.init, jax.random.key(0), image)
        whole = sharding.replicated(sharding.make_mesh())
        variables = checkpoints.restore_network(step, shapes, whole)
    return Encoder(
        model=str(workdir),
        step=step,
        method=config["method"],
        network=network,
        variables=variables,
        fingerprint=fingerprint(variables),
        precision=np.dtype(network.dtype).name,
    )
