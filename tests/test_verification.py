"""K-fold accuracy against a plain brute force, and by hand."""

import itertools

import numpy as np
import pytest

import crfr
from crfr.errors import InputError


def brute_force(distance, same, grid=None, factor=1.0):
    """Every candidate on every fold, one pair at a time, as the definition reads."""
    n = len(distance)
    sizes = [n // 10 + (1 if f < n % 10 else 0) for f in range(10)]  # scikit-learn's KFold
    accuracies, chosen, start = [], [], 0
    for size in sizes:
        test = list(range(start, start + size))
        train = [i for i in range(n) if i not in test]
        start += size
        if grid is None:
            levels = sorted({distance[i] for i in train})
            candidates = [levels[0] - 5e-4]
            candidates += [(a + b) / 2 for a, b in itertools.pairwise(levels)]
            candidates += [levels[-1] + 5e-4]
        else:
            candidates = list(grid)
        best, best_correct = None, -1
        for t in candidates:
            correct = sum((factor * distance[i] < t) == same[i] for i in train)
            if correct > best_correct:
                best, best_correct = t, correct
        accuracies.append(np.mean([(factor * distance[i] < best) == same[i] for i in test]))
        chosen.append(best / factor)
    return np.mean(accuracies), np.std(accuracies), np.mean(chosen)


def pairs(n=113, seed=0, gap=0.3, ties=False):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.5
    distance = np.clip(rng.normal(0.9, 0.25, n) - gap * same, 0, 2)
    return (np.round(distance, 1) if ties else distance), same


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_exact_equals_brute_force(seed, ties):
    distance, same = pairs(seed=seed, ties=ties)
    expected = brute_force(distance, same)
    np.testing.assert_allclose(crfr.kfold_accuracy(distance, same), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_grids_equal_brute_force(seed):
    distance, same = pairs(seed=seed)
    for mode, grid, factor in (
        ("insightface", np.arange(0, 4, 0.01), 2.0),
        ("knoche", np.arange(0, 2, 0.001), 1.0),
    ):
        expected = brute_force(distance, same, grid, factor)
        result = crfr.kfold_accuracy(distance, same, thresholds=mode)
        np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_insightface_mode_is_the_grid_on_the_squared_distance_of_unit_vectors():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100, 8))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    same = np.arange(100) % 2 == 0
    b[same] = a[same] + 0.3 * b[same]
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    squared = ((a - b) ** 2).sum(1)
    accuracy, std, threshold = brute_force(squared, same, np.arange(0, 4, 0.01))
    result = crfr.kfold_accuracy(1 - (a * b).sum(1), same, thresholds="insightface")
    np.testing.assert_allclose(result, (accuracy, std, threshold / 2), rtol=1e-9)


def test_separable_pairs_are_perfect_and_the_threshold_lies_between():
    same = np.arange(100) % 2 == 0
    distance = np.where(same, 0.2, 0.8)
    assert crfr.kfold_accuracy(distance, same) == (1.0, 0.0, 0.5)


def test_the_held_out_fold_does_not_leak():
    """By hand: fold 0 is scored at a threshold that its own pairs had no part in."""
    same = np.arange(100) % 2 == 0
    distance = np.where(same, 0.2, 0.8)
    distance[:10] = np.where(same[:10], 0.55, 0.6)
    # Fold 0 is judged at 0.5, between the others' 0.2 and 0.8, and loses its positives; its own
    # distances among the candidates would move that threshold to 0.375.  All other folds have seen
    # 0.55 and 0.6 and take 0.575.
    accuracy, _, threshold = crfr.kfold_accuracy(distance, same)
    assert accuracy == pytest.approx((0.5 + 9 * 1.0) / 10)
    assert threshold == pytest.approx((0.5 + 9 * 0.575) / 10)


def test_of_equally_good_thresholds_the_smallest_is_taken():
    # indistinguishable: every pair at one distance, half of them positive -> below all is best and
    # smallest
    same = np.arange(40) % 2 == 0
    accuracy, _, threshold = crfr.kfold_accuracy(np.full(40, 0.5), same)
    assert accuracy == 0.5
    assert threshold == pytest.approx(0.4995)


def test_compressed_distances_need_exact_thresholds():
    same = np.arange(200) % 2 == 0
    distance = np.where(same, 1e-4, 3e-4)
    assert crfr.kfold_accuracy(distance, same)[0] == 1.0
    assert crfr.kfold_accuracy(distance, same, thresholds="knoche")[0] == 0.5


@pytest.mark.parametrize(
    ("distance", "same", "message"),
    [
        (np.ones(9), np.ones(9, bool), "9 pairs"),
        (np.ones(20), np.ones(19, bool), r"\[20\] and labels \[19\]"),
        (np.full(20, np.nan), np.ones(20, bool), "pair 0 is nan"),
    ],
)
def test_bad_input_is_refused(distance, same, message):
    with pytest.raises(InputError, match=message):
        crfr.kfold_accuracy(distance, same)
    with pytest.raises(InputError, match="did you mean 'exact'"):
        crfr.kfold_accuracy(np.ones(20), np.ones(20, bool), thresholds="exakt")
