"""The matrix of resolution pairs: every figure of merit with the first image of each pair at rA and
the second at rB.  Its diagonal is ER; its row and column of 112 px are CR_B and CR_A.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32
from tqdm import tqdm

from crfr.evaluate.scores import threaded
from crfr.evaluate.statistics import FARS, accuracy_draws, interval, resampling, roc_figures
from crfr.evaluate.verification import kfold

FIGURES = (
    *("accuracy", "accuracy_std", "accuracy_low", "accuracy_high", "threshold"),
    *("eer", "auc", "positive_distance", "negative_distance"),
)


def resolution_matrix(
    distances: Float32[np.ndarray, "s s p"],
    resolutions: Sequence[int],
    same: Bool[np.ndarray, " p"],
    thresholds: str,
) -> dict[str, np.ndarray]:
    """The arrays of a matrix file (docs/architecture.md): FIGURES [s s], indexed [rA, rB]; `tar`
    and `far_threshold` [fars s s], NaN where a FAR cannot be measured; `resolutions` [s] in px.
    """
    sizes = len(resolutions)
    arrays = {name: np.full((sizes, sizes), np.nan) for name in FIGURES}
    arrays |= {
        name: np.full((len(FARS), sizes, sizes), np.nan) for name in ("tar", "far_threshold")
    }
    weights = resampling(len(same))

    def cell(distance: np.ndarray) -> tuple:
        return kfold(distance, same, thresholds=thresholds), roc_figures(distance, same)

    for row in tqdm(range(sizes), desc="matrix", unit=" rows", disable=None):
        verdicts = np.empty((sizes, len(same)), np.float32)
        for column, (verdict, roc) in enumerate(threaded(cell, distances[row])):
            place = row, column
            arrays["accuracy"][place] = verdict.accuracy
            arrays["accuracy_std"][place] = verdict.std
            arrays["threshold"][place] = verdict.threshold
            arrays["eer"][place], arrays["auc"][place] = roc["eer"], roc["auc"]
            for number, far in enumerate(roc["tar"]):
                if roc["tar"][far] is not None:
                    arrays["tar"][number, row, column] = roc["tar"][far]
                    arrays["far_threshold"][number, row, column] = roc["far_threshold"][far]
            verdicts[column] = verdict.correct
        low, high = interval(accuracy_draws(verdicts, weights))
        arrays["accuracy_low"][row], arrays["accuracy_high"][row] = low, high
        arrays["positive_distance"][row] = distances[row][:, same].mean(axis=1, dtype=np.float64)
        arrays["negative_distance"][row] = distances[row][:, ~same].mean(axis=1, dtype=np.float64)
    return arrays | {"resolutions": np.array(resolutions), "fars": np.array(FARS)}
