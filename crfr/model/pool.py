"""ResNet's max-pooling, with a gradient that goes back by the place of each maximum.

Differentiated as it stands a pooling scatters its gradient: on a GPU five index arrays in int32 and
atomic additions.  Here a byte a maximum says which of its nine pixels it is.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

SIZE, STRIDE = 3, 2  # px; with a border of one


def _steps(side: int) -> int:
    return (side - 1) // STRIDE + 1


def _places() -> list[tuple[int, int, int]]:
    return [(place, *divmod(place, SIZE)) for place in range(SIZE * SIZE)]


def _find(
    x: Float[Array, "n h w c"],
) -> tuple[Float[Array, "n i j c"], Int8[Array, "n i j c"]]:
    """(the maximum of each window, its first place in the window in reading order)."""
    rows, columns = _steps(x.shape[1]), _steps(x.shape[2])
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    best = where = None
    for place, i, j in _places():
        stop = (x.shape[0], i + STRIDE * (rows - 1) + 1, j + STRIDE * (columns - 1) + 1, x.shape[3])
        part = jax.lax.slice(padded, (0, i, j, 0), stop, (1, STRIDE, STRIDE, 1))
        if best is None or where is None:
            best, where = part, jnp.zeros(part.shape, jnp.int8)
        else:
            where = jnp.where(part > best, jnp.int8(place), where)
            best = jnp.maximum(best, part)
    assert best is not None
    assert where is not None
    return best, where


@jax.custom_vjp
def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n i j c"]:
    """The maximum of every 3x3 window, two pixels apart, with a border of one pixel."""
    return _find(x)[0]


def _pool(x: Array) -> tuple[Array, tuple[Array, Array]]:
    best, where = _find(x)
    # the side of x, without x: an odd and an even one give the same number of windows
    return best, (where, jnp.zeros((x.shape[1], x.shape[2], 0), x.dtype))


def _gradient(kept: tuple[Array, Array], slope: Array) -> tuple[Array]:
    where, like = kept
    height, width, _ = like.shape
    rows, columns = where.shape[1:3]
    wide = slope.astype(jnp.promote_types(slope.dtype, jnp.float32))
    total = jnp.zeros((where.shape[0], height, width, where.shape[3]), wide.dtype)
    for place, i, j in _places():
        part = jnp.where(where == place, wide, 0)
        spread = [
            (start - 1, side - start - STRIDE * (steps - 1), STRIDE - 1)
            for start, side, steps in ((i, height, rows), (j, width, columns))
        ]
        nothing = (0, 0, 0)
        zero = jnp.zeros((), wide.dtype)
        total += jax.lax.pad(part, zero, [nothing, *spread, nothing])
    return (total.astype(slope.dtype),)


max_pool.defvjp(_pool, _gradient)
