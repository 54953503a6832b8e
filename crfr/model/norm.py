"""BatchNorm whose statistics are those of a group of images, which may span devices."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

# The one axis of the mesh: examples through the backbone, classes through the head.
AXIS = "devices"

Norm = Callable[[Array, bool], Array]  # (features, train) -> features


def group_mean(statistic: Float[Array, "*s c"], span: int) -> Float[Array, "*s c"]:
    """The mean of a statistic, of a sum too, over the `span` neighbouring devices of one group.

    Inside `jax.shard_map` over AXIS.  Collectives over groups of an axis do not exist there, so
    each group fills its own row of a small array and one all-reduce serves all groups.
    """
    if span == 1:
        return statistic
    groups = jax.lax.axis_size(AXIS) // span
    if groups == 1:
        return jax.lax.pmean(statistic, AXIS)
    mine = jax.lax.axis_index(AXIS) // span
    row = (jnp.arange(groups) == mine).reshape(-1, *[1] * statistic.ndim)
    return jax.lax.psum(jnp.where(row, statistic, 0), AXIS)[mine] / span


def _sums(a: Float[Array, "n *b c"], b: Float[Array, "n *b c"]) -> Float[Array, "2 c"]:
    """Each one's sums over all axes but the last, in one array.

    On a GPU over the images first, in one pass over both: what is left is small, and one kernel
    ends both sums, where XLA gives each its own.  On a CPU that takes longer
    (docs/performance.md).
    """

    def at_once(a: Array, b: Array) -> Array:
        axes = range(a.ndim - 1)
        return jnp.stack([a.sum(axes), b.sum(axes)])

    def images_first(a: Array, b: Array) -> Array:
        left = jnp.concatenate([a.sum(0), b.sum(0)], -1)
        return left.sum(range(left.ndim - 1)).reshape(2, -1)

    return jax.lax.platform_dependent(a, b, default=at_once, cuda=images_first, rocm=images_first)


def _widest(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalise(
    x: Float[Array, "*b c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    epsilon: float,
    span: int,
    rectify: bool,
) -> tuple[Float[Array, "*b c"], Float[Array, " c"], Float[Array, " c"]]:
    """(x normalised by the statistics of its group, their mean, their biased variance).

    `rectify`: with a ReLU behind it.  The gradient is that of the first result alone, in closed
    form: one pass over x for two sums, and one for the slope; the sign that the ReLU asks for is
    computed again from x, so that only x is kept.  Inside `jax.shard_map` scale and bias have to
    vary over AXIS as x does.
    """
    return _normalise(x, scale, bias, epsilon, span, rectify)[0]


def _normalise(
    x: Array, scale: Array, bias: Array, epsilon: float, span: int, rectify: bool
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    wide, count = x.astype(_widest(x)), x.size // x.shape[-1]
    total, squares = group_mean(_sums(wide, jnp.square(wide)), span)
    mean, square = total / count, squares / count
    var = jnp.maximum(square - jnp.square(mean), 0)
    y = affine(x, mean, var, scale, bias, epsilon)
    y = jnp.maximum(y, 0) if rectify else y
    return (y, mean, var), (x, mean, var, scale, bias)


def affine(
    x: Array,
    mean: ArrayLike,
    var: ArrayLike,
    scale: ArrayLike,
    bias: ArrayLike,
    epsilon: float,
) -> Float[Array, "*b c"]:
    """Centred before it is scaled, in the wide type: an offset rounded to bfloat16 would cost the
    digits that matter where the mean is large against the deviation.
    """
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return ((x.astype(_widest(x)) - mean) * factor + bias).astype(x.dtype)


def _gradient(
    epsilon: float,
    span: int,
    rectify: bool,
    kept: tuple[Array, ...],
    slopes: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array]:
    x, mean, var, scale, bias = kept
    count = x.size // x.shape[-1]
    slope, root = slopes[0].astype(_widest(x)), jax.lax.rsqrt(var + epsilon)
    if rectify:
        slope = jnp.where(affine(x, mean, var, scale, bias, epsilon) > 0, slope, 0)
    centred = (x.astype(_widest(x)) - mean) * root
    of_bias, of_scale = sums = _sums(slope, slope * centred)
    of_group = group_mean(sums, span)
    lost = of_group[0] / count + centred * (of_group[1] / count)
    of_x = (slope - lost) * (scale * root)
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


normalise.defvjp(_normalise, _gradient)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last; statistics in float32 or wider.

    In training the variables `mean` and `var` become those of the batch, the variance the biased
    one: the running statistics are made of them once a step (branches.py).

    epsilon: of the weight family (Keras 1.001e-5, torch and InsightFace 1e-5).
    span: the number of devices a group of images spans; 1 keeps the statistics on the device.
    rectify: with a ReLU behind it.
    """

    epsilon: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    span: int = 1
    rectify: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype)
        var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        if not train:
            y = affine(x, mean.value, var.value, scale, bias, self.epsilon)
            return (jnp.maximum(y, 0) if self.rectify else y).astype(self.dtype)
        found: Any = normalise(x, scale, bias, self.epsilon, self.span, self.rectify)
        y, batch_mean, batch_var = found
        if not self.is_initializing():
            mean.value, var.value = batch_mean, batch_var
        return y.astype(self.dtype)


class Affine(nn.Module):
    """`scale * x + bias`, one of each a channel: a BatchNorm in inference whose statistics are
    folded into it, where they cannot be folded into a neighbour (fold.py).
    """

    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        del train
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], self.param_dtype)
        return x * scale.astype(self.dtype) + bias.astype(self.dtype)
