"""From embeddings to the cosine distances of pairs (paper eq. 2).

Products are summed in float64 and rounded to float32, so that a distance does not depend on the way
it was computed: the matrix of all resolutions has on its diagonal the very numbers of ER.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Num

from crfr import environment
from crfr.evaluate.protocols import FULL

# Resolution in px -> unit embeddings of the distinct images; of images that nothing asks for, NaN.
Embeddings = dict[int, Float32[np.ndarray, "n d"]]
AT_ONCE = 2**22  # numbers of float64 worked on together by a thread: 32 MiB


def pair_distances(
    first: Float32[np.ndarray, "n d"],
    second: Float32[np.ndarray, "n d"],
    pairs: Int[np.ndarray, "p 2"],
) -> Float32[np.ndarray, " p"]:
    """The distance of each pair of unit embeddings, that of the first image from `first`."""
    a, b = first[pairs[:, 0]].astype(np.float64), second[pairs[:, 1]].astype(np.float64)
    return _distance(np.einsum("pd,pd->p", a, b))


def scenario_distances(
    embeddings: Embeddings,
    resolutions: Sequence[int],
    pairs: Int[np.ndarray, "p 2"],
    scenarios: Sequence[str] = ("CR", "ER"),
) -> dict[str, Float32[np.ndarray, "s p"]]:
    """CR_A and CR_B, or ER, or all of them, at each resolution (px)."""
    names = [name for name in ("CR_A", "CR_B", "ER") if name.partition("_")[0] in scenarios]
    found = {name: np.empty((len(resolutions), len(pairs)), np.float32) for name in names}

    def fill(block: slice) -> None:
        a, b = (_gather(embeddings, resolutions, pairs[block, side]) for side in (0, 1))
        if "ER" in scenarios:
            found["ER"][:, block] = _distance(np.einsum("spd,spd->sp", a, b))
        if "CR" in scenarios:
            full_a, full_b = (_gather(embeddings, [FULL], pairs[block, i])[0] for i in (0, 1))
            found["CR_A"][:, block] = _distance(np.einsum("spd,pd->sp", a, full_b))
            found["CR_B"][:, block] = _distance(np.einsum("pd,spd->sp", full_a, b))

    threaded(fill, _blocks(len(pairs), len(resolutions), embeddings) if names else [])
    return found


def matrix_distances(
    embeddings: Embeddings, resolutions: Sequence[int], pairs: Int[np.ndarray, "p 2"]
) -> Float32[np.ndarray, "s s p"]:
    """[rA, rB, p]: the distance of each pair, its first image at rA, its second at rB.

    108 resolutions of 6,000 pairs take 280 MB.
    """
    sizes = len(resolutions)
    found = np.empty((sizes, sizes, len(pairs)), np.float32)
    for block in _blocks(len(pairs), sizes, embeddings):
        a, b = (_gather(embeddings, resolutions, pairs[block, side]) for side in (0, 1))
        products = np.matmul(a.transpose(1, 0, 2), b.transpose(1, 2, 0))  # [p s s]
        found[:, :, block] = _distance(products.transpose(1, 2, 0))
    return found


def protocol_distances(
    embeddings: Embeddings, resolutions: Int[np.ndarray, "p 2"], pairs: Int[np.ndarray, "p 2"]
) -> Float32[np.ndarray, " p"]:
    """The distance of each pair whose images have the resolutions (px) of a protocol."""
    width = next(iter(embeddings.values())).shape[1]
    sides = np.empty((2, len(pairs), width), np.float32)
    for side in (0, 1):
        for resolution in np.unique(resolutions[:, side]).tolist():
            chosen = resolutions[:, side] == resolution
            sides[side, chosen] = embeddings[resolution][pairs[chosen, side]]
    every = np.arange(len(pairs))
    return pair_distances(sides[0], sides[1], np.stack([every, every], axis=1))


def _gather(
    embeddings: Embeddings, resolutions: Sequence[int], images: Int[np.ndarray, " p"]
) -> Num[np.ndarray, "s p d"]:
    width = next(iter(embeddings.values())).shape[1]
    gathered = np.empty((len(resolutions), len(images), width))
    for place, resolution in enumerate(resolutions):
        gathered[place] = embeddings[resolution][images]
    return gathered


def _blocks(pairs: int, sizes: int, embeddings: Embeddings) -> list[slice]:
    """Blocks of pairs whose embeddings at all sizes fit in AT_ONCE."""
    width = next(iter(embeddings.values())).shape[1]
    step = max(1, AT_ONCE // (2 * sizes * width))
    return [slice(start, min(start + step, pairs)) for start in range(0, pairs, step)]


def _distance(cosine: Num[np.ndarray, "..."]) -> Num[np.ndarray, "..."]:
    # no vector is closer than itself: -1e-7 would lie under a grid's threshold of 0
    return np.maximum(1 - cosine, 0).astype(np.float32)


def threaded(work: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
    """`work` of each item, in threads: NumPy's sorts and sums let others run."""
    with ThreadPoolExecutor(environment.cores()) as pool:
        return list(pool.map(work, items))
