"""Which resolution each image of a pair has: cross- and equal-resolution scenarios (paper sections
3.4, 4.2).
"""

import numpy as np
from jaxtyping import Float32, Float64, Int

Embeddings = dict[
    int, Float32[np.ndarray, "n d"]
]  # resolution in px -> embeddings of the distinct images

# CR_A degrades the first image of each pair, CR_B the second; CR is the mean of both; ER degrades
# both.
SCENARIOS = ("CR", "CR_A", "CR_B", "ER")
FULL = 112  # px


def pair_distances(
    first: Float32[np.ndarray, "n d"],
    second: Float32[np.ndarray, "n d"],
    pairs: Int[np.ndarray, "p 2"],
) -> Float64[np.ndarray, " p"]:
    """Cosine distance of each pair of unit embeddings, the first image's from `first` (paper eq.
    2).
    """
    a, b = first[pairs[:, 0]].astype(np.float64), second[pairs[:, 1]].astype(np.float64)
    return 1 - np.einsum("pd,pd->p", a, b)


def scenario_distances(
    low: Float32[np.ndarray, "n d"], full: Float32[np.ndarray, "n d"], pairs: Int[np.ndarray, "p 2"]
) -> dict[str, Float64[np.ndarray, " p"]]:
    """The distances of CR_A, CR_B and ER from the embeddings at a resolution and at full
    resolution.
    """
    return {
        "CR_A": pair_distances(low, full, pairs),
        "CR_B": pair_distances(full, low, pairs),
        "ER": pair_distances(low, low, pairs),
    }
