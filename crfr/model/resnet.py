"""ResNets for 112 x 112 x 3 faces with an embedding head (paper section 3.1; ArcFace's option E).

ResNet-50 in both published forms: v1 strides in a block's first 1x1 convolution (Keras' ImageNet
weights), v1.5 in its 3x3 (torchvision's, timm's).  InsightFace's IR networks (iresnet.py).  All
padding is explicit and symmetric, as in all these families.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from crfr.errors import InputError, unknown
from crfr.model.conv import Conv
from crfr.model.iresnet import IRBlock, PReLU
from crfr.model.norm import Affine, BatchNorm, Norm
from crfr.model.pool import max_pool

# name -> blocks a stage, channels of the first stage, kind of the blocks
ARCHITECTURES = {
    "resnet50": ((3, 4, 6, 3), 64, "bottleneck"),
    "resnet18": ((2, 2, 2, 2), 64, "basic"),
    "tiny": ((1, 1, 1, 1), 8, "basic"),
    "iresnet18": ((2, 2, 2, 2), 64, "iresnet"),
    "iresnet34": ((3, 4, 6, 3), 64, "iresnet"),
    "iresnet50": ((3, 4, 14, 3), 64, "iresnet"),
    "iresnet100": ((3, 13, 30, 3), 64, "iresnet"),
}

# Layers that make the embedding out of the features; all before them is the trunk.
HEAD = frozenset({"norm_features", "dense", "norm_embedding"})


@jax.custom_vjp
def relu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """max(x, 0); its gradient takes the sign from the result, so that x need not be kept."""
    return jnp.maximum(x, 0)


def _relu(x: Array) -> tuple[Array, Array]:
    # without it the compiler would compute the result again, from two arrays instead of one
    y = jax.lax.optimization_barrier(jnp.maximum(x, 0))
    return y, y


relu.defvjp(_relu, lambda y, slope: (jnp.where(y > 0, slope, 0),))


class Block(nn.Module):
    """A residual block: 1x1, 3x3, 1x1 (bottleneck) or 3x3, 3x3 (basic), each with BatchNorm."""

    channels: int
    stride: int
    bottleneck: bool
    stride_first: bool
    conv: Callable[..., Conv]
    norm: Callable[..., Norm]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n i j e"]:
        if self.bottleneck:
            first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
            layers = [(1, first, 1), (3, second, 1), (1, 1, 4)]
        else:
            layers = [(3, self.stride, 1), (3, 1, 1)]
        y = x
        for i, (size, stride, widen) in enumerate(layers):
            y = self.conv(self.channels * widen, size, stride, name=f"conv{i}")(y)
            y = self.norm(name=f"norm{i}", rectify=i < len(layers) - 1)(y, train)
        if x.shape != y.shape:
            x = self.conv(y.shape[-1], 1, self.stride, name="conv_shortcut")(x)
            x = self.norm(name="norm_shortcut")(x, train)
        return relu(x + y)


def drop(x: Float[Array, "n h w c"], keys: Array, rate: float) -> Float[Array, "n h w c"]:
    """Dropout with one key an image, so that masks do not depend on how a batch is divided."""
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0)


def _gone(name: str, rectify: bool = False) -> Norm:
    """In the place of a BatchNorm that is folded into its neighbour."""
    del name
    return lambda x, train: relu(x) if rectify else x


class ResNet(nn.Module):
    """Images [n h w 3], float RGB in 0..255 -> embeddings [n d], not yet of unit norm.

    `train`: BatchNorm uses the statistics of the images, which become `batch_stats`;
    `dropout_keys` [n]: drop features.

    bn_momentum: the share of the running statistics that an update keeps (branches.py).
    block: "bottleneck", "basic" or "iresnet".
    head: "E" is BN - dropout - flatten - dense - BN; "plain" is the paper's flatten - dropout -
      dense.
    input_mean, input_std: a pixel enters as (x - mean) / std; they belong to the weight family.
    folded: for inference, with the weights of fold.py: convolutions and the dense layer have
      biases, and the BatchNorms around them are gone.
    """

    stages: tuple[int, ...]
    width: int
    block: str
    stride_first: bool
    head: str
    embedding: int
    dropout: float
    input_mean: tuple[float, ...]
    input_std: tuple[float, ...]
    bn_epsilon: float
    bn_momentum: float
    bn_span: int
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    folded: bool = False

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "n h w 3"],
        train: bool = False,
        dropout_keys: Array | None = None,
    ) -> Float[Array, "n d"]:
        first = norm = functools.partial(
            BatchNorm,
            self.bn_epsilon,
            self.dtype,
            self.param_dtype,
            self.bn_span,
        )
        if self.folded:
            if train:
                raise ValueError("a folded network has no statistics to train with")
            first, norm = functools.partial(Affine, self.dtype, self.param_dtype), _gone

        def conv(channels: int, size: int, stride: int, name: str) -> Conv:
            return Conv(
                channels, size, stride, self.folded, self.dtype, self.param_dtype, name=name
            )

        mean, std = (jnp.asarray(v, images.dtype) for v in (self.input_mean, self.input_std))
        x = ((images - mean) / std).astype(self.dtype)
        improved = self.block == "iresnet"
        prelu = functools.partial(PReLU, self.dtype, self.param_dtype)
        x = conv(self.width, *((3, 1) if improved else (7, 2)), "conv_stem")(x)
        x = norm(name="norm_stem", rectify=not improved)(x, train)
        x = prelu(name="prelu_stem")(x) if improved else max_pool(x)
        for stage, blocks in enumerate(self.stages):
            for i in range(blocks):
                channels, name = self.width * 2**stage, f"stage{stage}_block{i}"
                stride = 2 if i == 0 and (stage > 0 or improved) else 1
                if improved:
                    block = IRBlock(channels, stride, conv, first, norm, prelu, name=name)
                else:
                    wide = self.block == "bottleneck"
                    block = Block(channels, stride, wide, self.stride_first, conv, norm, name=name)
                x = block(x, train)
        if self.head == "E":
            x = norm(name="norm_features")(x, train)
        if self.dropout > 0 and dropout_keys is not None:
            x = drop(x, dropout_keys, self.dropout)
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(
            self.embedding,
            # option E's last BatchNorm has a bias of its own
            use_bias=self.head == "plain" or self.folded,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="dense",
        )(x)
        if self.head == "E":
            x = norm(name="norm_embedding")(x, train)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def build(
    name: str,
    *,
    version: str = "v1",
    width: int | None = None,
    head: str = "E",
    embedding: int = 512,
    dropout: float = 0.5,
    input_mean: Sequence[float] = (127.5, 127.5, 127.5),
    input_std: Sequence[float] = (127.5, 127.5, 127.5),
    bn_epsilon: float = 1e-5,
    bn_momentum: float = 0.9,
    bn_span: int = 1,
    dtype: str = "float32",
    param_dtype: str = "float32",
) -> ResNet:
    """The network of a name ("resnet50", "tiny", ...); `width` overrides its first stage's
    channels.

    Raises InputError for a name, version ("v1", "v1.5"), head ("E", "plain") or dtype that is
    unknown.
    """
    if name not in ARCHITECTURES:
        raise unknown("model.name", name, ARCHITECTURES)
    if version not in ("v1", "v1.5"):
        raise unknown("model.version", version, ("v1", "v1.5"))
    if head not in ("E", "plain"):
        raise unknown("model.head", head, ("E", "plain"))
    if dtype not in ("bfloat16", "float32", "float64"):
        raise unknown("model.dtype", dtype, ("bfloat16", "float32", "float64"))
    if dtype == "float64" and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError("model.dtype=float64: needs JAX_ENABLE_X64=1 in the environment")
    if not 0 <= dropout < 1:
        raise InputError(f"model.dropout={dropout}: give a rate in [0, 1)")
    stages, default_width, block = ARCHITECTURES[name]
    if version != "v1" and block != "bottleneck":
        raise InputError(
            f"model.version={version}: {name} has one form only; leave it at v1, or choose resnet50"
        )
    return ResNet(
        stages=stages,
        width=width or default_width,
        block=block,
        stride_first=version == "v1",
        head=head,
        embedding=embedding,
        dropout=dropout,
        input_mean=tuple(input_mean),
        input_std=tuple(input_std),
        bn_epsilon=bn_epsilon,
        bn_momentum=bn_momentum,
        bn_span=bn_span,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(param_dtype),
    )
