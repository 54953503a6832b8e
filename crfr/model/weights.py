"""Weights of other frameworks, into our parameter tree and, for IR networks, out of it again.

| file | networks | keys of `model` that belong to it |
|---|---|---|
| keras.applications' ResNet50 .h5 (both namings) | resnet50 | version v1, input_mean 123.68 116.779 103.939, input_std 1 1 1, bn_epsilon 1.001e-5 |
| torchvision's and timm's ResNets (.pth, .safetensors) | resnet50, resnet18 | version v1.5 (resnet50), input_mean 123.675 116.28 103.53, input_std 58.395 57.12 57.375, bn_epsilon 1e-5 |
| InsightFace's IR backbone.pth (.safetensors too) | iresnet18 34 50 100 | head E, input_mean and input_std 127.5, bn_epsilon 1e-5 |

With these a network gives its own framework's features to float32's precision; with others it would
give different ones, so they are refused.  A mean cannot be folded into the stem instead: its zero
padding stands for the mean.  What Keras reads as B, G, R is turned to R, G, B in the stem.  Biases
in front of a BatchNorm are folded into its running mean.
"""  # noqa: E501

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crfr.errors import InputError, unknown
from crfr.model.resnet import ARCHITECTURES, ResNet
from crfr.model.weight_files import WRITERS, Arrays, is_keras, read_arrays
from crfr.model.weight_names import Entry, Leaf, check_names, keras_entries, torch_entries
from crfr.views.degrade import SIDE

Tree = Any  # a nested dict of arrays or their shapes

_SETTINGS: dict[str, dict[str, Any]] = {
    "Keras": {
        "version": "v1",
        "input_mean": (123.68, 116.779, 103.939),
        "input_std": (1.0, 1.0, 1.0),
        "bn_epsilon": 1.001e-5,
    },
    "torchvision": {
        "version": "v1.5",
        "input_mean": (123.675, 116.28, 103.53),
        "input_std": (58.395, 57.12, 57.375),
        "bn_epsilon": 1e-5,
    },
    "InsightFace": {
        "head": "E",
        "input_mean": (127.5, 127.5, 127.5),
        "input_std": (127.5, 127.5, 127.5),
        "bn_epsilon": 1e-5,
    },
}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a file holds of a network.

    variables: {"params": ..., "batch_stats": ...} of NumPy arrays in the network's param_dtype,
    without the leaves in `absent`, which are left to a fresh start (`fill`): ImageNet's files have
    no embedding head.
    """

    variables: Tree
    absent: tuple[Leaf, ...]


def weight_settings(path: Path, name: str) -> dict[str, Any]:
    """The values of `config.model` that belong to a file's weights in the network `name`.

    Reads no more than the file's first bytes.  Raises InputError for a file that is not there.
    """
    if name not in ARCHITECTURES:
        raise unknown("model.name", name, ARCHITECTURES)
    return _settings(path, ARCHITECTURES[name][2])


def load_backbone(path: Path, network: ResNet) -> Pretrained:
    """The weights of a file for a network.

    Half-precision arrays are up-cast, and stderr says so.  Raises InputError for a file that cannot
    be read, a network with other settings than `weight_settings`, names and shapes of another
    architecture, and values that are no finite floats.
    """
    settings = _settings(path, network.block)
    arrays = _plain_names(read_arrays(path))
    alike = network.clone(head=settings.get("head", network.head))
    entries, absent = _entries(alike, _family(path, network.block), arrays)
    # first: the settings of a family say nothing where the weights are another network's
    check_names(path, entries, arrays, ARCHITECTURES)
    _check_settings(path, network, settings)
    notes = set()
    variables: Tree = {"params": {}, "batch_stats": {}}
    for entry in entries:
        value = _floats(path, entry.name, arrays[entry.name], notes)
        if entry.bias in arrays:
            value = value - _floats(path, entry.bias, arrays[entry.bias], notes)
        if entry.leaf[-1] == "var" and (value < 0).any():
            raise InputError(f"{path}: {entry.name} has variances below 0; get the file again")
        node = variables
        for key in entry.leaf[:-1]:
            node = node.setdefault(key, {})
        node[entry.leaf[-1]] = np.ascontiguousarray(entry.to_ours(value), network.param_dtype)
    for note in sorted(notes):
        print(f"crfr: {path}: {note}", file=sys.stderr)
    return Pretrained(variables, tuple(absent))


def fill(fresh: Tree, found: Tree) -> Tree:
    """`fresh` with the leaves that `found` has in place of its own."""
    if not isinstance(fresh, dict):
        return found
    return {key: fill(v, found[key]) if key in found else v for key, v in fresh.items()}


def save_backbone(path: Path, variables: Tree, network: ResNet) -> None:
    """Write an IR network as the state dict of InsightFace's definition (.pth, .pt, .safetensors).

    `variables` are whole: {"params", "batch_stats"}.  The bias of fc, which is part of a running
    mean here, is written as 0.  Raises InputError for another network, or one whose settings that
    definition does not know.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"{path}: give a name that ends in {', '.join(WRITERS)}")
    if network.block != "iresnet":
        raise InputError(
            f"{path}: only IR networks (model.name=iresnet50, ...) have InsightFace's form"
        )
    _check_settings(path, network, _SETTINGS["InsightFace"])
    entries, _ = _entries(network, "InsightFace", {})
    arrays = {}
    for entry in entries:
        value: Any = variables
        for key in entry.leaf:
            value = value[key]
        value = entry.to_file(np.asarray(value, np.float32))
        arrays[entry.name] = np.ascontiguousarray(value)
        if entry.bias:
            arrays[entry.bias] = np.zeros(entry.shape, np.float32)
        if entry.leaf[-1] == "var":
            layer = entry.name.removesuffix("running_var")
            arrays[f"{layer}num_batches_tracked"] = np.zeros((), np.int64)
    WRITERS[path.suffix](path, arrays)


def _family(path: Path, block: str) -> str:
    if is_keras(path):
        if block != "bottleneck":
            raise InputError(
                f"{path}: Keras' .h5 is read into ResNet-50 alone; give model.name=resnet50, or "
                "another file"
            )
        return "Keras"
    return "InsightFace" if block == "iresnet" else "torchvision"


def _settings(path: Path, block: str) -> dict[str, Any]:
    settings = _SETTINGS[_family(path, block)]
    # of two forms, where there are two
    return {k: v for k, v in settings.items() if k != "version" or block == "bottleneck"}


def _entries(network: ResNet, family: str, arrays: Arrays) -> tuple[list[Entry], list[Leaf]]:
    image = jnp.zeros((1, SIDE, SIDE, 3), network.param_dtype)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    if family == "Keras":
        return keras_entries(shapes, old=any(name.startswith("res2a_") for name in arrays))
    return torch_entries(shapes, insightface=family == "InsightFace")


def _check_settings(path: Path, network: ResNet, settings: dict[str, Any]) -> None:
    """Raises InputError where the network computes something else than the file's own would."""
    own = {
        "version": "v1" if network.stride_first else "v1.5",
        "head": network.head,
        "input_mean": network.input_mean,
        "input_std": network.input_std,
        "bn_epsilon": network.bn_epsilon,
    }
    other = [key for key, value in settings.items() if not _same(own[key], value)]
    if other:
        has = ", ".join(f"model.{key}={own[key]}" for key in other)
        needs = " ".join(f'--config.model.{key}="{settings[key]}"' for key in other)
        raise InputError(f"{path}: these weights do not go with {has}; set {needs}")


def _same(a: Any, b: Any) -> bool:
    if isinstance(b, str):
        return a == b
    pairs = zip(a, b, strict=True) if isinstance(b, tuple) else [(a, b)]
    return all(math.isclose(x, y, rel_tol=1e-6) for x, y in pairs)


def _plain_names(arrays: Arrays) -> Arrays:
    """Without the `module.` that saving a wrapped torch module leaves before every name."""
    if all(name.startswith("module.") for name in arrays):
        return {name.removeprefix("module."): value for name, value in arrays.items()}
    return arrays


def _floats(path: Path, name: str, value: np.ndarray, notes: set[str]) -> np.ndarray:
    """In float64.  Raises InputError for what is no finite float, as a float32 either."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(f"{path}: {name} is {value.dtype}; give floats")
    if value.dtype.itemsize < 4:
        notes.add(f"half precision ({value.dtype}), up-cast to float32")
    wide = value.astype(np.float64)
    if not (np.abs(wide) <= np.finfo(np.float32).max).all():
        raise InputError(
            f"{path}: {name} holds NaN or infinite values, in float32; get the file again"
        )
    return wide
