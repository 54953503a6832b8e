"""The state of a training run: one frozen pytree, and how it starts."""

import math
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from crfr.errors import unknown
from crfr.model.resnet import HEAD, ResNet
from crfr.views.degrade import SIDE

# Rows of the class matrix are padded to a multiple of this (a register's lanes on a TPU) and of the
# devices: most numbers of devices divide it, and their checkpoints have the same shapes.
CLASS_MULTIPLE = 128
COLUMNS = 64  # of the class matrix that are drawn at a time, at most


Shapes = Mapping[tuple[str, ...], tuple[int, ...]]  # of a tree's leaves, by their paths


@flax.struct.dataclass
class State:
    """step: finished updates, int32.  params: {"backbone": ..., "classes": [k d]}, k padded.

    The leaves are arrays, or their shapes or shardings.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any


def padded_classes(classes: int, devices: int = 1) -> int:
    """The rows of the class matrix for a number of identities, which the devices divide."""
    multiple = math.lcm(CLASS_MULTIPLE, devices)
    return -(-classes // multiple) * multiple


def draw_classes(
    key: Array, classes: int, rows: int, width: int, dtype: jnp.dtype
) -> Float[Array, "k d"]:
    """The first class matrix: `classes` rows of normal numbers of deviation 0.01, then zeros.

    The numbers of a row do not depend on how many rows come after it.  They are drawn a few columns
    at a time, because a compiler that does not fuse them, as XLA's for CPUs, would keep the bits of
    all beside the matrix.
    """
    columns = math.gcd(width, COLUMNS)
    real = jnp.arange(rows)[:, None] < classes

    def fill(block: Array, matrix: Array) -> Array:
        drawn = jax.random.normal(jax.random.fold_in(key, block), (rows, columns), dtype)
        part = jnp.where(real, 0.01 * drawn, 0)
        return jax.lax.dynamic_update_slice_in_dim(matrix, part, block * columns, axis=1)

    return jax.lax.fori_loop(0, width // columns, fill, jnp.zeros((rows, width), dtype))


def init_state(
    network: ResNet, classes: int, tx: optax.GradientTransformation, key: Array, devices: int = 1
) -> State:
    """A fresh state; a pure function of its arguments, for `jax.jit` with the state's sharding.

    The rows beyond the classes are 0.  They have no gradient and no decay, so they and the
    optimizer's stay 0, and a checkpoint may lose or gain such rows on its way to other devices.
    """
    backbone_key, class_key = jax.random.split(key)
    image = jnp.zeros((1, SIDE, SIDE, 3), network.param_dtype)
    variables = network.init(backbone_key, image)
    centres = draw_classes(
        class_key, classes, padded_classes(classes, devices), network.embedding, network.param_dtype
    )
    params = {"backbone": variables["params"], "classes": centres}
    return State(jnp.zeros((), jnp.int32), params, variables["batch_stats"], tx.init(params))


def difference(saved: Shapes, wanted: Shapes, classes: int) -> str | None:
    """The first array that was saved and is not as `wanted`, in words; None where there is none.

    But for the rows at the end of class matrices: of `classes` identities none may be missing.
    """
    for path, shape in wanted.items():
        found = saved.get(path)
        same = found == shape
        if found and len(shape) == 2 and "classes" in path:
            same = found[0] >= classes and found[1] == shape[1]
        if not same:
            name, for_classes = ".".join(path), f" for {classes} classes" if classes else ""
            return f"{name} is {found}, expected {shape}{for_classes}"
    more = saved.keys() - wanted.keys()
    return f"{'.'.join(min(more))} is not expected" if more else None


def decay_mask(params: Any, norm_and_bias: bool) -> Any:
    """True where weight decay applies: kernels and the class matrix; BatchNorm and biases on
    request.
    """

    def decays(path: tuple, _: Any) -> bool:
        return norm_and_bias or path[-1].key in ("kernel", "classes")

    return jax.tree_util.tree_map_with_path(decays, params)


def rates_of(params: Any, rates: Mapping[str, float]) -> Any:
    """The factor of the learning rate of every leaf, by its part: "classes" (the class matrix),
    "head" (the layers that make the embedding) or "trunk" (those before).
    """

    def rate(path: tuple, _: Any) -> float:
        names = [part.key for part in path]
        if names[0] == "classes":
            return rates["classes"]
        return rates["head" if names[1] in HEAD else "trunk"]

    return jax.tree_util.tree_map_with_path(rate, params)


def freeze(params: Any, rates: Mapping[str, float]) -> Any:
    """The parameters, those of rate 0 without a gradient: their backward pass is not computed."""
    return jax.tree.map(
        lambda leaf, rate: leaf if rate else jax.lax.stop_gradient(leaf),
        params,
        rates_of(params, rates),
    )


def make_optimizer(
    name: str,
    learning_rate: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    decay_norm_and_bias: bool,
    rates: Mapping[str, float],
) -> optax.GradientTransformation:
    """ "sgd": L2 added to the gradient before momentum (the paper's).  "adamw": decoupled decay.

    `rates` scales the learning rate of each part, and with it its decay; 0 leaves a part as it is.
    """

    def mask(params: Any) -> Any:
        return decay_mask(params, decay_norm_and_bias)

    if name == "sgd":
        tx = optax.chain(
            optax.add_decayed_weights(weight_decay, mask),
            optax.sgd(learning_rate, momentum),
        )
    elif name == "adamw":
        tx = optax.adamw(learning_rate, b1=momentum, weight_decay=weight_decay, mask=mask)
    else:
        raise unknown("optimizer.name", name, ("sgd", "adamw"))
    if set(rates.values()) == {1.0}:
        return tx

    def scale(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda u, rate: u * rate, updates, rates_of(updates, rates))

    return optax.chain(tx, optax.stateless(scale))
