"""BatchNorm whose statistics are those of a group of images, which may span devices."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

AXIS = (
    "devices"  # the one axis of the mesh: examples through the backbone, classes through the head
)

Norm = Callable[[Array, bool], Array]  # (features, train) -> features


def group_mean(statistic: Float[Array, " c"], span: int) -> Float[Array, " c"]:
    """The mean of a statistic over the `span` neighbouring devices that hold one group.

    Inside `jax.shard_map` over AXIS.  Collectives over groups of an axis do not exist there, so
    each group fills its own row of a small array and one all-reduce serves all groups.
    """
    if span == 1:
        return statistic
    groups = jax.lax.axis_size(AXIS) // span
    if groups == 1:
        return jax.lax.pmean(statistic, AXIS)
    mine = jax.lax.axis_index(AXIS) // span
    row = (jnp.arange(groups) == mine)[:, None]
    return jax.lax.psum(jnp.where(row, statistic, 0), AXIS)[mine] / span


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last; statistics in float32 or wider.

    epsilon, momentum: of the weight family (Keras 1.001e-5, torch and InsightFace 1e-5); momentum
    is the
      share of the running statistic that is kept.  The running variance is the biased one.
    span: the number of devices a group of images spans; 1 keeps the statistics on the device.
    """

    epsilon: float
    momentum: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    span: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype)
        var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if train:
            axes = tuple(range(x.ndim - 1))
            batch_mean = group_mean(wide.mean(axes), self.span)
            batch_square = group_mean(jnp.square(wide).mean(axes), self.span)
            batch_var = jnp.maximum(batch_square - jnp.square(batch_mean), 0)
            if not self.is_initializing():
                kept = self.momentum
                mean.value = kept * mean.value + (1 - kept) * batch_mean
                var.value = kept * var.value + (1 - kept) * batch_var
        else:
            batch_mean, batch_var = mean.value, var.value
        # centred before it is scaled, in the wide type: an offset rounded to bfloat16 would cost
        # the digits that matter where the mean is large against the deviation
        factor = scale * jax.lax.rsqrt(batch_var + self.epsilon)
        return ((wide - batch_mean) * factor + bias).astype(self.dtype)


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
