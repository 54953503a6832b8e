"""A convolution whose kernel lies as GPUs read it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
        if self.size == 1:
            # a CPU's step of ResNet-50 takes 1.5 times as long with convolutions
            y = jax.lax.platform_dependent(x, kernel, cpu=self.multiply, default=self.convolve)
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

    def multiply(self, x: Array, kernel: Array) -> Array:
        """The same of a 1 x 1 kernel."""
        picked = x[:, :: self.stride, :: self.stride]
        return jnp.einsum("nhwc,dc->nhwd", picked, kernel[:, 0, 0])
