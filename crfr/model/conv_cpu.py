"""Convolutions as products, for CPUs: their compiler is good at products, less so at convolutions.

Each has the values and first gradients of the convolution, up to rounding (docs/performance.md has
what it gains).  Gradients are written out, as those that differentiation makes are slow: there is
no forward mode and no second derivative, and inside `jax.shard_map` a kernel has to vary over the
axis as the images do.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

WINOGRAD_CHANNELS = 64  # of fewer the tiles' sums take what the products save
WINOGRAD_SIDE = 64  # px; of larger images the tiles, four times the input, take too much memory
WINOGRAD_PIXELS = 256  # of all images; of fewer the kernel's tiles take what the products save
UNROLLED = 5  # branches or groups, as many as ST-M2 has: each product more has to be compiled
Tiles = list[list[Array]]  # [row column] in a tile -> that place of every tile


def _sum_of_products(slope: Float[Array, "*n d"], x: Float[Array, "*n c"]) -> Float[Array, "d c"]:
    slope, x = (a.reshape(-1, a.shape[-1]) for a in (slope, x))
    if slope.shape[1] <= x.shape[1]:
        return jnp.einsum("nd,nc->dc", slope, x)
    return jnp.einsum("nc,nd->cd", x, slope).T  # a CPU is faster with the narrower on the left


@jax.custom_batching.custom_vmap
def _kernel_gradient(slope: Float[Array, "*n d"], x: Float[Array, "*n c"]) -> Float[Array, "d c"]:
    """That of y = x kernel^T."""
    return _sum_of_products(slope, x)


@_kernel_gradient.def_vmap
def _of_each(
    size: int, batched: Sequence[bool], slope: Array, x: Array
) -> tuple[Float[Array, "b d c"], bool]:
    """Of each branch or group a product of its own: as a batch of products they take longer."""
    if size > UNROLLED:
        axes = tuple(0 if b else None for b in batched)
        return jax.vmap(_sum_of_products, axes)(slope, x), True
    pairs = [(slope[i] if batched[0] else slope, x[i] if batched[1] else x) for i in range(size)]
    return jnp.stack([_kernel_gradient(*pair) for pair in pairs]), True


@jax.custom_vjp
def _multiply(x: Float[Array, "n h w c"], kernel: Float[Array, "d c"]) -> Float[Array, "n h w d"]:
    return jnp.einsum("nhwc,dc->nhwd", x, kernel)


def _multiply_gradient(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = kept
    return jnp.einsum("nhwd,dc->nhwc", slope, kernel), _kernel_gradient(slope, x)


_multiply.defvjp(lambda x, kernel: (_multiply(x, kernel), (x, kernel)), _multiply_gradient)


def pointwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "d 1 1 c"], stride: int
) -> Float[Array, "n i j d"]:
    """The convolution with a 1 x 1 kernel."""
    return _multiply(x[:, ::stride, ::stride], kernel[:, 0, 0])


# Winograd's F(2 x 2, 3 x 3) of Lavin and Gray (2016, section 4.1): each tile of 2 x 2 results is
# A^T [(G k G^T) (B^T x B)] A of a tile of 4 x 4 inputs, 16 products a channel in the place of 36.


def _both_ways(transform: Callable[[Sequence[Array]], list[Array]], tiles: Tiles) -> Tiles:
    rows = [transform(row) for row in tiles]
    columns = [transform(column) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _g(k: Sequence[Array]) -> list[Array]:
    return [k[0], (k[0] + k[1] + k[2]) / 2, (k[0] - k[1] + k[2]) / 2, k[2]]


def _g_transposed(u: Sequence[Array]) -> list[Array]:
    return [u[0] + (u[1] + u[2]) / 2, (u[1] - u[2]) / 2, (u[1] + u[2]) / 2 + u[3]]


def _b_transposed(x: Sequence[Array]) -> list[Array]:
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _a(y: Sequence[Array]) -> list[Array]:
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def _a_transposed(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _kernel_tiles(kernel: Float[Array, "d 3 3 c"]) -> Tiles:
    return _both_ways(_g, [[kernel[:, i, j] for j in range(3)] for i in range(3)])


def _strided(x: Float[Array, "n h w c"], size: int) -> Tiles:
    """The pixels of tiles of `size` that begin every 2 pixels, whole ones only."""
    h, w = (side - size + 1 for side in x.shape[1:3])
    return [[x[:, i : i + h : 2, j : j + w : 2] for j in range(size)] for i in range(size)]


def _input_tiles(x: Float[Array, "n h w c"]) -> Tiles:
    odd = [side % 2 for side in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), (1, 1 + odd[0]), (1, 1 + odd[1]), (0, 0)))
    return _both_ways(_b_transposed, _strided(x, 4))


def _convolve(x: Float[Array, "n h w a"], kernel: Tiles, form: str) -> Float[Array, "n h w b"]:
    """`form` of the products of pixels [n h w a] and a transformed kernel [d c]."""
    rows = zip(_input_tiles(x), kernel, strict=True)
    products = [[jnp.einsum(form, v, u) for v, u in zip(*row, strict=True)] for row in rows]
    places = _both_ways(_a_transposed, products)
    n, h, w, b = places[0][0].shape
    lines = [jnp.stack(row, 3).reshape(n, h, 2 * w, b) for row in places]
    return jnp.stack(lines, 2).reshape(n, 2 * h, 2 * w, b)[:, : x.shape[1], : x.shape[2]]


@jax.custom_vjp
@jax.jit  # traced once for all layers of a shape
def winograd(
    x: Float[Array, "n h w c"], kernel: Float[Array, "d 3 3 c"]
) -> Float[Array, "n h w d"]:
    """The convolution with a 3 x 3 kernel, one pixel apart, with a border of one pixel."""
    return _convolve(x, _kernel_tiles(kernel), "nhwc,dc->nhwd")


@jax.jit
def _winograd_gradient(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = kept
    # that of x is the convolution with the kernel turned around, which swaps the first and the
    # last of its tiles' rows and columns
    tiles = _kernel_tiles(kernel)
    turned = [[tiles[i][j] for j in (3, 1, 2, 0)] for i in (3, 1, 2, 0)]
    of_x = _convolve(slope, turned, "nhwd,dc->nhwc")
    odd = [side % 2 for side in slope.shape[1:3]]
    slope = jnp.pad(slope, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)))
    rows = zip(_both_ways(_a, _strided(slope, 2)), _input_tiles(x), strict=True)
    gradients = [[_kernel_gradient(s, v) for s, v in zip(*row, strict=True)] for row in rows]
    taps = _both_ways(_g_transposed, gradients)
    return of_x, jnp.stack([jnp.stack(row, 1) for row in taps], 1)


winograd.defvjp(lambda x, kernel: (winograd(x, kernel), (x, kernel)), _winograd_gradient)


def instead(x: Array, kernel: Array, stride: int) -> Callable[[Array, Array], Array] | None:
    """What takes the place of the convolution of x [n h w c] with a kernel [d k k c], with half the
    kernel as its border, on a CPU; None: nothing is faster.
    """
    size, channels = kernel.shape[1], min(kernel.shape[0], kernel.shape[3])
    if size == 1:
        return functools.partial(pointwise, stride=stride)
    images, height, width, _ = x.shape
    if (size, stride) != (3, 1) or channels < WINOGRAD_CHANNELS:
        return None
    if max(height, width) > WINOGRAD_SIDE or jnp.finfo(x.dtype).bits < 32:
        return None  # in bfloat16 the tiles' sums would lose digits that the products need
    if not isinstance(images, int) or images * height * width < WINOGRAD_PIXELS:
        return None  # an export leaves the number of images open
    return winograd
