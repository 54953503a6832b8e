"""What verification distances say beyond accuracy, and how sure one can be of it.

Intervals and tests take pairs as independent, and the folds' thresholds as given.  The pairs of the
usual benchmarks share images and people, and other pairs would choose other thresholds, so that
intervals are somewhat too narrow and p-values somewhat too small.  The thresholds alone make the
standard deviation of the accuracy a tenth larger: in simulations with two normal distributions of
distances, 91 % (of 1,000 pairs) and 92 % (of 6,000) of the 95 % intervals held the best accuracy.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from numpy.typing import ArrayLike

from crfr.errors import InputError
from crfr.evaluate.verification import FOLDS, candidate, check_pairs, fold_of

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
FEWEST = 10  # false acceptances that a FAR has to stand for, or its TAR is noise


def far_name(far: float) -> str:
    """A FAR as it is called in results: 0.001 is "0.001"."""
    return f"{far:g}"


def too_few(far: float, negatives: int) -> bool:
    """Whether a FAR stands for so few of the negative pairs that it cannot be measured."""
    return far * negatives < FEWEST


def far_threshold(
    distance: Float64[np.ndarray, " p"], same: Bool[np.ndarray, " p"], far: float
) -> float:
    """The largest exact threshold (midpoints of distinct distances, one below all, one above) that
    accepts at most a share `far` of the negative pairs; of pairs in rising order of distance.
    """
    wrongly = np.concatenate([[0], np.cumsum(~same)])  # [i]: of accepting the i smallest
    # no threshold comes between equal distances
    ends = np.concatenate([[0], np.flatnonzero(distance[1:] != distance[:-1]) + 1, [len(same)]])
    point = int(np.searchsorted(wrongly[ends] / wrongly[-1], far, side="right")) - 1
    return candidate(distance, int(ends[point]))


def roc_figures(distance: ArrayLike, same: ArrayLike) -> dict:
    """TAR at FAR, EER and AUC of pairs; same identity iff d < t.

    Args:
      distance: cosine distances [p], p >= 10.
      same: [p], whether a pair shows one identity.

    Returns:
      tar: for each of FARS, by its name ("0.1"), the share of positive pairs accepted at
        far_threshold; None where FAR x negatives is under 10.
      tar_reason: None, or why some are None.
      far_threshold: likewise, the largest exact threshold (midpoints of distinct distances, one
        below all, one above) that accepts at most this share of the negative pairs; a cosine
        distance.
      eer: the error rate where FAR = FRR, on the straight line between the two neighbouring points
        of the ROC.
      auc: the probability that a positive pair is closer than a negative one, ties half (the area
        under the ROC).

    Raises:
      InputError: as `verification.kfold`.
    """
    distance, same = check_pairs(distance, same)
    order = np.argsort(distance)
    distance, same = distance[order], same[order]
    # The ROC's points: how many pairs each threshold accepts; none comes between equal distances.
    ends = np.flatnonzero(distance[1:] != distance[:-1]) + 1
    accepted = np.concatenate([[0], ends, [len(distance)]])
    rightly = np.concatenate([[0], np.cumsum(same)])[accepted]
    wrongly = accepted - rightly
    positives, negatives = int(rightly[-1]), int(wrongly[-1])
    tar, thresholds, declined = {}, {}, []
    far = wrongly / negatives
    for target in FARS:
        name = far_name(target)
        if too_few(target, negatives):
            tar[name] = thresholds[name] = None
            declined.append((name, f"{target * negatives:g}"))
            continue
        point = int(np.searchsorted(far, target, side="right")) - 1
        tar[name] = int(rightly[point]) / positives
        thresholds[name] = candidate(distance, int(accepted[point]))
    doubled = np.diff(wrongly) * (rightly[1:] + rightly[:-1])  # trapezoids, in whole numbers
    return {
        "tar": tar,
        "tar_reason": reason(declined, negatives),
        "far_threshold": thresholds,
        "eer": equal_error_rate(far, 1 - rightly / positives),
        "auc": int(doubled.sum()) / (2 * positives * negatives),
    }


def reason(declined: list[tuple[str, str]], negatives: int) -> str | None:
    """Why the TAR is None at the declined (FAR, FAR x negatives); None where there are none."""
    if not declined:
        return None
    levels, counts = (
        " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        for names in zip(*declined, strict=True)
    )
    verb = "is" if len(declined) == 1 else "are"
    noun = "pair" if counts == "1" else "pairs"
    return f"FAR {levels} of {negatives:,} negatives {verb} {counts} {noun}, under {FEWEST}"


def equal_error_rate(far: Float64[np.ndarray, " t"], frr: Float64[np.ndarray, " t"]) -> float:
    """Where FAR = FRR, between the last point of the ROC with FAR < FRR and the one after it."""
    excess = far - frr  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    share = excess[after - 1] / (excess[after - 1] - excess[after])
    return float(far[after - 1] + share * (far[after] - far[after - 1]))


def fold_weights(pairs: int) -> Float64[np.ndarray, " p"]:
    """The weight of each pair in the mean of the folds' accuracies: 1 / (10 x its fold's pairs)."""
    fold = fold_of(pairs)
    return 1 / (FOLDS * np.bincount(fold)[fold])


def resampling(pairs: int, *, draws: int = 1000, seed: int = 0) -> Float64[np.ndarray, "draws p"]:
    """Weights of a bootstrap over pairs: each row a draw, and sums to 1.

    A draw takes `pairs` pairs with replacement from all of them.  A pair weighs what it weighs in
    the mean of the folds' accuracies, 1 / (10 x the pairs of its fold), times how often it was
    drawn, divided by the sum.  So with equal folds each drawn pair weighs 1 / pairs; with unequal
    ones a pair of a smaller fold weighs a little more, as in the accuracy itself, and all pairs
    drawn once would give that accuracy.

    The same pairs, draws and seed give the same weights: models and resolutions measured on one
    benchmark are resampled together, which comparing them needs.
    """
    if pairs < FOLDS or draws < 1:
        raise InputError(f"{pairs} pairs, {draws} draws: give at least {FOLDS} pairs and 1 draw")
    rng = np.random.default_rng(seed)
    weight = fold_weights(pairs)
    rows = np.empty((draws, pairs))
    for row in rows:  # one at a time: the drawn indices of all would take twice the memory
        drawn = weight * np.bincount(rng.integers(pairs, size=pairs), minlength=pairs)
        row[:] = drawn / drawn.sum()
    return rows


def accuracy_draws(
    scores: Float[np.ndarray, "m p"] | Bool[np.ndarray, "m p"],
    weights: Float64[np.ndarray, "draws p"],
) -> Float32[np.ndarray, "m draws"]:
    """The accuracy of m rows in each draw, by one matrix product.

    `scores` [m p] is the share of right verdicts on each pair: `Verdict.correct`, or the mean of
    several.  Verdicts are those at the folds' thresholds of all pairs; no threshold is chosen anew.
    Summed in float64 and rounded to float32, so that a row's draws do not depend on the rows beside
    it.
    """
    # Through the errors, so that rows without one are exactly 1 in every draw.
    wrong = (1 - scores.astype(np.float64)) @ weights.T
    return (1 - np.clip(wrong, 0, 1, out=wrong)).astype(np.float32)


def interval(
    draws: Float[np.ndarray, "m draws"], level: float = 0.95
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """(low, high) [m] of the central interval that holds `level` of each row's draws (percentile
    bootstrap)."""
    if not 0 < level < 1:
        raise InputError(f"level {level}: give a fraction between 0 and 1, such as 0.95")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return low.astype(np.float64), high.astype(np.float64)


def binomial(n: int) -> Float64[np.ndarray, " k"]:
    """The probabilities of 0..n heads in n throws of a fair coin."""
    logs = np.array([math.lgamma(k + 1) for k in range(n + 1)])
    return np.exp(logs[-1] - logs - logs[::-1] - n * math.log(2))


def sign_flip(halves: Int[np.ndarray, " p"]) -> float:
    """The probability that |sum of halves| is at least what it is if every sign is a fair coin's.

    The elements are 0, +-1 or +-2.  With the signs of a ones and b twos at random, the sum is
    (2 H - a) + 2 (2 K - b) with H and K heads of a and b throws: a convolution of two binomials,
    summed from its far tail so that small probabilities keep their digits (under 1e-300 they
    become 0).
    """
    ones, twos = (int((np.abs(halves) == size).sum()) for size in (1, 2))
    observed = abs(int(halves.sum()))
    if observed == 0:
        return 1.0
    tail = np.zeros(twos + 2)  # [k]: at least k heads
    tail[:-1] = np.cumsum(binomial(twos)[::-1])[::-1]
    # For each H the fewest K that take the sum to `observed`: 4 K >= observed - (2 H - a) + 2 b.
    need = observed - (2 * np.arange(ones + 1) - ones) + 2 * twos
    fewest = np.clip(-(-need // 4), 0, twos + 1)
    return min(1.0, 2 * float((binomial(ones) * tail[fewest]).sum()))


def paired_test(
    first: ArrayLike, second: ArrayLike, weights: Float64[np.ndarray, "draws p"]
) -> dict[str, float]:
    """Whether two models (or settings) differ in accuracy on the same pairs.

    Args:
      first, second: [p] the share of right verdicts on each pair: 0, 1, or 0.5 where the mean of
        two scenarios is measured.
      weights: of `resampling`.

    Returns:
      difference: first's accuracy minus second's, the mean over folds.
      low, high: its 95 % percentile bootstrap interval over pairs.
      p_value: two-sided, of the exact sign-flip test: were both equally good, each pair's
        difference would as likely have the other sign; the probability of a sum at least as far
        from 0 as the one observed.  Every pair counts the same here, also in unequal folds.  For
        0/1 verdicts it is McNemar's exact test.

    Raises:
      InputError: lengths that differ, scores other than 0, 0.5 and 1.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 1 or first.shape != second.shape or first.shape != weights.shape[1:]:
        raise InputError(
            f"scores {list(first.shape)} and {list(second.shape)}, weights {list(weights.shape)}: "
            "a paired test takes both models' scores on the same pairs, and weights for them"
        )
    for scores in (first, second):
        odd = np.flatnonzero(~np.isin(scores, (0, 0.5, 1)))
        if len(odd):
            raise InputError(
                f"the score of pair {odd[0]} is {scores[odd[0]]}: the paired test takes 0, 0.5 and "
                "1, verdicts or the mean of two"
            )
    gap = first - second
    draws = weights @ gap.astype(np.float64)
    low, high = interval(draws[None])
    return {
        "difference": float(fold_weights(len(gap)) @ gap),
        "low": float(low[0]),
        "high": float(high[0]),
        "p_value": sign_flip(np.rint(2 * gap).astype(np.int64)),
    }
