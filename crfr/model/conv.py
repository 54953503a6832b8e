"""A convolution whose kernel lies as GPUs read it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from crfr.model import conv_cpu


class Conv(nn.Module):
    """2-D convolution, symmetric padding of half the kernel; kernel [out height width in].

    That order is cuDNN's beside images of [n h w c].  In Flax's, [height width in out], each update
    would turn a kernel, and copy it, as it could not be written in place (docs/performance.md).
    """

    channels: int
    size: int
    stride: int
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j d"]:
        shape = (self.channels, self.size, self.size, x.shape[-1])
        init = nn.initializers.he_normal(in_axis=-1, out_axis=0)
        kernel = self.param("kernel", init, shape, self.param_dtype)
        x, kernel = jnp.asarray(x, self.dtype), jnp.asarray(kernel, self.dtype)
        if (product := conv_cpu.instead(x, kernel, self.stride)) is not None:
            y = jax.lax.platform_dependent(x, kernel, cpu=product, default=self.convolve)
        else:
            y = self.convolve(x, kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape[:1], self.param_dtype)
            y += bias.astype(self.dtype)
        return y

    def convolve(self, x: Array, kernel: Array) -> Array:
        strides, padding = [self.stride] * 2, [(self.size // 2, self.size // 2)] * 2
        layout = ("NHWC", "OHWI", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout)
