"""The grid loops of the peers' evaluation scripts, to be timed against.

Their procedure (a threshold at a time, a fold at a time, on whole arrays), in our words: what
InsightFace's and Knoche's scripts do for each benchmark, resolution and scenario.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32

FOLDS = 10


def _counts(
    threshold: float, distance: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"]
) -> tuple[float, float, float]:
    """(TPR, FPR, accuracy) at one threshold, by comparing every pair with it."""
    called = np.less(distance, threshold)
    tp = np.sum(np.logical_and(called, same))
    fp = np.sum(np.logical_and(called, np.logical_not(same)))
    tn = np.sum(np.logical_and(np.logical_not(called), np.logical_not(same)))
    fn = np.sum(np.logical_and(np.logical_not(called), same))
    tpr = 0 if tp + fn == 0 else float(tp) / float(tp + fn)
    fpr = 0 if fp + tn == 0 else float(fp) / float(fp + tn)
    return tpr, fpr, float(tp + tn) / distance.size


def _folds(count: int):
    every = np.arange(count)
    for test in np.array_split(every, FOLDS):
        yield np.setdiff1d(every, test), test


def insightface(
    first: Float32[np.ndarray, "p d"], second: Float32[np.ndarray, "p d"], same: np.ndarray
) -> tuple[float, float]:
    """(accuracy over 10 folds, TAR at FAR 1e-3) of pairs of unit embeddings, as InsightFace's
    script computes them: thresholds 0..4 by 0.01, and by 0.001 for the TAR.
    """
    distance = np.sum(np.square(np.subtract(first, second)), 1)
    accuracies, coarse = [], np.arange(0, 4, 0.01)
    for train, test in _folds(len(same)):
        trained = np.array([_counts(t, distance[train], same[train])[2] for t in coarse])
        best = coarse[np.argmax(trained)]
        for t in coarse:  # the ROC curve that the script returns
            _counts(t, distance[test], same[test])
        accuracies.append(_counts(best, distance[test], same[test])[2])

    rates, fine = [], np.arange(0, 4, 0.001)
    for train, test in _folds(len(same)):
        fars = np.zeros(len(fine))
        for i, t in enumerate(fine):
            called = np.less(distance[train], t)
            wrong = np.sum(np.logical_and(called, np.logical_not(same[train])))
            np.sum(np.logical_and(called, same[train]))
            fars[i] = float(wrong) / np.sum(np.logical_not(same[train]))
        threshold = 0.0
        if np.max(fars) >= 1e-3:
            # the script's interpolation refuses FARs that occur twice: between the neighbours
            above = min(int(np.searchsorted(fars, 1e-3, side="right")), len(fine) - 1)
            ends = slice(above - 1, above + 1)
            threshold = float(np.interp(1e-3, fars[ends], fine[ends]))
        called = np.less(distance[test], threshold)
        rates.append(np.sum(np.logical_and(called, same[test])) / np.sum(same[test]))
    return float(np.mean(accuracies)), float(np.mean(rates))


def knoche(
    first: Float32[np.ndarray, "p d"], second: Float32[np.ndarray, "p d"], same: np.ndarray
) -> float:
    """Accuracy over 10 folds of pairs of unit embeddings by thresholds 0..2 by 0.001 on the cosine
    distance.
    """
    distance = 1 - np.sum(first * second, axis=1)
    grid, accuracies = np.arange(0, 2, 0.001), []
    for train, test in _folds(len(same)):
        trained = [_counts(t, distance[train], same[train])[2] for t in grid]
        best = grid[int(np.argmax(trained))]
        accuracies.append(_counts(best, distance[test], same[test])[2])
    return float(np.mean(accuracies))
