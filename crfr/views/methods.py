"""The paper's methods (sections 5, 6.2): which views of an image a network sees, the loss weights.

| method   | views of each image                              | loss                               |
|----------|--------------------------------------------------|------------------------------------|
| baseline | 112                                              | CE                                 |
| bt-R     | half of the batch at R, the other half at 112    | CE                                 |
| bt-m     | one of 7, 14, 28, 56, 112, equal probability     | CE                                 |
| st-R     | 112 and R                                        | CE_HR + CE_LR + 25 L_dist          |
| st-m1    | 112 and one of 7, 14, 28, 56, equal probability  | CE_HR + CE_LR + 25 L_dist          |
| st-m2    | 112, 56, 28, 14, 7: five branches                | five CE + 3 (sum of four L_dist)   |

The methods differ by this data alone; there is one code path for all of them.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from crfr.errors import InputError, unknown
from crfr.views.degrade import SIDE

LOW = (7, 14, 28, 56)  # px, the low resolutions of multi-resolution training (section 6.2)


@dataclasses.dataclass(frozen=True)
class Method:
    """One method: a view is the tuple of resolutions (px) that it draws from, with equal
    probability.

    `halves`: instead of drawing each image's resolution on its own, every resolution of the view
    gets the same share of the batch, at random places (BT-r's half and half).
    `distance_weight`: the factor of each low branch's L_dist (eq. 7); 0 where there is one branch.
    """

    name: str
    views: tuple[tuple[int, ...], ...]
    halves: bool = False
    distance_weight: float = 0.0

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Every resolution the method trains at, ascending, in px."""
        return tuple(sorted({r for view in self.views for r in view}))


METHODS = (
    Method("baseline", ((SIDE,),)),
    Method("bt-m", ((*LOW, SIDE),)),
    Method("st-m1", ((SIDE,), LOW), distance_weight=25.0),
    Method("st-m2", ((SIDE,), *((r,) for r in reversed(LOW))), distance_weight=3.0),
)


def parse_method(name: str) -> Method:
    """The method of a name: baseline, bt-R, bt-m, st-R, st-m1 or st-m2, with R in 1..111 px.

    Raises InputError for an unknown name or a resolution out of range, and for a second name of a
    method, such as bt-07: a training is found by the one it has.
    """
    for method in METHODS:
        if method.name == name:
            return method
    match = re.fullmatch(r"(bt|st)-(\d+)", name, re.ASCII)
    if match is None:
        raise unknown("method", name, [m.name for m in METHODS] + ["bt-7", "st-7"])
    r = int(match[2])
    if not 1 <= r < SIDE:
        raise InputError(f"method {name!r}: resolution {r} px is outside 1..{SIDE - 1}")
    if match[2] != str(r):
        raise InputError(f"method {name!r}: write {match[1]}-{r}, without a 0 before it")
    if match[1] == "bt":
        return Method(name, ((SIDE, r),), halves=True)
    return Method(name, ((SIDE,), (r,)), distance_weight=25.0)


def draw_resolutions(method: Method, key: Array, batch: int) -> Int[Array, "r b"]:
    """Draw each view's resolution for each image, as an index into `method.resolutions`.

    For use inside a compiled function; `batch` is the size of the global batch, so that the draw
    does not depend on the number of devices.
    """
    drawn = []
    for view, view_key in zip(method.views, jax.random.split(key, len(method.views)), strict=True):
        choices = jnp.asarray([method.resolutions.index(r) for r in view])
        if method.halves:
            which = jax.random.permutation(view_key, jnp.arange(batch) % len(view))
        else:
            which = jax.random.randint(view_key, (batch,), 0, len(view))
        drawn.append(choices[which])
    return jnp.stack(drawn)
