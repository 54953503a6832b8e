"""TAR at FAR, EER, AUC, bootstrap intervals and the paired test: against plain references, by hand,
and by simulation."""

import itertools
import math

import numpy as np
import pytest

from crfr.errors import InputError
from crfr.evaluate.statistics import (
    FARS,
    accuracy_draws,
    fold_weights,
    interval,
    paired_test,
    resampling,
    roc_figures,
)
from crfr.evaluate.verification import kfold


def pairs(n, seed=0, gap=0.3, decimals=16):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.4
    same[:2] = True, False
    return np.round(rng.normal(0.9, 0.15, n) - gap * same, decimals), same


def plain_figures(distance, same):
    """The definitions, one threshold at a time."""
    levels = np.unique(distance)
    candidates = [levels[0] - 5e-4, *(levels[1:] + levels[:-1]) / 2, levels[-1] + 5e-4]
    positives, negatives = distance[same], distance[~same]
    points = [(np.mean(negatives < t), np.mean(positives < t), t) for t in candidates]
    tar, thresholds = {}, {}
    for target in FARS:
        name = f"{target:g}"
        tar[name] = thresholds[name] = None
        if target * len(negatives) >= 10:
            tar[name], thresholds[name] = [p for p in points if p[0] <= target][-1][1:]
    for (far0, tar0, _), (far1, tar1, _) in itertools.pairwise(points):
        if far0 < 1 - tar0 and far1 >= 1 - tar1:
            # far0 + x (far1 - far0) = 1 - tar0 - x (tar1 - tar0)
            x = (1 - tar0 - far0) / (far1 - far0 + tar1 - tar0)
            eer = far0 + x * (far1 - far0)
    closer = np.mean([np.mean(positives < d) + np.mean(positives == d) / 2 for d in negatives])
    return {"tar": tar, "far_threshold": thresholds, "eer": eer, "auc": closer}


@pytest.mark.parametrize("decimals", [1, 2, 16])
@pytest.mark.parametrize("n", [10, 50, 400, 3000])
@pytest.mark.parametrize("gap", [0, 0.3, 3, -0.3])
def test_roc_figures_equal_the_plain_definitions(n, gap, decimals):
    distance, same = pairs(n, seed=n, gap=gap, decimals=decimals)
    for kind in (np.float64, np.float32):
        figures = roc_figures(distance.astype(kind), same)
        expected = plain_figures(distance.astype(kind).astype(np.float64), same)
        for name in ("tar", "far_threshold"):
            assert figures[name] == pytest.approx(expected[name], abs=1e-15)
        assert figures["eer"] == pytest.approx(expected["eer"], abs=1e-14)
        assert figures["auc"] == pytest.approx(expected["auc"], abs=1e-14)


def test_auc_is_mann_whitneys_statistic():
    stats = pytest.importorskip("scipy.stats")
    for decimals in (1, 16):
        distance, same = pairs(6000, decimals=decimals)
        u = stats.mannwhitneyu(distance[~same], distance[same]).statistic
        expected = u / (same.sum() * (~same).sum())
        assert roc_figures(distance, same)["auc"] == pytest.approx(expected, abs=1e-14)


def test_tar_at_far_by_hand():
    """100 negatives at 0.00, 0.01, .. 0.99; a FAR of 0.1 lets in ten, 0.00 to 0.09."""
    negatives = np.arange(100) / 100
    positives = np.array([-0.5, 0.085, 0.0949, 0.0951, 0.2])
    distance = np.concatenate([negatives, positives])
    same = np.arange(105) >= 100
    figures = roc_figures(distance, same)
    # The largest threshold below 0.1 lies between the positive at 0.0951 and the negative at 0.1.
    assert figures["tar"]["0.1"] == pytest.approx(4 / 5)
    assert figures["far_threshold"]["0.1"] == pytest.approx((0.0951 + 0.1) / 2)
    assert figures["tar"]["0.01"] is None
    assert figures["far_threshold"]["0.01"] is None


def test_equal_distances_are_accepted_together_or_not_at_all():
    # eleven of 100 negatives at one distance: letting ten of them in is no threshold's doing
    distance = np.concatenate([np.full(11, 0.5), np.full(89, 0.9), np.full(20, 0.5)])
    figures = roc_figures(distance, np.arange(120) >= 100)
    assert figures["tar"]["0.1"] == 0.0
    assert figures["far_threshold"]["0.1"] == pytest.approx(0.5 - 5e-4)


def test_eer_and_auc_by_hand():
    # positives 1 2 3 4 6, negatives 5 7 8 9 10: at thresholds 4.5 FAR 0, FRR 1/5; 5.5 1/5, 1/5
    distance = np.array([1, 2, 3, 4, 6, 5, 7, 8, 9, 10]) / 10
    same = np.arange(10) < 5
    figures = roc_figures(distance, same)
    assert figures["eer"] == pytest.approx(1 / 5)
    assert figures["auc"] == pytest.approx(24 / 25)
    # all at one distance: the ROC is its diagonal
    figures = roc_figures(np.full(10, 0.5), same)
    assert figures["eer"] == figures["auc"] == 0.5
    # one negative tied with two positives: from (FAR 0, FRR 2/5) to (1/5, 0), which meet at 2/15
    distance = np.array([1, 2, 3, 5, 5, 5, 7, 8, 9, 10]) / 10
    figures = roc_figures(distance, same)
    assert figures["eer"] == pytest.approx(2 / 15)
    assert figures["auc"] == pytest.approx(24 / 25)


def test_separated_pairs_have_no_error():
    same = np.arange(2000) % 2 == 0
    figures = roc_figures(np.where(same, 0.2, 0.8), same)
    assert figures["tar"]["0.1"] == figures["tar"]["0.01"] == 1.0
    # accepting the first negative would accept all of them
    assert figures["far_threshold"]["0.01"] == pytest.approx(0.5)
    assert (figures["eer"], figures["auc"]) == (0.0, 1.0)
    figures = roc_figures(np.where(same, 0.8, 0.2), same)  # a model that is wrong throughout
    assert (figures["eer"], figures["auc"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("negatives", "declined", "reason"),
    [
        (3000, ["0.001", "0.0001"], "FAR 0.001 and 0.0001 of 3,000 negatives are 3 and 0.3 pairs"),
        (10_000, ["0.0001"], "FAR 0.0001 of 10,000 negatives is 1 pair, under 10"),
        (99, [f"{far:g}" for far in FARS], "FAR 0.1, 0.01, 0.001 and 0.0001 of 99 negatives are"),
        (100_000, [], None),
    ],
)
def test_a_tar_that_rests_on_under_ten_pairs_is_declined(negatives, declined, reason):
    same = np.arange(negatives + 20) >= negatives
    figures = roc_figures(np.random.default_rng(0).random(len(same)), same)
    assert [name for name, value in figures["tar"].items() if value is None] == declined
    assert [name for name, value in figures["far_threshold"].items() if value is None] == declined
    if reason is None:
        assert figures["tar_reason"] is None
    else:
        assert figures["tar_reason"].startswith(reason)
        assert figures["tar_reason"].endswith(", under 10")


@pytest.mark.parametrize("n", [10, 19, 113, 6000])
def test_fold_weights_give_the_accuracy_of_kfold(n):
    distance, same = pairs(n, seed=n)
    verdict = kfold(distance, same)
    assert fold_weights(n).sum() == pytest.approx(1, abs=1e-14)
    assert fold_weights(n) @ verdict.correct == pytest.approx(verdict.accuracy, abs=1e-14)


@pytest.mark.parametrize("n", [10, 19, 113, 7000])
def test_resampling_weighs_drawn_pairs_as_their_folds_do(n):
    weights = resampling(n, draws=200)
    assert weights.shape == (200, n)
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights.sum(1, dtype=np.float64), 1, atol=1e-6)
    # what is left after the folds' weights is how often a pair was drawn, up to a factor
    times = weights / fold_weights(n)
    times /= times.sum(1, keepdims=True) / n
    np.testing.assert_allclose(times, np.rint(times), atol=1e-4)
    assert times.mean() == pytest.approx(1)
    # a draw with replacement leaves out a share of about 1/e, and its counts have variance 1 - 1/n
    assert times.var() == pytest.approx(1 - 1 / n, rel=0.1)


def test_resampling_is_seeded():
    first = resampling(50, draws=20)
    np.testing.assert_array_equal(first, resampling(50, draws=20))
    np.testing.assert_array_equal(first[:10], resampling(50, draws=10))
    assert (first != resampling(50, draws=20, seed=1)).any()
    assert len(np.unique(first, axis=0)) == 20
    assert len(resampling(10)) == 1000


def test_accuracy_draws_are_weighted_means():
    weights = resampling(113, draws=30)
    scores = np.random.default_rng(0).choice([0, 0.5, 1], (4, 113))
    expected = [[(weight * score).sum() for weight in weights] for score in scores]
    np.testing.assert_allclose(accuracy_draws(scores, weights), expected, atol=1e-6)
    verdicts = scores == 1
    same = accuracy_draws(verdicts.astype(np.float32), weights)
    np.testing.assert_array_equal(accuracy_draws(verdicts, weights), same)


def test_a_model_without_errors_has_an_interval_of_no_width():
    weights = resampling(7000, draws=100)
    low, high = interval(accuracy_draws(np.ones((1, 7000)), weights))
    assert (low[0], high[0]) == (1.0, 1.0)


def test_interval_is_the_percentiles():
    draws = np.stack([np.arange(1001) / 1000, np.full(1001, 0.25)])
    low, high = interval(draws[:, np.random.default_rng(0).permutation(1001)])
    np.testing.assert_allclose(low, [0.025, 0.25], atol=1e-12)
    np.testing.assert_allclose(high, [0.975, 0.25], atol=1e-12)
    low, high = interval(draws, level=0.5)
    np.testing.assert_allclose((low[0], high[0]), (0.25, 0.75), atol=1e-12)


def test_a_wide_benchmark_has_the_binomials_interval():
    """6,000 pairs, 95 % right: the normal approximation's half-width is 1.96 sqrt(.95 .05 / n)."""
    scores = (np.arange(6000) % 20 > 0)[None]
    low, high = interval(accuracy_draws(scores, resampling(6000)))
    half = 1.96 * math.sqrt(0.95 * 0.05 / 6000)
    assert low[0] == pytest.approx(0.95 - half, abs=0.1 * half)
    assert high[0] == pytest.approx(0.95 + half, abs=0.1 * half)


@pytest.mark.parametrize("n", [500, 505])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_intervals_cover_a_known_accuracy_as_often_as_they_say(n, level):
    simulations, accuracy = 1000, 0.85
    scores = np.random.default_rng(0).random((simulations, n)) < accuracy
    low, high = interval(accuracy_draws(scores, resampling(n)), level)
    coverage = np.mean((low <= accuracy) & (accuracy <= high))
    # three standard errors of the simulation, and a point for the percentiles of 1,000 draws
    assert abs(coverage - level) < 3 * math.sqrt(level * (1 - level) / simulations) + 0.01


def test_chosen_thresholds_cost_the_interval_some_of_its_coverage():
    """Distances N(0.4, 0.1) and N(0.7, 0.1), best told apart at 0.55: 93.3 % right.

    The intervals hold the folds' thresholds fixed, while other pairs would have chosen others: of
    2,000 simulations 91 % of the 95 % intervals held the truth, as the module says.
    """
    rng = np.random.default_rng(0)
    n, simulations = 1000, 400
    accuracy = 0.5 * (1 + math.erf(1.5 / math.sqrt(2)))
    same = np.arange(n) % 2 == 0
    centre = np.where(same, 0.4, 0.7)
    scores = [kfold(rng.normal(centre, 0.1), same).correct for _ in range(simulations)]
    low, high = interval(accuracy_draws(np.stack(scores), resampling(n)))
    coverage = np.mean((low <= accuracy) & (accuracy <= high))
    assert abs(coverage - 0.91) < 3 * math.sqrt(0.91 * 0.09 / simulations)


def test_paired_intervals_cover_a_known_difference():
    """Two models that err together: right with 0.9 and 0.85, and the second only with the first."""
    rng = np.random.default_rng(0)
    n, simulations = 500, 300
    weights = resampling(n)
    covered, small = 0, 0
    for _ in range(simulations):
        luck = rng.random(n)
        first, second = luck < 0.9, luck < 0.85
        result = paired_test(first, second, weights)
        covered += result["low"] <= 0.05 <= result["high"]
        swap = rng.random(n) < 0.5  # gives two models that are equally good
        equal = np.where(swap, first, second), np.where(swap, second, first)
        small += paired_test(*equal, weights[:10])["p_value"] <= 0.05
    error = 3 * math.sqrt(0.95 * 0.05 / simulations)
    assert abs(covered / simulations - 0.95) < error + 0.01
    # An exact test is never too bold; on 25 discordant pairs its levels are 1 to 5 %.
    assert 0.01 < small / simulations < 0.05 + error


@pytest.mark.parametrize("seed", range(30))
def test_p_value_is_the_share_of_sign_patterns(seed):
    """Every pattern of signs, counted."""
    rng = np.random.default_rng(seed)
    first, second = rng.choice([0, 0.5, 1], (2, 14), p=rng.dirichlet(np.ones(3)))
    gap = first - second
    signs = np.array(list(itertools.product([-1, 1], repeat=14)))
    expected = np.mean(np.abs(signs @ gap) >= abs(gap.sum()) - 1e-9)
    weights = resampling(14, draws=10)
    assert paired_test(first, second, weights)["p_value"] == pytest.approx(expected, rel=1e-12)
    assert paired_test(second, first, weights)["p_value"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("better", "worse"),
    [(0, 0), (1, 0), (5, 5), (12, 3), (3, 12), (900, 700), (3000, 2900), (400, 0)],
)
@pytest.mark.parametrize("unit", [1.0, 0.5])
def test_p_value_is_mcnemars(better, worse, unit):
    stats = pytest.importorskip("scipy.stats")
    n = 6000
    first, second = np.ones((2, n))
    second[:better] -= unit
    first[better : better + worse] -= unit
    result = paired_test(first, second, resampling(n, draws=50))
    p = stats.binomtest(better, better + worse, 0.5).pvalue if better + worse else 1.0
    assert result["p_value"] == pytest.approx(p, rel=1e-9)
    assert result["difference"] == pytest.approx(unit * (better - worse) / n, abs=1e-12)


def test_p_values_of_thousands_of_mixed_pairs_are_the_convolution():
    stats = pytest.importorskip("scipy.stats")
    n, ones, twos = 7000, 3000, 2500
    for seed, bias in ((0, 0.5), (1, 0.52), (2, 0.6)):
        rng = np.random.default_rng(seed)
        sizes = np.concatenate([np.full(ones, 0.5), np.full(twos, 1.0), np.zeros(n - ones - twos)])
        gap = sizes * np.where(rng.random(n) < bias, 1, -1)
        first, second = np.clip(gap, 0, 1), np.clip(-gap, 0, 1)
        observed = round(2 * abs(gap.sum()))
        heads = np.arange(ones + 1)
        need = (observed - (2 * heads - ones) + 2 * twos) / 4
        tail = stats.binom.sf(np.ceil(need) - 1, twos, 0.5)
        expected = min(1, 2 * (stats.binom.pmf(heads, ones, 0.5) * tail).sum())
        result = paired_test(first, second, resampling(n, draws=10))
        assert result["p_value"] == pytest.approx(expected, rel=1e-8)


def test_paired_difference_and_interval():
    n = 113
    rng = np.random.default_rng(0)
    distance, same = pairs(n)
    first = kfold(distance, same)
    second = kfold(distance + 0.2 * rng.normal(size=n), same)
    weights = resampling(n)
    result = paired_test(first.correct, second.correct, weights)
    assert result["difference"] == pytest.approx(first.accuracy - second.accuracy, abs=1e-14)
    draws = accuracy_draws(np.stack([first.correct, second.correct]), weights)
    low, high = interval((draws[0] - draws[1])[None])
    assert (result["low"], result["high"]) == pytest.approx((low[0], high[0]), abs=1e-6)
    assert set(result) == {"difference", "low", "high", "p_value"}


def test_a_model_does_not_differ_from_itself():
    scores = np.random.default_rng(0).choice([0, 0.5, 1], 100)
    result = paired_test(scores, scores, resampling(100, draws=50))
    assert result == {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}


@pytest.mark.parametrize(
    ("distance", "same", "message"),
    [
        (np.ones(9), np.ones(9, bool), "9 pairs"),
        (np.ones(20), np.ones(19, bool), r"\[20\] and labels \[19\]"),
        (np.full(20, np.inf), np.ones(20, bool), "pair 0 is inf"),
        (np.ones(20), np.ones(20, bool), "all 20 pairs are positive"),
        (np.ones(20), np.zeros(20, bool), "all 20 pairs are negative"),
    ],
)
def test_bad_pairs_are_refused(distance, same, message):
    with pytest.raises(InputError, match=message):
        roc_figures(distance, same)


def test_bad_arguments_are_refused():
    weights = resampling(20, draws=5)
    with pytest.raises(InputError, match=r"\[20\] and \[19\]"):
        paired_test(np.ones(20), np.ones(19), weights)
    with pytest.raises(InputError, match=r"weights \[5, 20\]"):
        paired_test(np.ones(21), np.ones(21), weights)
    with pytest.raises(InputError, match=r"score of pair 3 is 0\.25"):
        paired_test(np.ones(20), np.where(np.arange(20) == 3, 0.25, 1), weights)
    with pytest.raises(InputError, match="score of pair 0 is nan"):
        paired_test(np.full(20, np.nan), np.ones(20), weights)
    with pytest.raises(InputError, match="9 pairs"):
        resampling(9)
    with pytest.raises(InputError, match="0 draws"):
        resampling(20, draws=0)
    with pytest.raises(InputError, match="level 95"):
        interval(np.ones((1, 5)), level=95)
