"""Verification accuracy by 10-fold cross-validated thresholds (paper section 3.4).

Two images are called the same identity where their cosine distance d < t; accuracy is (TP + TN) / N
(eq. 3, whose FN is a slip).  Folds are contiguous and unshuffled, as in LFW's protocol: the
threshold that is best on nine folds is scored on the tenth.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy.typing import ArrayLike

from crfr.errors import InputError, unknown

FOLDS = 10
# The peers' grids, as cosine distances.  InsightFace's is 0..4 by 0.01 on the squared L2 distance
# of unit vectors, which is twice the cosine distance; Knoche's is 0..2 by 0.001 on the cosine
# distance itself.
GRIDS = {"insightface": (np.arange(0, 4, 0.01), 2.0), "knoche": (np.arange(0, 2, 0.001), 1.0)}
MODES = ("exact", *GRIDS)


def exact_candidates(distance: Float64[np.ndarray, " p"]) -> Float64[np.ndarray, " t"]:
    """Every threshold that matters, ascending: the midpoints of distinct distances, one below all,
    one above.

    The outermost lie half a thousandth beyond the extremes.
    """
    distinct = np.unique(distance)
    middle = (distinct[1:] + distinct[:-1]) / 2
    return np.concatenate([[distinct[0] - 5e-4], middle, [distinct[-1] + 5e-4]])


def correct_counts(
    distance: Float64[np.ndarray, " p"],
    same: Bool[np.ndarray, " p"],
    thresholds: Float64[np.ndarray, " t"],
) -> Int[np.ndarray, " t"]:
    """TP + TN at each threshold."""
    positives, negatives = np.sort(distance[same]), np.sort(distance[~same])
    accepted = np.searchsorted(positives, thresholds, side="left")  # d < t
    wrongly = np.searchsorted(negatives, thresholds, side="left")
    return accepted + len(negatives) - wrongly


def kfold_accuracy(
    distance: ArrayLike, same: ArrayLike, *, thresholds: str = "exact"
) -> tuple[float, float, float]:
    """(accuracy, its standard deviation over folds, threshold) of pairs, by 10 contiguous folds.

    Args:
      distance: cosine distances [p], p >= 10.
      same: [p], whether a pair shows one identity.
      thresholds: "exact" (every candidate from the nine training folds), or the grid of
      "insightface"
        (0..4 by 0.01, applied to twice the cosine distance) or "knoche" (0..2 by 0.001).

    Returns:
      accuracy and standard deviation as fractions (the deviation is the population's), the mean of
      the folds' thresholds as a cosine distance.  Of equally good thresholds the smallest is taken.

    Raises:
      InputError: shapes that differ, fewer than 10 pairs, a distance that is not finite, an unknown
      mode.
    """
    if thresholds not in MODES:
        raise unknown("thresholds", thresholds, MODES)
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
    accuracies, chosen = [], []
    for test in np.array_split(np.arange(len(distance)), FOLDS):
        train = np.ones(len(distance), bool)
        train[test] = False
        if thresholds == "exact":
            factor, candidates = 1.0, exact_candidates(distance[train])
        else:
            candidates, factor = GRIDS[thresholds]
        counts = correct_counts(factor * distance[train], same[train], candidates)
        best = candidates[np.argmax(counts)]  # argmax takes the first, so the smallest
        accuracies.append(np.mean((factor * distance[test] < best) == same[test]))
        chosen.append(best / factor)
    return float(np.mean(accuracies)), float(np.std(accuracies)), float(np.mean(chosen))
