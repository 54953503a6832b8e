"""K-fold accuracy and InsightFace's TAR against plain re-implementations, and by hand."""

import itertools

import numpy as np
import pytest

import crfr
from crfr.errors import InputError
from crfr.evaluate.verification import MODES, fold_of, insightface_val, kfold

GRIDS = {"insightface": (np.arange(0, 4, 0.01), 2.0), "knoche": (np.arange(0, 2, 0.001), 1.0)}


def folds(n):
    """scikit-learn's KFold without shuffling: (training indices, test indices), ten times."""
    sizes = [n // 10 + (1 if f < n % 10 else 0) for f in range(10)]
    start = 0
    for size in sizes:
        test = np.arange(start, start + size)
        yield np.delete(np.arange(n), test), test
        start += size


def brute_force(distance, same, grid=None, factor=1.0):
    """Every candidate on every fold, one pair at a time, as the definition reads."""
    accuracies, chosen = [], []
    for train, test in folds(len(distance)):
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


def plain(distance, same, mode):
    """The same with sorted positives and negatives, for thousands of pairs.

    Accuracies and thresholds of the folds, verdicts on the pairs.
    """
    distance = np.asarray(distance, np.float64)
    accuracies, chosen, correct = [], [], []
    for train, test in folds(len(distance)):
        if mode == "exact":
            distinct, factor = np.unique(distance[train]), 1.0
            middle = (distinct[1:] + distinct[:-1]) / 2
            candidates = np.concatenate([[distinct[0] - 5e-4], middle, [distinct[-1] + 5e-4]])
        else:
            candidates, factor = GRIDS[mode]
        positives = np.sort(factor * distance[train][same[train]])
        negatives = np.sort(factor * distance[train][~same[train]])
        score = np.searchsorted(positives, candidates) - np.searchsorted(negatives, candidates)
        best = candidates[np.argmax(score)]
        correct.append((factor * distance[test] < best) == same[test])
        accuracies.append(np.mean(correct[-1]))
        chosen.append(best / factor)
    return np.array(accuracies), np.array(chosen), np.concatenate(correct)


def rates(distance, same, t):
    """(TPR or TAR, FPR or FAR, accuracy) of "same where the distance is under t"."""
    accepted = distance < t
    tp, fp = np.sum(accepted & same), np.sum(accepted & ~same)
    tn = np.sum(~accepted & ~same)
    return tp / max(np.sum(same), 1), fp / max(np.sum(~same), 1), (tp + tn) / len(same)


def peers_accuracy(distance, same, grid):
    """InsightFace's calculate_roc and Knoche's k_fold_cross_validation, which are one procedure on
    other distances: the folds' accuracies and thresholds."""
    accuracies, chosen = [], []
    for train, test in folds(len(same)):
        on_training = np.array([rates(distance[train], same[train], t)[2] for t in grid])
        best = grid[np.argmax(on_training)]
        accuracies.append(rates(distance[test], same[test], best)[2])
        chosen.append(best)
    return np.array(accuracies), np.array(chosen)


def peers_val(squared, same, target, interpolate):
    """InsightFace's calculate_val; `interpolate(x, y)` gives the function y of x, as interp1d."""
    grid = np.arange(0, 4, 0.001)
    tar, far = [], []
    for train, test in folds(len(same)):
        far_train = np.array([rates(squared[train], same[train], t)[1] for t in grid])
        reachable = far_train.max() >= target
        t = interpolate(far_train, grid)(target) if reachable else 0.0
        tar_fold, far_fold, _ = rates(squared[test], same[test], t)
        tar.append(tar_fold)
        far.append(far_fold)
    return np.mean(tar), np.std(tar), np.mean(far)


def pairs(n=113, seed=0, gap=0.3, ties=False):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.5
    distance = np.clip(rng.normal(0.9, 0.25, n) - gap * same, 0, 2)
    return (np.round(distance, 1) if ties else distance), same


def unit_embeddings(n, seed=0, noise=1.0):
    """Two of each of n pairs [n 16], every other pair of one identity."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, 16))
    same = np.arange(n) // 3 % 2 == 0
    b[same] = a[same] + noise * b[same]
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a, b, same


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_exact_equals_brute_force(seed, ties):
    distance, same = pairs(seed=seed, ties=ties)
    expected = brute_force(distance, same)
    np.testing.assert_allclose(crfr.kfold_accuracy(distance, same), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_grids_equal_brute_force(seed):
    distance, same = pairs(40, seed=seed)
    for mode, (grid, factor) in GRIDS.items():
        expected = brute_force(distance, same, grid, factor)
        result = crfr.kfold_accuracy(distance, same, thresholds=mode)
        np.testing.assert_allclose(result, expected, rtol=1e-12)


def assert_same_verdict(distance, same, mode):
    accuracies, chosen, correct = plain(distance, same, mode)
    verdict = kfold(distance, same, thresholds=mode)
    np.testing.assert_array_equal(verdict.fold_thresholds, chosen)
    np.testing.assert_array_equal(verdict.correct, correct)
    assert verdict.accuracy == pytest.approx(accuracies.mean(), abs=1e-14)
    assert verdict.std == pytest.approx(accuracies.std(), abs=1e-14)
    assert verdict.threshold == pytest.approx(chosen.mean(), abs=1e-14)
    assert crfr.kfold_accuracy(distance, same, thresholds=mode) == (
        verdict.accuracy,
        verdict.std,
        verdict.threshold,
    )


@pytest.mark.parametrize("mode", MODES)
def test_kfold_equals_the_plain_reference_on_many_random_lists(mode):
    rng = np.random.default_rng(0)
    for seed in range(300):
        n = int(rng.integers(10, 200))
        decimals = int(rng.choice([1, 2, 3, 16]))  # one decimal: a handful of distinct distances
        distance, same = pairs(n, seed, gap=rng.choice([0, 0.05, 0.3, 2]))
        distance = np.round(distance, decimals)
        if seed % 3 == 0:  # unbalanced: folds of one kind
            order = np.argsort(same, kind="stable")
            distance, same = distance[order], same[order]
        if seed % 5 == 0:  # the pairs of a fold differ from all others
            distance[: n // 10] += 0.4
        if seed % 7 == 0:
            same[:] = False
            same[int(rng.integers(n))] = True
        if same.all() or not same.any():
            same[0] = not same[0]
        assert_same_verdict(distance, same, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [6000, 7000])
@pytest.mark.parametrize("kind", ["float64", "float32", "compressed", "grid points"])
def test_kfold_equals_the_plain_reference_on_whole_benchmarks(mode, n, kind):
    distance, same = pairs(n, seed=n)
    if kind == "float32":
        distance = distance.astype(np.float32)
    elif kind == "compressed":
        distance = (distance * 1e-3).astype(np.float32)
    elif kind == "grid points":  # where d < t and d <= t, and rounding of the grid, matter most
        distance = np.round(distance * 200).astype(int) * 0.005
    assert_same_verdict(distance, same, mode)


@pytest.mark.parametrize("n", [200, 6000])
@pytest.mark.parametrize("noise", [0.8, 2.0])
def test_insightface_mode_decides_as_its_script(n, noise):
    a, b, same = unit_embeddings(n, noise=noise)
    squared = ((a - b) ** 2).sum(1)
    accuracies, chosen = peers_accuracy(squared, same, np.arange(0, 4, 0.01))
    verdict = kfold(squared / 2, same, thresholds="insightface")
    assert verdict.accuracy == pytest.approx(accuracies.mean(), abs=1e-14)
    assert verdict.std == pytest.approx(accuracies.std(), abs=1e-14)
    np.testing.assert_array_equal(verdict.fold_thresholds, chosen / 2)
    # and on the cosine distance, which is the same but for rounding
    other = kfold(1 - (a * b).sum(1), same, thresholds="insightface")
    np.testing.assert_array_equal(other.fold_thresholds, chosen / 2)
    np.testing.assert_array_equal(other.correct, verdict.correct)


@pytest.mark.parametrize("n", [200, 6000])
def test_knoche_mode_decides_as_its_script(n):
    a, b, same = unit_embeddings(n)
    cosine = 1 - (a * b).sum(1)
    accuracies, chosen = peers_accuracy(cosine, same, np.arange(0, 2, 0.001))
    verdict = kfold(cosine, same, thresholds="knoche")
    assert verdict.accuracy == pytest.approx(accuracies.mean(), abs=1e-14)
    assert verdict.std == pytest.approx(accuracies.std(), abs=1e-14)
    np.testing.assert_array_equal(verdict.fold_thresholds, chosen)


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
    verdict = kfold(distance, same)
    assert verdict.accuracy == pytest.approx((0.5 + 9 * 1.0) / 10)
    np.testing.assert_allclose(verdict.fold_thresholds, [0.5] + 9 * [0.575])
    np.testing.assert_array_equal(verdict.correct, (np.arange(100) >= 10) | ~same)


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


def test_neighbouring_floats_are_told_apart():
    """Their midpoint rounds to the lower or to the upper one; only the upper one separates them."""
    same = np.arange(40) % 2 == 0
    for low in (0.5, np.nextafter(0.5, 1)):
        distance = np.where(same, low, np.nextafter(low, 1))
        assert crfr.kfold_accuracy(distance, same)[0] == 1.0


@pytest.mark.parametrize("n", [10, 19, 113, 6000])
def test_folds_are_contiguous_and_the_first_ones_larger(n):
    for number, (_, test) in enumerate(folds(n)):
        np.testing.assert_array_equal(np.flatnonzero(fold_of(n) == number), test)


@pytest.mark.parametrize("far", [1e-3, 1e-2, 0.3])
@pytest.mark.parametrize("n", [500, 6000])
def test_insightface_val_equals_its_script_with_an_interpolation_that_takes_duplicates(n, far):
    interpolate = pytest.importorskip("scipy.interpolate")
    a, b, same = unit_embeddings(n, seed=3)
    squared = ((a - b) ** 2).sum(1)
    expected = peers_val(squared, same, far, lambda x, y: interpolate.interp1d(x, y, kind="linear"))
    np.testing.assert_allclose(insightface_val(squared / 2, same, far), expected, atol=1e-14)
    with pytest.raises(ValueError, match="duplicates"):  # what the script itself does
        peers_val(squared, same, far, lambda x, y: interpolate.interp1d(x, y, kind="slinear"))


@pytest.mark.parametrize("far", [1e-3, 0.1234])
def test_insightface_val_equals_its_script_where_no_far_repeats(far):
    """A negative pair in every step of the grid, in every nine folds, makes all FARs differ."""
    interpolate = pytest.importorskip("scipy.interpolate")
    rng = np.random.default_rng(0)
    negatives, same = (np.arange(4000) + 0.5) / 1000, np.arange(4050) >= 4000
    halves = []  # folds 0..4 and 5..9
    for _ in range(2):
        order = rng.permutation(4050)
        squared = np.concatenate([negatives, rng.uniform(0, 2, 50)])
        halves.append((squared[order], same[order]))
    squared, same = np.concatenate(halves, axis=1)
    same = same.astype(bool)
    expected = peers_val(
        squared, same, far, lambda x, y: interpolate.interp1d(x, y, kind="slinear")
    )
    np.testing.assert_allclose(insightface_val(squared / 2, same, far), expected, atol=1e-14)


def test_insightface_val_by_hand():
    # Two positives and two negatives a fold, so 18 negatives in nine; as squared L2, positives lie
    # at 0.2006, negatives at 1.8006 but for one of fold 0 at 0.1006.
    same = np.arange(40) % 2 == 0
    squared = np.where(same, 0.2006, 1.8006)
    squared[1] = 0.1006
    # FAR 1/36: fold 0 has the others' FARs, 0 up to 1.800 and 1 from 1.801 on, is judged at 1.800
    # and a 36th of a step, and so accepts its positives and the near negative.  The other folds'
    # FAR is 1/18 from 0.101 on: they are judged half a step before it and accept nothing.
    tar, std, far = insightface_val(squared / 2, same, far=1 / 36)
    assert (tar, far) == pytest.approx((1 / 10, 0.5 / 10))
    assert std == pytest.approx(0.3)
    # FAR 1/18 is reached exactly, from 0.101 to 1.800: at 1.800 all positives are accepted.
    assert insightface_val(squared / 2, same, far=1 / 18) == pytest.approx((1, 0, 0.5 / 10))
    # A positive pair of fold 1 at that very threshold is not under it: one of 20.
    squared[4] = np.arange(0, 4, 0.001)[1800]
    assert insightface_val(squared / 2, same, far=1 / 18)[0] == pytest.approx(0.95)
    # FAR 1 is reached, and not exceeded, from 1.801 on: the last threshold, 3.999, accepts all.
    assert insightface_val(squared / 2, same, far=1) == (1.0, 0.0, 1.0)


def test_insightface_val_of_an_unreachable_far_accepts_nothing():
    """The grid ends before 4: opposite vectors are never accepted, and FAR 1 is out of reach."""
    same = np.arange(40) % 2 == 0
    assert insightface_val(np.where(same, 0.5, 2.0), same, far=1e-3) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("judge", [*MODES, "val"])
@pytest.mark.parametrize(
    ("distance", "same", "message"),
    [
        (np.ones(9), np.ones(9, bool), "9 pairs"),
        (np.ones(20), np.ones(19, bool), r"\[20\] and labels \[19\]"),
        (np.ones((10, 2)), np.ones((10, 2), bool), r"\[10, 2\] and labels \[10, 2\]"),
        (np.full(20, np.nan), np.ones(20, bool), "pair 0 is nan"),
        (np.array([1.0] * 19 + [-np.inf]), np.ones(20, bool), "pair 19 is -inf"),
        (np.ones(20), np.ones(20, bool), "all 20 pairs are positive.* needs negative"),
        (np.ones(20), np.zeros(20, bool), "all 20 pairs are negative.* needs positive"),
    ],
)
def test_bad_input_is_refused(distance, same, message, judge):
    function, kept = (insightface_val, {}) if judge == "val" else (kfold, {"thresholds": judge})
    with pytest.raises(InputError, match=message):
        function(distance, same, **kept)


def test_unknown_modes_and_impossible_fars_are_refused():
    with pytest.raises(InputError, match="did you mean 'exact'"):
        crfr.kfold_accuracy(np.ones(20), np.ones(20, bool), thresholds="exakt")
    for far in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(InputError, match=f"far {far}"):
            insightface_val(*pairs(), far=far)


def test_insightface_val_needs_both_kinds_in_every_fold():
    same = np.arange(40) % 2 == 0
    same[8:12] = False
    with pytest.raises(InputError, match=r"fold 2 of 0\.\.9 has no positive pair"):
        insightface_val(np.linspace(0, 1, 40), same)
