"""Where a training starts from: the weights of a file, or of another run of crfr.

Only the backbone comes with them, embedding head included where they have one.  The class matrix is
made anew, as the identities are others.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from crfr.errors import InputError
from crfr.evaluate.encoders import fingerprint, load_encoder
from crfr.model.resnet import ResNet
from crfr.model.weights import fill, load_backbone
from crfr.networks import build_for_evaluation
from crfr.train.state import State

FILES = (".h5", ".keras", ".pth", ".pt", ".safetensors")
PROGRAMS = (".onnx", ".stablehlo", ".py")  # files that give embeddings, not weights
# What has to be alike for weights to mean the same: attributes of the network and the keys of
# config.model that set them.
ALIKE = {
    "stages": "name",
    "block": "name",
    "width": "width",
    "stride_first": "version",
    "head": "head",
    "embedding": "embedding",
    "input_mean": "input_mean",
    "input_std": "input_std",
    "bn_epsilon": "bn_epsilon",
}


def start_from(spec: str, found: tuple[Any, list[str]], state: State) -> tuple[State, str]:
    """(a fresh state with the weights of `spec` in it, their fingerprint).

    `found` is what `find_weights` gave.  What the weights have not, such as the embedding head of
    an ImageNet network, stays fresh and is named on stdout.
    """
    variables, absent = found
    fresh = {"params": state.params["backbone"], "batch_stats": state.batch_stats}
    whole = fill(fresh, variables)
    placed = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), whole, fresh)
    anew = ", ".join([*absent, "the class matrix"])
    print(f"starts from {spec}; made anew: {anew}", flush=True)
    params = state.params | {"backbone": placed["params"]}
    started = State(state.step, params, placed["batch_stats"], state.opt_state)
    return started, fingerprint(jax.tree.map(np.asarray, variables))


def is_file(spec: str) -> bool:
    """Whether weights are those of a file, and not of a run of crfr: a file may have any name, and
    one of a usual name need not be there.
    """
    path = Path(spec)
    if path.suffix in FILES:
        return not path.is_dir()
    return path.suffix not in PROGRAMS and path.is_file()


def find_weights(spec: str, network: ResNet, *, bn_frozen: bool = False) -> tuple[Any, list[str]]:
    """(weights of `spec` for a network, the parts that they lack).

    `spec` is a file of weights.py's table or `WORKDIR[@STEP]`.  Raises InputError for one that
    names nothing, for weights of another network and, with `bn_frozen`, for those without the
    statistics of a BatchNorm.
    """
    if not is_file(spec):
        return _of_run(spec, network), []
    found = load_backbone(Path(spec), network)
    fresh = sorted({leaf[1] for leaf in found.absent if leaf[0] == "batch_stats"})
    if bn_frozen and fresh:
        raise InputError(
            f"--config.model.bn_frozen=True: {spec} has no statistics of {', '.join(fresh)} to "
            "keep; give --config.model.bn_frozen=False, or --config.model.head=plain, which has no "
            "BatchNorm"
        )
    return found.variables, sorted({leaf[1] for leaf in found.absent})


def _of_run(spec: str, network: ResNet) -> Any:
    encoder = load_encoder(spec, build_for_evaluation)
    if encoder.network is None:
        raise InputError(
            f"--config.init.weights={spec}: gives embeddings, not weights; name a training run or "
            f"a file of weights ({', '.join(FILES)})"
        )
    other = {
        key: f"{key} (there {getattr(encoder.network, name)!r}, here {getattr(network, name)!r})"
        for name, key in ALIKE.items()
        if getattr(encoder.network, name) != getattr(network, name)
    }
    if other:
        raise InputError(
            f"--config.init.weights={spec}: is another network, by config.model's "
            f"{', '.join(other.values())}; give this training the same"
        )
    return encoder.variables
