"""The arrays and images beside a sweep's rows: distances of pairs, matrices, samples.

A file that is not there is None; one that is damaged stops the report with an InputError.
"""

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, UnidentifiedImageError

from crfr import environment
from crfr.errors import InputError
from crfr.report.resolutions import selected
from crfr.report.rows import AGAIN, Row, Sweep

HALVES = ("CR_A", "CR_B", "ER")  # the scenarios that pairs have distances in
TILE = 112  # px, the side of an image
FARTHEST = 2.0 + 1e-4  # a cosine distance, with what float32 adds to it


@dataclass(frozen=True)
class Pairs:
    """Cosine distances [p] of a benchmark's pairs, by scenario of HALVES and resolution in px.

    `distances` has them at the selected resolutions, `at` at all: `rows` has the row of the arrays
    of `path` by scenario and resolution.
    """

    same: Bool[np.ndarray, " p"]
    distances: dict[str, dict[int, Float[np.ndarray, " p"]]]
    path: Path
    rows: dict[str, dict[int, int]]

    def at(self, scenario: str, resolution: int) -> Float[np.ndarray, " p"] | None:
        """The distances of a scenario, from the file where they are not kept; None without."""
        kept = self.distances[scenario].get(resolution)
        row = self.rows[scenario].get(resolution)
        if kept is not None or row is None:
            return kept
        return _load(self.path, (scenario,))[scenario][row]

    def resolutions(self, scenario: str) -> list[int]:
        """Those at which a scenario has distances, rising; CR needs both of its halves."""
        halves = ("CR_A", "CR_B") if scenario == "CR" else (scenario,)
        return sorted(set.intersection(*(set(self.distances[half]) for half in halves)))


@dataclass(frozen=True)
class Matrix:
    """Figures of every pair of resolutions in px, falling: [i, j] has the first image at i."""

    resolutions: tuple[int, ...]
    figures: dict[str, Float[np.ndarray, "s s"]]  # accuracy, accuracy_low, ..., threshold


@dataclass(frozen=True)
class Samples:
    """Sample pairs: (index, same) of each, and the strips A0 B0 A1 B1 ... by resolution in px."""

    pairs: tuple[tuple[int, bool], ...]
    strips: dict[int, Path]


def _load(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, which has to have those of `names`."""
    try:
        # opened here, because np.load leaves a damaged file open
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = dict(file.items())
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}): delete it and {AGAIN}") from error
    if missing := [name for name in names if name not in arrays]:
        raise InputError(f"{path}: no array {', '.join(missing)}: delete it and {AGAIN}")
    return arrays


def _check(path: Path, name: str, array: np.ndarray, shape: tuple, low: float, high: float) -> None:
    if array.shape != shape or array.dtype.kind not in "fiub":
        raise InputError(
            f"{path}: {name} is {array.dtype} {list(array.shape)}, not numbers {list(shape)}: "
            f"delete it and {AGAIN}"
        )
    # NaN is out of every range
    if array.size and not (array.min() >= low and array.max() <= high):
        raise InputError(
            f"{path}: {name} from {array.min()} to {array.max()}, not within {low:g} to {high:g}: "
            f"delete it and {AGAIN}"
        )


def _falling(path: Path, resolutions: np.ndarray) -> tuple[int, ...]:
    found = tuple(int(r) for r in resolutions.ravel())
    if resolutions.ndim != 1 or list(found) != sorted(set(found), reverse=True):
        raise InputError(f"{path}: resolutions {list(found)} do not fall: delete it and {AGAIN}")
    return found


def read_pairs(sweep: Sweep, benchmark: str) -> Pairs | None:
    """The distances of a benchmark's pairs at the selected resolutions, from pairs/FILE.npz.

    The whole file is checked, and its means against the rows: a file that a later sweep left
    behind would show distances that are not those of the rows.  NaN are pairs that a scenario which
    was not asked for would need.
    """
    path = sweep.path / "pairs" / f"{environment.file_name(benchmark)}.npz"
    if not path.exists():
        return None
    arrays = _load(path, ("same", "resolutions"))
    resolutions = _falling(path, arrays["resolutions"])
    pairs = arrays["same"].size
    _check(path, "resolutions", arrays["resolutions"], (len(resolutions),), 1, TILE)
    _check(path, "same", arrays["same"], (pairs,), 0, 1)
    same = arrays["same"].astype(bool)
    if same.all() or not same.any():
        raise InputError(f"{path}: all pairs are of one kind: delete it and {AGAIN}")
    found: dict[str, dict[int, np.ndarray]] = {}
    rows: dict[str, dict[int, int]] = {}
    for name in HALVES:
        array = arrays.get(name, np.full((len(resolutions), pairs), np.nan))
        if array.shape != (len(resolutions), pairs) or array.dtype.kind != "f":
            _check(path, name, array, (len(resolutions), pairs), -1e-4, FARTHEST)
        measured = [i for i in range(len(resolutions)) if not np.isnan(array[i]).any()]
        _check(path, name, array[measured], (len(measured), pairs), -1e-4, FARTHEST)
        found[name] = {resolutions[i]: array[i] for i in measured}
        rows[name] = {resolutions[i]: i for i in measured}
    for row in sweep.rows:
        if row.benchmark == benchmark and row.scenario in HALVES:
            _check_means(path, row, found[row.scenario].get(row.resolution or 0), same)
    kept = selected(sorted(set.union(*(set(part) for part in found.values()))))
    # copies: a view would keep the whole file in memory, of every seed of every model
    distances = {
        name: {r: found[name][r].copy() for r in kept if r in found[name]} for name in HALVES
    }
    return Pairs(same, distances, path, rows) if kept else None


def _check_means(path: Path, row: Row, distance: np.ndarray | None, same: np.ndarray) -> None:
    if distance is None or row.pairs != len(distance):
        raise InputError(
            f"{path}: no distances of {row.pairs} pairs, {row.scenario} at {row.resolution} px, as "
            f"rows.jsonl has: delete it and {AGAIN}"
        )
    for mean, of in ((row.positive_distance, same), (row.negative_distance, ~same)):
        if mean is not None and abs(mean - float(np.mean(distance[of], dtype=float))) > 1e-3:
            raise InputError(
                f"{path}: {row.scenario} at {row.resolution} px has other mean distances than "
                f"rows.jsonl: delete it and {AGAIN}"
            )


def read_matrix(sweep: Sweep, benchmark: str, thresholds: str) -> Matrix | None:
    """The matrix of a benchmark in a mode of thresholds, from matrix/FILE-MODE.npz."""
    path = sweep.path / "matrix" / f"{environment.file_name(benchmark)}-{thresholds}.npz"
    if not path.exists():
        return None
    fractions = ("accuracy", "accuracy_std", "accuracy_low", "accuracy_high", "eer", "auc")
    distances = ("threshold", "positive_distance", "negative_distance")
    arrays = _load(path, ("resolutions", *fractions, *distances))
    resolutions = _falling(path, arrays["resolutions"])
    square = (len(resolutions), len(resolutions))
    for name in fractions:
        _check(path, name, arrays[name], square, 0, 1)
    for name in distances:
        _check(path, name, arrays[name], square, -0.01, FARTHEST + 0.01)
    return Matrix(resolutions, {name: arrays[name] for name in (*fractions, *distances)})


def read_samples(sweep: Sweep, benchmark: str) -> Samples | None:
    """The sample pairs of a benchmark, from samples/FILE/; None unless some strip is there."""
    folder = sweep.path / "samples" / environment.file_name(benchmark)
    strips = {int(f.stem): f for f in folder.glob("*.png") if f.stem.isdecimal()}
    if not (folder / "pairs.json").exists() or not strips:
        return None
    try:
        listed = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
        pairs = tuple((int(pair["pair"]), bool(pair["same"])) for pair in listed)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / 'pairs.json'}: damaged ({error}): {AGAIN}") from error
    return Samples(pairs, dict(sorted(strips.items(), reverse=True)))


def open_image(path: Path) -> Image.Image:
    """An image of a sweep or an analysis, in RGB."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{path}: no readable image ({error}): delete it and {AGAIN}") from error


def tiles(samples: Samples, resolution: int, number: int) -> tuple[Image.Image, Image.Image]:
    """Both images of the sample pair of that number (its place in the strip) at a resolution."""
    path = samples.strips[resolution]
    strip = open_image(path)
    if strip.height != TILE or strip.width < TILE * 2 * len(samples.pairs):
        raise InputError(
            f"{path}: {strip.width} x {strip.height} px, too small for {len(samples.pairs)} pairs "
            f"of {TILE} px: delete it and {AGAIN}"
        )
    left = 2 * TILE * number
    first, second = (strip.crop((x, 0, x + TILE, TILE)) for x in (left, left + TILE))
    return first, second
