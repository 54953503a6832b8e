"""BatchNorm folded into its neighbours, for inference: fewer operations, the same embeddings.

With its running statistics a BatchNorm is `a x + b` a channel.  Behind a convolution it goes into
the kernel and a bias.  Around the dense layer of head E both go into it, the one in front of it a
channel at a time.  In front of an IR block it stays `a x + b`: the convolution behind it pads with
zeros, which stand for zeros behind the BatchNorm and not in front of it, and the sum takes the
features without it.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float64

from crfr.model.resnet import ResNet

Tree = Any  # a nested dict of arrays
Channels = Float64[np.ndarray, " c"]


def fold(network: ResNet, variables: Tree) -> tuple[ResNet, Tree]:
    """(the network without the BatchNorms that can go, {"params": its parameters}).

    `network.apply(variables, images)` of what is returned gives the embeddings of the arguments',
    to the precision of the network's types.  The products are made in float64, on the host, and
    rounded once: to the narrower of `network.param_dtype` and `network.dtype`, as a network in
    bfloat16 would round every one of them again for each batch.
    """
    trees = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(variables))
    params, stats = trees["params"], trees["batch_stats"]
    epsilon = network.bn_epsilon
    folded: Tree = {}
    behind = {"conv_stem": "norm_stem"}
    folded |= _fold_convolutions(params, stats, behind, epsilon)
    if "prelu_stem" in params:
        folded["prelu_stem"] = params["prelu_stem"]
    improved = network.block == "iresnet"
    for name in params:
        if name.startswith("stage"):
            block, block_stats = params[name], stats[name]
            numbers = [n.removeprefix("conv") for n in block if n.startswith("conv")]
            behind = {f"conv{n}": f"norm{n}" for n in numbers}
            if improved:  # norm0 is in front of conv0
                behind |= {"conv0": "norm1", "conv1": "norm2"}
            folded[name] = _fold_convolutions(block, block_stats, behind, epsilon)
            if improved:
                scale, bias = _affine(block["norm0"], block_stats["norm0"], epsilon)
                folded[name] |= {"norm0": {"scale": scale, "bias": bias}, "prelu": block["prelu"]}
    folded["dense"] = _fold_dense(params, stats, epsilon)
    narrower = min(network.param_dtype, network.dtype, key=lambda dtype: dtype.itemsize)
    folded = jax.tree.map(lambda leaf: np.asarray(leaf, narrower), folded)
    return network.clone(folded=True, param_dtype=narrower), {"params": folded}


def _affine(norm: Tree, statistics: Tree, epsilon: float) -> tuple[Channels, Channels]:
    """(a, b) of a BatchNorm that is `a x + b`."""
    scale = norm["scale"] / np.sqrt(statistics["var"] + epsilon)
    return scale, norm["bias"] - statistics["mean"] * scale


def _fold_convolutions(
    params: Tree, stats: Tree, behind: dict[str, str], epsilon: float
) -> dict[str, Tree]:
    """Convolutions with the BatchNorm behind each, by their names in `behind`."""
    folded = {}
    for conv, norm in behind.items():
        scale, bias = _affine(params[norm], stats[norm], epsilon)
        # kernels are [out height width in]
        kernel = params[conv]["kernel"] * scale[:, None, None, None]
        folded[conv] = {"kernel": kernel, "bias": bias}
    return folded


def _fold_dense(params: Tree, stats: Tree, epsilon: float) -> Tree:
    """The dense layer with head E's BatchNorms in front of and behind it, where they are."""
    kernel = params["dense"]["kernel"]
    bias = params["dense"].get("bias", np.zeros(kernel.shape[1]))
    if "norm_features" in params:
        scale, shift = _affine(params["norm_features"], stats["norm_features"], epsilon)
        places = len(kernel) // len(scale)  # features are flattened with the channels last
        bias = bias + np.tile(shift, places) @ kernel
        kernel = np.tile(scale, places)[:, None] * kernel
    if "norm_embedding" in params:
        scale, shift = _affine(params["norm_embedding"], stats["norm_embedding"], epsilon)
        kernel, bias = kernel * scale, bias * scale + shift
    return {"kernel": kernel, "bias": bias}
