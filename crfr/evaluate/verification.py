"""Verification accuracy by 10-fold cross-validated thresholds (paper section 3.4).

Two images are called the same identity where their cosine distance d < t; accuracy is (TP + TN) / N
(eq. 3, whose FN is a slip).  Folds are contiguous and unshuffled, as in LFW's protocol: the
threshold that is best on nine folds is scored on the tenth.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy.typing import ArrayLike

from crfr.errors import InputError, unknown

FOLDS = 10
# The peers' grids, as their scripts have them.  InsightFace's is on the squared L2 distance of unit
# vectors, which is twice the cosine distance; Knoche's is on the cosine distance itself.
GRIDS = {"insightface": (np.arange(0, 4, 0.01), 2.0), "knoche": (np.arange(0, 2, 0.001), 1.0)}
MODES = ("exact", *GRIDS)
VAL_GRID = np.arange(0, 4, 0.001)  # InsightFace's for TAR at FAR, on the squared L2 distance
BEYOND = 5e-4  # how far the outermost exact candidates lie beyond the extreme distances


@dataclass(frozen=True)
class Verdict:
    """What cross-validation says of a list of pairs; fractions, and thresholds as cosine distances.

    `accuracy` and `std` are the mean and the population's standard deviation over the folds,
    `threshold` is the mean of `fold_thresholds`, and `correct` says of each pair whether the
    threshold of the fold that held it out judged it rightly.
    """

    accuracy: float
    std: float
    threshold: float
    fold_thresholds: Float64[np.ndarray, " folds"]
    correct: Bool[np.ndarray, " p"]


def fold_of(pairs: int) -> Int[np.ndarray, " p"]:
    """The fold 0..9 of each of `pairs` pairs: contiguous, the first `pairs % 10` one pair larger.

    So does scikit-learn's KFold without shuffling, which the peers use.
    """
    sizes = [pairs // FOLDS + (fold < pairs % FOLDS) for fold in range(FOLDS)]
    return np.repeat(np.arange(FOLDS), sizes)


def check_pairs(
    distance: ArrayLike, same: ArrayLike
) -> tuple[Float64[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
    """The distances in float64 and the labels as booleans.

    Raises:
      InputError: shapes that differ, fewer than 10 pairs, pairs of one kind only, a distance that
        is not finite.
    """
    distance = np.asarray(distance, np.float64)
    same = np.asarray(same, bool)
    if distance.ndim != 1 or distance.shape != same.shape:
        raise InputError(
            f"distances {list(distance.shape)} and labels {list(same.shape)}: give one of "
            "each a pair"
        )
    if len(distance) < FOLDS:
        raise InputError(f"{len(distance)} pairs: {FOLDS} folds need at least {FOLDS}")
    if not np.isfinite(distance).all():
        first = int(np.flatnonzero(~np.isfinite(distance))[0])
        raise InputError(
            f"the distance of pair {first} is {distance[first]}: the embeddings are not finite"
        )
    if same.all() or not same.any():
        only, missing = ("positive", "negative") if same.all() else ("negative", "positive")
        raise InputError(f"all {len(same)} pairs are {only}: verification needs {missing} ones too")
    return distance, same


def candidate(distance: Float64[np.ndarray, " p"], accepted: int) -> float:
    """The exact threshold that accepts the first `accepted` of rising distances and no other.

    Half-way to the next distance, which has to be larger; 0.0005 below or above all at the ends.
    """
    if accepted == 0:
        return float(distance[0]) - BEYOND
    if accepted == len(distance):
        return float(distance[-1]) + BEYOND
    below, above = float(distance[accepted - 1]), float(distance[accepted])
    middle = (below + above) / 2
    # Of two neighbouring floats the middle rounds to one of them, and d < below would refuse it.
    return middle if middle > below else above


def exact_threshold(distance: Float64[np.ndarray, " p"], gain: Int[np.ndarray, " p"]) -> float:
    """The smallest of the best thresholds for pairs in rising order of distance.

    `gain` is what accepting a pair adds to TP + TN: 1 for a positive, -1 for a negative one.
    Candidates are the midpoints of distinct distances, one below all and one above.
    """
    score = np.zeros(len(gain) + 1, np.int64)  # [i]: of accepting the i smallest
    np.cumsum(gain, out=score[1:])
    # No threshold comes between equal distances: their inner scores must not win.
    score[1:-1][distance[1:] == distance[:-1]] = -len(gain) - 1
    return candidate(distance, int(np.argmax(score)))  # the first, so the smallest threshold


def training_sums(
    distance: Float64[np.ndarray, " p"],
    value: Int[np.ndarray, " p"],
    fold: Int[np.ndarray, " p"],
    grid: Float64[np.ndarray, " t"],
) -> Float64[np.ndarray, "folds t"]:
    """The sum of `value` over the pairs outside each fold that each threshold of the grid accepts.

    Sums of integers, so exact.
    """
    # d < grid[j] for all j from here on; len(grid) where no threshold accepts the pair
    first = np.searchsorted(grid, distance, side="right")
    columns = len(grid) + 1
    cell = np.bincount(fold * columns + first, weights=value, minlength=FOLDS * columns)
    cell = cell.reshape(FOLDS, columns)[:, :-1]
    return np.cumsum(cell.sum(0) - cell, axis=1)


def kfold(distance: ArrayLike, same: ArrayLike, *, thresholds: str = "exact") -> Verdict:
    """Judges pairs by 10 contiguous folds, each by the threshold that is best on the other nine.

    Args:
      distance: cosine distances [p], p >= 10.
      same: [p], whether a pair shows one identity.
      thresholds: "exact" (midpoints of the distinct distances of the nine training folds, one
        0.0005 below all and one as much above), or the grid of "insightface" (0..4 by 0.01, on
        twice the cosine distance) or "knoche" (0..2 by 0.001).  The grids decide as the peers'
        scripts do on the same float64 numbers; rounding (float32 embeddings, 1 - cos instead of
        squared differences) can move a pair that lies on a grid point.

    Returns:
      The Verdict.  Of equally good thresholds the smallest is taken.

    Raises:
      InputError: shapes that differ, fewer than 10 pairs, pairs of one kind only, a distance that
        is not finite, an unknown mode.

    Sources: deepinsight/insightface, recognition/arcface_torch/eval/verification.py
    (calculate_roc); M. Knoche's evaluation script for XQLFW (k_fold_cross_validation).
    """
    if thresholds not in MODES:
        raise unknown("thresholds", thresholds, MODES)
    distance, same = check_pairs(distance, same)
    fold, gain = fold_of(len(distance)), np.where(same, 1, -1)
    if thresholds == "exact":
        order = np.argsort(distance)
        ordered, gains, folds = distance[order], gain[order], fold[order]
        chosen = np.empty(FOLDS)
        for held_out in range(FOLDS):
            train = folds != held_out
            chosen[held_out] = exact_threshold(ordered[train], gains[train])
        correct = (distance < chosen[fold]) == same
    else:
        grid, factor = GRIDS[thresholds]
        score = training_sums(factor * distance, gain, fold, grid)
        chosen = grid[np.argmax(score, axis=1)]  # the first, so the smallest threshold
        correct = (factor * distance < chosen[fold]) == same
        chosen = chosen / factor
    accuracies = np.bincount(fold, weights=correct) / np.bincount(fold)
    return Verdict(
        float(accuracies.mean()), float(accuracies.std()), float(chosen.mean()), chosen, correct
    )


def kfold_accuracy(
    distance: ArrayLike, same: ArrayLike, *, thresholds: str = "exact"
) -> tuple[float, float, float]:
    """(accuracy, its standard deviation over folds, threshold) of pairs, by 10 contiguous folds.

    Fractions, and the mean of the folds' thresholds as a cosine distance.  Arguments, ties and
    errors as in `kfold`, which says more.
    """
    verdict = kfold(distance, same, thresholds=thresholds)
    return verdict.accuracy, verdict.std, verdict.threshold


def insightface_val(
    distance: ArrayLike, same: ArrayLike, far: float = 1e-3
) -> tuple[float, float, float]:
    """(TAR, its population standard deviation over folds, FAR) by InsightFace's procedure.

    For each of 10 contiguous folds, the threshold on the squared L2 distance (twice the cosine
    distance, grid 0..4 by 0.001) at which the FAR of the other nine is `far`, by linear
    interpolation of the threshold over the FAR; 0 where the FAR of the whole grid stays under
    `far`.  TAR and FAR are then measured on the fold itself, and their means returned.

    Where thresholds share a FAR, the interpolation of the published script (SciPy's interp1d, kind
    "slinear") refuses the input.  Here the threshold lies between the last one whose FAR is at most
    `far` and the first whose FAR is above it; all others are left out.  This is the published
    procedure where that works, and what interp1d's kind "linear" gives elsewhere.

    Args:
      distance: cosine distances [p], p >= 10.
      same: [p], whether a pair shows one identity; both kinds in every fold.
      far: the target, a fraction in (0, 1].

    Raises:
      InputError: as `kfold`; a fold without a positive or without a negative pair; a `far` outside
        (0, 1].

    Source: deepinsight/insightface, recognition/arcface_torch/eval/verification.py (calculate_val).
    """
    if not 0 < far <= 1:
        raise InputError(f"far {far}: give a fraction above 0 and at most 1, such as 0.001")
    distance, same = check_pairs(distance, same)
    fold = fold_of(len(distance))
    positives = np.bincount(fold, weights=same)
    negatives = np.bincount(fold, weights=~same)
    for kind, counts in (("positive", positives), ("negative", negatives)):
        if (counts == 0).any():
            raise InputError(
                f"fold {int(np.argmin(counts))} of 0..{FOLDS - 1} has no {kind} pair: TAR at FAR "
                "by InsightFace's folds needs both kinds in each; mix the list of pairs"
            )
    squared = 2 * distance
    wrongly = training_sums(squared, (~same).astype(np.int64), fold, VAL_GRID)
    rates = wrongly / (negatives.sum() - negatives)[:, None]
    chosen = np.array([np.interp(far, r, VAL_GRID) if r[-1] >= far else 0.0 for r in rates])
    accepted = squared < chosen[fold]
    tar = np.bincount(fold, weights=accepted & same) / positives
    return (
        float(tar.mean()),
        float(tar.std()),
        float((np.bincount(fold, weights=accepted & ~same) / negatives).mean()),
    )
