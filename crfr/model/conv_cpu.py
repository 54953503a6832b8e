"""Convolutions as products, for CPUs: their compiler is good at products, less so at convolutions.

Measurements are in docs/performance.md.  What is written with `jax.custom_vjp` here has the
gradients of the convolution up to rounding; differentiated as it stands, it would be slow again.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MANY = 64  # channels from which Winograd's sums cost less than the products it saves
SIDE = 64  # px up to which its tiles, four times the input, are small beside what a network keeps
Tiles = list[list[Array]]  # [row column] in a tile -> that place of every tile


@jax.custom_batching.custom_vmap
def _kernel_gradient(slope: Float[Array, "*n d"], x: Float[Array, "*n c"]) -> Float[Array, "d c"]:
    """That of y = x kernel^T.  A CPU is faster with the narrower factor on the left."""
    slope, x = (a.reshape(-1, a.shape[-1]) for a in (slope, x))
    if slope.shape[1] <= x.shape[1]:
        return jnp.einsum("nd,nc->dc", slope, x)
    return jnp.einsum("nc,nd->cd", x, slope).T


@_kernel_gradient.def_vmap
def _one_by_one(
    size: int, batched: Sequence[bool], slope: Array, x: Array
) -> tuple[Float[Array, "b d c"], bool]:
    """Of branches and groups, each by a product: a CPU is slow at a batch of them."""
    factors = [(slope[i] if batched[0] else slope, x[i] if batched[1] else x) for i in range(size)]
    return jnp.stack([_kernel_gradient(*pair) for pair in factors]), True


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


def _strided(x: Float[Array, "n h w c"], size: int) -> Tiles:
    """The pixels of tiles of `size` that begin every 2 pixels, whole ones only."""
    h, w = (side - size + 1 for side in x.shape[1:3])
    return [[x[:, i : i + h : 2, j : j + w : 2] for j in range(size)] for i in range(size)]


def _input_tiles(x: Float[Array, "n h w c"]) -> Tiles:
    odd = [side % 2 for side in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), (1, 1 + odd[0]), (1, 1 + odd[1]), (0, 0)))
    return _both_ways(_b_transposed, _strided(x, 4))


def _convolve(x: Float[Array, "n h w a"], kernel: Tiles, form: str) -> Float[Array, "n h w b"]:
    """`form` of the products of pixels [n h w a] and transformed kernels [d c]."""
    rows = zip(_input_tiles(x), kernel, strict=True)
    products = [[jnp.einsum(form, v, u) for v, u in zip(*row, strict=True)] for row in rows]
    places = _both_ways(_a_transposed, products)
    n, h, w, b = places[0][0].shape
    lines = [jnp.stack(row, 3).reshape(n, h, 2 * w, b) for row in places]
    return jnp.stack(lines, 2).reshape(n, 2 * h, 2 * w, b)[:, : x.shape[1], : x.shape[2]]


@jax.custom_vjp
def winograd(
    x: Float[Array, "n h w c"], kernel: Float[Array, "d 3 3 c"]
) -> Float[Array, "n h w d"]:
    """The convolution with a 3 x 3 kernel, one pixel apart, with a border of one pixel."""
    return _winograd(x, kernel)[0]


def _winograd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Tiles]]:
    taps = [[kernel[:, i, j] for j in range(3)] for i in range(3)]
    transformed = _both_ways(_g, taps)
    return _convolve(x, transformed, "nhwc,dc->nhwd"), (x, transformed)


def _winograd_gradient(kept: tuple[Array, Tiles], slope: Array) -> tuple[Array, Array]:
    x, transformed = kept
    # of the input: the convolution with the kernel turned around, and _g(k[::-1]) is _g(k) so
    turned = [[transformed[i][j] for j in (3, 1, 2, 0)] for i in (3, 1, 2, 0)]
    of_x = _convolve(slope, turned, "nhwd,dc->nhwc")
    odd = [side % 2 for side in slope.shape[1:3]]
    slope = jnp.pad(slope, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)))
    rows = zip(_both_ways(_a, _strided(slope, 2)), _input_tiles(x), strict=True)
    tiles = [[_kernel_gradient(s, v) for s, v in zip(*row, strict=True)] for row in rows]
    taps = _both_ways(_g_transposed, tiles)
    return of_x, jnp.stack([jnp.stack(row, 1) for row in taps], 1)


winograd.defvjp(_winograd, _winograd_gradient)


def instead(x: Array, kernel: Array, stride: int) -> Callable[[Array, Array], Array] | None:
    """What takes the place of the convolution of x [n h w c] with a kernel [d k k c], with half the
    kernel as its border, on a CPU; None: nothing is faster.
    """
    size = kernel.shape[1]
    if size == 1:
        return functools.partial(pointwise, stride=stride)
    channels = min(kernel.shape[0], kernel.shape[3])
    small = channels >= MANY and max(x.shape[1:3]) <= SIDE
    # in bfloat16 the tiles' sums would lose digits that the products need
    if (size, stride) == (3, 1) and small and jnp.finfo(x.dtype).bits >= 32:
        return winograd
    return None
