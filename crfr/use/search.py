"""The nearest faces of an index, exact, at whatever resolutions they have.

Distances at different resolutions do not compare: to most networks two small images of two people
look more alike than two large ones of one person, so that a list by distance begins with the
smallest faces.  With thresholds at hand faces are listed by a score that means the same at all
resolutions: how many standard deviations a distance lies below the mean of two different people's
at these two resolutions, (mean - d) / std, of the negative pairs of the calibration.  This is what
speaker verification calls z-norm.  Among faces of one resolution the order is that of their
distances.  A margin (threshold - d) would correct the mean alone, and the share of closer negative
pairs is 0 for all that are closer than the closest of a few thousand, just where the order matters.

Score and distance are both affine in the cosine, with numbers that depend on the row's resolution
alone, so that a search is a matrix product: of blocks of rows, on the device, of which the best are
kept and merged with those of the block before.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int64

from crfr.errors import InputError
from crfr.use.decide import Decision, decide
from crfr.use.faces import Faces, cosine_distance
from crfr.use.index import Index
from crfr.use.thresholds import Calibration

BLOCK = 2**16  # rows on the device at once: 128 MiB of 512 numbers


class Hits(NamedTuple):
    rows: Int64[np.ndarray, " k"]  # of the index, best first
    score: Float32[np.ndarray, " k"]  # standard deviations; without thresholds -distance


def nearest(
    query: Float32[np.ndarray, " d"],
    embedding: Float32[np.ndarray, "n d"],
    slope: Float32[np.ndarray, " n"],
    offset: Float32[np.ndarray, " n"],
    top: int,
    *,
    block: int = BLOCK,
) -> Hits:
    """The `top` rows of the highest `slope * cos + offset`, in falling order; ties in rising order
    of rows.  All rows where there are fewer.
    """
    rows = len(embedding)
    top, block = min(top, rows), min(block, rows)
    kept_score = jnp.full(top, -jnp.inf, jnp.float32)
    kept_row = jnp.zeros(top, jnp.int32)
    for start in range(0, rows, block):
        part = slice(start, min(start + block, rows))
        short = block - (part.stop - start)
        arrays = [embedding[part], slope[part], offset[part]]
        if short:  # the last block, filled up: one shape, compiled once
            arrays = [np.concatenate([a, np.zeros((short, *a.shape[1:]), a.dtype)]) for a in arrays]
            arrays[2][-short:] = -np.inf
        kept_score, kept_row = _merge(query, *arrays, start, kept_score, kept_row)
    return Hits(np.asarray(kept_row, np.int64), np.asarray(kept_score))


@functools.partial(jax.jit, donate_argnums=(5, 6))
def _merge(
    query: Float[Array, " d"],
    embedding: Float[Array, "m d"],
    slope: Float[Array, " m"],
    offset: Float[Array, " m"],
    start: Int[Array, ""] | int,
    kept_score: Float[Array, " k"],
    kept_row: Int[Array, " k"],
) -> tuple[Float[Array, " k"], Int[Array, " k"]]:
    """The best of those that were kept and of a block of rows, the first of which is `start`.

    A score that is no number, as of a damaged embedding, is -inf: top_k would put it first.
    """
    cosine = jnp.matmul(embedding, query, precision="highest")
    score = slope * cosine + offset
    score = jnp.concatenate([kept_score, jnp.where(jnp.isnan(score), -jnp.inf, score)])
    row = jnp.concatenate([kept_row, start + jnp.arange(len(embedding), dtype=jnp.int32)])
    best, at = jax.lax.top_k(score, len(kept_score))  # of equal ones the first, so the earlier row
    return best, row[at]


def nearest_by_faiss(
    query: Float32[np.ndarray, " d"],
    embedding: Float32[np.ndarray, "n d"],
    slope: Float32[np.ndarray, " n"],
    offset: Float32[np.ndarray, " n"],
    top: int,
) -> Hits:
    """As `nearest`, by faiss: an exact inner product of (slope * embedding, offset) and (query, 1).

    InputError without faiss.
    """
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"--faiss: faiss cannot be imported ({error}); pip install 'crfr[faiss]', or leave "
            "--faiss out: the search is exact without it too"
        ) from error
    index: Any = faiss.IndexFlatIP(embedding.shape[1] + 1)
    for start in range(0, len(embedding), BLOCK):
        part = slice(start, start + BLOCK)
        scaled = embedding[part] * slope[part, None]
        index.add(np.ascontiguousarray(np.concatenate([scaled, offset[part, None]], axis=1)))
    asked = np.append(query, np.float32(1))[None]
    score, rows = index.search(asked, min(top, len(embedding)))
    there = rows[0] >= 0  # -1 stands for rows of an offset of -inf
    return Hits(rows[0][there].astype(np.int64), score[0][there])


def by_distance(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(slope, offset) of the score -distance = cos - 1."""
    return np.ones(rows, np.float32), np.full(rows, -1, np.float32)


def by_resolution(
    calibration: Calibration, query: float, resolution: Float32[np.ndarray, " n"]
) -> tuple[np.ndarray, np.ndarray]:
    """(slope, offset) of the score (mean - d) / std of a query's resolution (px) and the rows', all
    of them inside the table.
    """
    mean = calibration.interpolate(calibration.impostors["mean"], query, resolution)
    std = calibration.interpolate(calibration.impostors["std"], query, resolution)
    return (1 / std).astype(np.float32), ((mean - 1) / std).astype(np.float32)


class Hit(NamedTuple):
    path: bytes
    resolution: float  # px
    distance: float
    score: float
    decision: Decision | None  # None without thresholds


class Found(NamedTuple):
    """hits: best first.  ranked: by what, "score" or "distance".  left_out: rows of the index
    outside the calibrated range.  reason: why it is by distance.
    """

    hits: list[Hit]
    ranked: str
    left_out: int
    reason: str | None


def search_index(
    face: Faces,
    index: Index,
    calibration: Calibration | None,
    top: int,
    *,
    far: float | None = None,
    faiss: bool = False,
) -> Found:
    """The `top` faces of an index nearest to one face.

    By the score where there are thresholds; rows outside their range are left out, as nothing is
    known of their distances.  By distance without thresholds, or where the face itself is outside.
    """
    rows = len(index.embedding)
    resolution = float(face.resolution[0])
    reason = "the model has no thresholds" if calibration is None else None
    if calibration is not None:
        reason = calibration.outside([resolution])
    slope, offset = by_distance(rows)
    left_out = 0
    if calibration is not None and reason is None:
        low, high = calibration.resolutions[[0, -1]]
        inside = (index.resolution >= low) & (index.resolution <= high)
        left_out = int((~inside).sum())
        slope, offset = np.zeros(rows, np.float32), np.full(rows, -np.inf, np.float32)
        slope[inside], offset[inside] = by_resolution(
            calibration, resolution, index.resolution[inside]
        )
    search = nearest_by_faiss if faiss else nearest
    found = search(face.embedding[0], index.embedding, slope, offset, top)
    hits = []
    for row, score in zip(found.rows.tolist(), found.score.tolist(), strict=True):
        if not np.isfinite(score):  # fewer rows inside the range than were asked for
            break
        size = float(index.resolution[row])
        distance = cosine_distance(face.embedding[0], index.embedding[row])
        decision = None
        if calibration is not None:
            decision = decide(calibration, distance, (resolution, size), far)
        hits.append(Hit(index.paths[row], size, distance, score, decision))
    return Found(hits, "distance" if reason else "score", left_out, reason)
