"""Parts of InsightFace's IR networks ("improved" residual networks; ArcFace's backbones).

They differ from other ResNets in three ways: a 3x3 stem that keeps the 112 px and no max-pool, a
first block that strides in every stage, and blocks that begin with BatchNorm, have one PReLU in
their middle and none behind their sum.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from crfr.model.conv import Conv
from crfr.model.norm import Norm


class PReLU(nn.Module):
    """x where it is positive, slope * x elsewhere; one slope a channel."""

    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:], self.param_dtype)
        return jnp.where(x > 0, x, slope.astype(self.dtype) * x)


class IRBlock(nn.Module):
    """BN - 3x3 - BN - PReLU - 3x3 (strides) - BN, plus the input or its strided 1x1 and BN.

    `first` makes the BatchNorm in front of the block, `norm` those behind convolutions.
    """

    channels: int
    stride: int
    conv: Callable[..., Conv]
    first: Callable[..., Norm]
    norm: Callable[..., Norm]
    prelu: Callable[..., PReLU]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n i j e"]:
        y = self.first(name="norm0")(x, train)
        y = self.conv(self.channels, 3, 1, name="conv0")(y)
        y = self.prelu(name="prelu")(self.norm(name="norm1")(y, train))
        y = self.conv(self.channels, 3, self.stride, name="conv1")(y)
        y = self.norm(name="norm2")(y, train)
        if x.shape != y.shape:
            x = self.conv(self.channels, 1, self.stride, name="conv_shortcut")(x)
            x = self.norm(name="norm_shortcut")(x, train)
        return x + y
