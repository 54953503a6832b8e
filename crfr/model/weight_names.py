"""What the arrays of a network are called, and how they lie, in the files of other frameworks."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from crfr.errors import InputError

SHOWN = 10  # names of each kind in an error

Leaf = tuple[str, ...]  # ("params", "stage0_block1", "conv0", "kernel")

KERAS = {
    "kernel": "kernel", "scale": "gamma", "bias": "beta",
    "mean": "moving_mean", "var": "moving_variance",
}  # fmt: skip
TORCH = {
    "kernel": "weight", "scale": "weight", "bias": "bias", "slope": "weight",
    "mean": "running_mean", "var": "running_var",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Entry:
    """A leaf of ours and its array in a file.

    shape: in the file.  bias: the file's bias in front of this running mean, or "": a convolution's
    bias b before a BatchNorm is the running mean m - b.
    """

    leaf: Leaf
    name: str
    shape: tuple[int, ...]
    bias: str
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_file: Callable[[np.ndarray], np.ndarray]


def keras_layer(module: tuple[str, ...]) -> str | None:
    """Of keras.applications.ResNet50 as it is today; None for what it has not."""
    if len(module) == 1:
        return {"conv_stem": "conv1_conv", "norm_stem": "conv1_bn"}.get(module[0])
    stage, block, part = _parts(module)
    kind, number = ("conv", part[4:]) if part.startswith("conv") else ("bn", part[4:])
    number = 0 if number == "_shortcut" else int(number) + 1
    return f"conv{stage + 2}_block{block + 1}_{number}_{kind}"


def old_keras_layer(module: tuple[str, ...]) -> str | None:
    """Of the files of 2015 to 2018."""
    if len(module) == 1:
        return {"conv_stem": "conv1", "norm_stem": "bn_conv1"}.get(module[0])
    stage, block, part = _parts(module)
    kind, number = ("res", part[4:]) if part.startswith("conv") else ("bn", part[4:])
    branch = "1" if number == "_shortcut" else f"2{'abc'[int(number)]}"
    return f"{kind}{stage + 2}{'abcdef'[block]}_branch{branch}"


def torchvision_layer(module: tuple[str, ...]) -> str | None:
    """Of torchvision's and timm's ResNets."""
    if len(module) == 1:
        return {"conv_stem": "conv1", "norm_stem": "bn1"}.get(module[0])
    return _torch_block(module)


def insightface_layer(module: tuple[str, ...]) -> str | None:
    """Of arcface_torch's IResNet, embedding head and all."""
    if len(module) == 1:
        return {
            "conv_stem": "conv1", "norm_stem": "bn1", "prelu_stem": "prelu",
            "norm_features": "bn2", "dense": "fc", "norm_embedding": "features",
        }[module[0]]  # fmt: skip
    return _torch_block(module)


def _parts(module: tuple[str, ...]) -> tuple[int, int, str]:
    stage, block = module[0].removeprefix("stage").split("_block")
    return int(stage), int(block), module[1]


def _torch_block(module: tuple[str, ...]) -> str:
    stage, block, part = _parts(module)
    special = {"conv_shortcut": "downsample.0", "norm_shortcut": "downsample.1", "prelu": "prelu"}
    if part in special:
        name = special[part]
    else:
        name = f"{'conv' if part.startswith('conv') else 'bn'}{int(part[4:]) + 1}"
    return f"layer{stage + 1}.{block}.{name}"


def keras_entries(shapes: Any, *, old: bool) -> tuple[list[Entry], list[Leaf]]:
    """(the leaves that Keras' file has, those it has not) of a tree of shapes {"params",
    "batch_stats"}.

    Kernels lie as [height width in out]; the stem's takes B, G, R.
    """
    layer = old_keras_layer if old else keras_layer

    def entry(leaf: Leaf, shape: tuple[int, ...]) -> Entry | None:
        name = layer(leaf[1:-1])
        if name is None:
            return None
        bias, to_ours, to_file = "", _same, _same
        if len(shape) == 4:
            o, h, w, i = shape
            shape, to_ours, to_file = (h, w, i, o), _from_hwio, _to_hwio
            if leaf[1] == "conv_stem":
                to_ours, to_file = _from_flipped_hwio, _to_flipped_hwio
        elif leaf[-1] == "mean":
            bias = f"{layer(_convolution(leaf))}/bias"
        return Entry(leaf, f"{name}/{KERAS[leaf[-1]]}", shape, bias, to_ours, to_file)

    return _split(shapes, entry)


def torch_entries(shapes: Any, *, insightface: bool) -> tuple[list[Entry], list[Leaf]]:
    """The same of torchvision's or InsightFace's file.

    Kernels lie as [out in height width]; fc's columns are flattened from [channel height width].
    """
    layer = insightface_layer if insightface else torchvision_layer

    def entry(leaf: Leaf, shape: tuple[int, ...]) -> Entry | None:
        name = layer(leaf[1:-1])
        if name is None:
            return None
        bias, to_ours, to_file = "", _same, _same
        if len(shape) == 4:
            o, h, w, i = shape
            shape, to_ours, to_file = (o, i, h, w), _from_oihw, _to_oihw
        elif leaf[-1] == "kernel":
            channels = shapes["params"]["norm_features"]["scale"].shape[0]
            shape, to_ours, to_file = shape[::-1], _from_chw(channels), _to_chw(channels)
        elif leaf[1:] == ("norm_embedding", "mean"):
            bias = f"{layer(('dense',))}.bias"
        return Entry(leaf, f"{name}.{TORCH[leaf[-1]]}", shape, bias, to_ours, to_file)

    return _split(shapes, entry)


def _split(
    shapes: Any, entry: Callable[[Leaf, tuple[int, ...]], Entry | None]
) -> tuple[list[Entry], list[Leaf]]:
    found, absent = [], []
    for collection in ("params", "batch_stats"):  # in this order an error names them
        for path, shape in jax.tree_util.tree_flatten_with_path(shapes[collection])[0]:
            leaf = (collection, *(key.key for key in path))
            made = entry(leaf, shape.shape)
            if made is None:
                absent.append(leaf)
            else:
                found.append(made)
    return found, absent


def check_names(
    path: Path,
    entries: list[Entry],
    arrays: Mapping[str, np.ndarray],
    architectures: Mapping[str, tuple],
) -> None:
    """Raises InputError with the names that are missing, unexpected and differently shaped, and
    with which of the `architectures` (resnet.ARCHITECTURES) it looks like.
    """
    wanted = {entry.name: entry.shape for entry in entries}
    biases = {entry.bias: entry.shape for entry in entries if entry.bias}
    expected = wanted | biases
    missing = [n for n in wanted if n not in arrays]
    spare = re.compile(r".*num_batches_tracked|(predictions|fc1000)/.*|fc\.(weight|bias)")
    unexpected = [n for n in arrays if n not in expected and not spare.fullmatch(n)]
    shaped = [
        f"{n} {arrays[n].shape} instead of {shape}"
        for n, shape in expected.items()
        if n in arrays and arrays[n].shape != shape
    ]
    lists = {"missing": missing, "unexpected": unexpected, "differently shaped": shaped}
    found = [
        f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for kind, names in lists.items()
        if names
    ]
    if found:
        like = _likeness(arrays, architectures)
        if not missing and not unexpected:
            advice = "compare model.width and model.embedding with the file's"
        else:
            advice = f"it looks like {like}" if like else "give the weights of this network"
        raise InputError(f"{path}: weights of another network: {'; '.join(found)}; {advice}")


def _likeness(arrays: Mapping[str, np.ndarray], architectures: Mapping[str, tuple]) -> str | None:
    """The name of the network whose blocks a torch file has."""
    found = [m for m in (re.match(r"layer(\d)\.(\d+)\.(\w+)", name) for name in arrays) if m]
    parts = {m[3] for m in found}
    kind = "iresnet" if "prelu" in parts else "bottleneck" if "conv3" in parts else "basic"
    counts = tuple(len({m[2] for m in found if m[1] == str(stage)}) for stage in range(1, 5))
    names = [
        name for name, (stages, _, k) in architectures.items() if (stages, k) == (counts, kind)
    ]
    return f"model.name={names[0]}" if names else None


def _convolution(leaf: Leaf) -> tuple[str, ...]:
    """The module of the convolution in front of a BatchNorm's leaf."""
    return (*leaf[1:-2], leaf[-2].replace("norm", "conv"))


def _same(a: np.ndarray) -> np.ndarray:
    return a


def _from_hwio(a: np.ndarray) -> np.ndarray:
    return a.transpose(3, 0, 1, 2)


def _to_hwio(a: np.ndarray) -> np.ndarray:
    return a.transpose(1, 2, 3, 0)


def _from_flipped_hwio(a: np.ndarray) -> np.ndarray:
    return _from_hwio(a[:, :, ::-1])


def _to_flipped_hwio(a: np.ndarray) -> np.ndarray:
    return _to_hwio(a)[:, :, ::-1]


def _from_oihw(a: np.ndarray) -> np.ndarray:
    return a.transpose(0, 2, 3, 1)


def _to_oihw(a: np.ndarray) -> np.ndarray:
    return a.transpose(0, 3, 1, 2)


def _from_chw(channels: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: a.reshape(len(a), channels, -1).transpose(2, 1, 0).reshape(-1, len(a))


def _to_chw(channels: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: a.T.reshape(a.shape[1], -1, channels).transpose(0, 2, 1).reshape(-1, len(a))
