"""The matrix of resolution pairs: every figure of merit with the first image of each pair at rA and
the second at rB.  Its diagonal is ER; its row and column of 112 px are CR_B and CR_A.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64
from tqdm import tqdm

from crfr.evaluate.distances import threaded
from crfr.evaluate.statistics import FARS, accuracy_draws, interval, roc_figures
from crfr.evaluate.verification import kfold

FIGURES = (
    *("accuracy", "accuracy_std", "accuracy_low", "accuracy_high", "threshold"),
    *("eer", "auc", "positive_distance", "negative_distance"),
)


BY_FAR = ("tar", "far_threshold")
Arrays = dict[str, np.ndarray]


def resolution_matrix(
    distances: Float32[np.ndarray, "s s p"],
    resolutions: Sequence[int],
    same: Bool[np.ndarray, " p"],
    thresholds: str,
    weights: Float64[np.ndarray, "draws p"],
    before: Arrays,
) -> Arrays:
    """The arrays of a matrix file (docs/architecture.md): FIGURES [s s], indexed [rA, rB]; BY_FAR
    [fars s s], NaN where a FAR cannot be measured; `resolutions` [s] in px.

    Cells that `before`, an earlier matrix of the same benchmark, has are taken from it.
    """
    sizes = len(resolutions)
    arrays: Arrays = {name: np.full([sizes, sizes], np.nan) for name in FIGURES}
    for name in BY_FAR:
        arrays[name] = np.full([len(FARS), sizes, sizes], np.nan)
    known = np.zeros(sizes, bool)
    if before:
        there = before["resolutions"].tolist()
        known = np.isin(resolutions, there)
        here = np.flatnonzero(known)
        at = np.array([there.index(resolutions[i]) for i in here.tolist()], int)
        for name, array in arrays.items():
            array[..., here[:, None], here] = before[name][..., at[:, None], at]

    def cell(distance: np.ndarray) -> tuple:
        return kfold(distance, same, thresholds=thresholds), roc_figures(distance, same)

    for row in tqdm(range(sizes), desc="matrix", unit=" rows", disable=None):
        columns = np.flatnonzero(~(known & known[row]))
        if not columns.size:
            continue
        part = distances[row, columns]
        verdicts = np.empty(part.shape, np.float32)
        for number, (verdict, roc) in enumerate(threaded(cell, list(part))):
            place = row, columns[number]
            arrays["accuracy"][place] = verdict.accuracy
            arrays["accuracy_std"][place] = verdict.std
            arrays["threshold"][place] = verdict.threshold
            arrays["eer"][place], arrays["auc"][place] = roc["eer"], roc["auc"]
            for name in BY_FAR:
                values = [np.nan if v is None else v for v in roc[name].values()]
                arrays[name][:, row, columns[number]] = values
            verdicts[number] = verdict.correct
        low, high = interval(accuracy_draws(verdicts, weights))
        arrays["accuracy_low"][row, columns], arrays["accuracy_high"][row, columns] = low, high
        for name, kind in (("positive_distance", same), ("negative_distance", ~same)):
            arrays[name][row, columns] = part[:, kind].mean(axis=1, dtype=np.float64)
    return arrays | {"resolutions": np.array(resolutions), "fars": np.array(FARS)}


def average_matrix(matrices: Sequence[Arrays]) -> Arrays:
    """The unweighted mean over benchmarks, at the resolutions that all of them have.

    Benchmarks are resampled apart, so that the widths of their intervals add in squares.
    """
    shared = set.intersection(*(set(m["resolutions"].tolist()) for m in matrices))
    resolutions = sorted(shared, reverse=True)
    parts = []
    for matrix in matrices:
        at = np.array([matrix["resolutions"].tolist().index(r) for r in resolutions], int)
        parts.append({n: matrix[n][..., at[:, None], at] for n in (*FIGURES, *BY_FAR)})
    mean = {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}
    for bound in ("accuracy_low", "accuracy_high"):
        widths = [part[bound] - part["accuracy"] for part in parts]
        width = np.sqrt(np.sum(np.square(widths), axis=0)) / len(parts)
        mean[bound] = mean["accuracy"] + (width if bound == "accuracy_high" else -width)
    return mean | {"resolutions": np.array(resolutions), "fars": np.array(FARS)}
