"""Models to measure: a MODEL is `WORKDIR[@STEP]`, the folder of a training run and one of its
steps.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from crfr.errors import InputError
from crfr.model.resnet import ResNet
from crfr.train import sharding
from crfr.train.checkpoint import Checkpoints
from crfr.train.state import init_state
from crfr.workdir import read_config, read_starts


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A network with its variables, and what to call it in results.

    model: the spec without the step.  step: finished updates.  fingerprint: a hash of the
    variables, which tells a model from another one of the same name and step.
    """

    model: str
    step: int
    method: str
    network: ResNet
    variables: Any
    fingerprint: str


def fingerprint(variables: Any) -> str:
    """A hash of all names and values of a tree of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def load_encoder(
    spec: str,
    build: Callable[[dict[str, Any]], tuple[ResNet, optax.GradientTransformation]],
) -> Encoder:
    """Load `WORKDIR[@STEP]`, the latest step where none is given, in float32 and replicated.

    `build` makes the network and the optimizer (whose state lies in the checkpoint too) from a
    config. Raises InputError for a folder that is no training run and a step that is not there.
    """
    folder, at, number = spec.rpartition("@")
    if Path(spec).is_dir() or not at:  # a folder's name may hold an @
        folder, at = spec, ""
    if at and not (number.isascii() and number.isdecimal()):
        raise InputError(f"model {spec!r}: the step after @ is not a number")
    workdir = Path(folder)
    config = read_config(workdir)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        step = int(number) if at else max(steps, default=0)
        if step not in steps:
            raise InputError(
                f"{workdir}: no checkpoint of step {step}; there are {steps or 'none'}"
            )
        classes = read_starts(workdir)[-1]["classes"]
        network, tx = build(config)
        shapes = jax.eval_shape(partial(init_state, network, classes, tx), jax.random.key(0))
        whole = sharding.replicated(sharding.make_mesh())
        state = checkpoints.restore(step, shapes, jax.tree.map(lambda _: whole, shapes))
    variables = {"params": state.params["backbone"], "batch_stats": state.batch_stats}
    return Encoder(str(workdir), step, config["method"], network, variables, fingerprint(variables))
