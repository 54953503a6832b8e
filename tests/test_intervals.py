"""Intervals over seeds and pairs, by hand and against SciPy."""

import math

import numpy as np
import pytest

from crfr.errors import InputError
from crfr.evaluate import intervals
from crfr.evaluate.statistics import fold_weights

# Two-sided 95 % points of Student's t, as printed in any table
TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 10: 2.2281, 30: 2.0423}


def test_students_quantiles_are_those_of_the_tables():
    for freedom, value in TABLE.items():
        assert intervals.student(freedom) == pytest.approx(value, abs=5e-5)
    assert intervals.student(4, 0.99) == pytest.approx(4.6041, abs=5e-5)
    for freedom, level in ((0, 0.95), (2, 1.0), (2, 0.0)):
        with pytest.raises(InputError, match="degrees of freedom"):
            intervals.student(freedom, level)


def test_students_quantiles_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (*range(1, 40), 200, 1001):
        for level in (0.5, 0.95, 0.999):
            expected = stats.t.ppf((1 + level) / 2, freedom)
            assert intervals.student(freedom, level) == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_a_mean_over_seeds():
    found = intervals.seed_mean([0.30, 0.25, 0.35], 0.02)
    # s = 0.05, t = 4.302653, s t / sqrt(3) = 0.124207; 1.96 x 0.02 = 0.0392
    assert found.value == pytest.approx(0.30)
    assert found.half == pytest.approx(math.hypot(0.1242069, 0.0392), abs=1e-6)
    assert (found.low, found.high) == (found.value - found.half, found.value + found.half)
    assert found.seeds == 3
    alone = intervals.seed_mean([0.3], 0.02)
    assert (alone.value, alone.half, alone.seeds) == (0.3, pytest.approx(0.0392), 1)
    assert intervals.sample_std([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert intervals.sample_std([1.0]) == 0


def test_the_error_over_pairs_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    expected = np.std(values, ddof=1) / math.sqrt(200)
    assert intervals.pair_error(values, fold_weights(200)) == pytest.approx(expected, rel=1e-12)
    # unequal weights: the spread of the weighted means of many samples
    weights = fold_weights(25)
    draws = [weights @ rng.normal(size=25) for _ in range(20_000)]
    errors = [intervals.pair_error(rng.normal(size=25), weights) ** 2 for _ in range(2_000)]
    assert math.sqrt(np.mean(errors)) == pytest.approx(np.std(draws), rel=0.03)


def test_the_error_of_a_number_found_without_each_fold():
    values = np.array([1.0, 2.0] * 5)  # nine tenths of the sum of ten squares of a half
    assert intervals.fold_error(values) == pytest.approx(math.sqrt(0.9 * 2.5))
    # of a mean it is the standard error over the folds
    rng = np.random.default_rng(1)
    folds = rng.normal(size=10)
    without = (folds.sum() - folds) / 9
    expected = np.std(folds, ddof=1) / math.sqrt(10)
    assert intervals.fold_error(without) == pytest.approx(expected, rel=1e-12)
