"""How sure one can be of a mean over trainings that differ only in their seed.

Two things make such a mean uncertain: another seed would train another network, and other pairs
would judge it otherwise.  The interval adds both in squares (docs/evaluation.md, "Seeds").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Float64

from crfr.errors import InputError

LEVEL = 0.95
NORMAL = 1.96  # standard errors that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Mean:
    """A mean over `seeds` trainings, and half its 95 % interval, in one unit.

    `among` and `pairs` are its standard errors over seeds (0 of one) and over pairs: of one seed
    the interval is that over pairs alone.
    """

    value: float
    seeds: int
    among: float
    pairs: float

    def half_at(self, level: float) -> float:
        """Half the interval that holds the share `level` (see `seed_mean`)."""
        t = student(self.seeds - 1, level) if self.seeds > 1 else 0.0
        z = NORMAL if level == LEVEL else NormalDist().inv_cdf((1 + level) / 2)
        return math.hypot(t * self.among, z * self.pairs)

    @property
    def half(self) -> float:
        return self.half_at(LEVEL)

    @property
    def low(self) -> float:
        return self.value - self.half

    @property
    def high(self) -> float:
        return self.value + self.half


def student(freedom: int, level: float = LEVEL) -> float:
    """How many standard errors hold the share `level` of Student's t with so many degrees of
    freedom, symmetrically: its quantile at (1 + level) / 2.

    By bisection of the distribution's closed form for whole degrees of freedom (Abramowitz and
    Stegun, 26.7.3 and 26.7.4), right to 1e-9.

    >>> round(student(2), 3)
    4.303
    """
    if freedom < 1 or not 0 < level < 1:
        raise InputError(f"{freedom} degrees of freedom, level {level}: give 1 or more, and 0 to 1")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2  # t = sqrt(freedom) tan(angle)
        low, high = (angle, high) if _held(angle, freedom) < level else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _held(angle: float, freedom: int) -> float:
    """The share of Student's t between -t and t, t = sqrt(freedom) tan(angle)."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(odd + 1, freedom, 2):
        total += term
        term *= math.cos(angle) ** 2 * k / (k + 1)
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


def sample_std(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1); 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def seed_mean(values: Sequence[float], error: float) -> Mean:
    """The mean of a number of several seeds with its 95 % interval.

    The half width is sqrt((t s / sqrt(n))^2 + (1.96 e)^2): s the sample standard deviation of the n
    seeds' numbers, t Student's for n - 1 degrees of freedom, e = `error`, the standard error over
    pairs of their mean.  With one seed it is 1.96 e, which leaves out the training's randomness.
    """
    n = len(values)
    return Mean(float(np.mean(values)), n, sample_std(values) / math.sqrt(n), error)


def pair_error(values: Float[np.ndarray, " p"], weights: Float64[np.ndarray, " p"]) -> float:
    """The standard error of the weighted mean of a number of each pair, pairs being independent.

    Weights sum to 1; with equal ones it is the sample standard deviation over sqrt(p).
    """
    mean = weights @ values
    spread = float(np.sum((weights * (values - mean)) ** 2))
    return math.sqrt(spread * len(values) / (len(values) - 1))


def fold_error(values: Float64[np.ndarray, " folds"]) -> float:
    """The standard error over pairs of a number found ten times, each time without one fold.

    The jackknife of groups: sqrt((g - 1) / g x the sum of squared deviations from their mean).
    """
    groups = len(values)
    return math.sqrt((groups - 1) / groups * float(np.sum((values - values.mean()) ** 2)))
