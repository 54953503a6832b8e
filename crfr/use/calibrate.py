"""Thresholds over two resolutions, measured on benchmarks: the table that decisions rest on.

Every distinct image is embedded once at each resolution, as in a sweep, and every pair is compared
at every two resolutions.  Which of two images is the first is chance where a model is used: the
first at r1 and the second at r2, and the other way round, are taken together, so that the table is
symmetric.  Pairs of several benchmarks are taken together too: more negatives allow a smaller FAR.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32
from tqdm import tqdm

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError
from crfr.evaluate import results, store
from crfr.evaluate.distances import matrix_distances, threaded
from crfr.evaluate.embed import make_embed
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.passes import embed_missing, find_missing
from crfr.evaluate.protocols import needed
from crfr.evaluate.statistics import far_name, far_threshold, reason, too_few
from crfr.evaluate.verification import FOLDS, exact_threshold, fold_of
from crfr.use.thresholds import BEST, FIGURES, RATES, SCHEMA

NORMAL = 1.959963984540054  # of a normal distribution, 2.5 % lie above
ALIKE = 1e-6  # distances that spread by less differ by float32's rounding, if at all

Figures = dict[str, float]


def calibrate(
    encoder: Encoder,
    benchmarks: Sequence[Benchmark],
    resolutions: Sequence[int],
    out: Path,
    *,
    mesh: Mesh,
    batch: int,
    fars: Sequence[float] = (),
    variant: str = "quantize",
) -> dict[str, Any]:
    """Write the calibration file `out` (docs/architecture.md) at rising resolutions (px); its
    content.

    `variant`: the degradation; "quantize" reduces an image as saving it does.  Embeddings are kept
    in `OUT.partial` until all is done, from which the same call again goes on after a kill.
    InputError where that holds those of something else, for a model to which all people are alike,
    and as the sweep's pass.
    """
    work = out.with_name(f"{out.name}.partial")
    work.mkdir(parents=True, exist_ok=True)
    with environment.locked(work, f"{work}: another crfr calibrate is writing there; wait for it"):
        embeddings = _embed(encoder, benchmarks, resolutions, work, mesh, batch, variant)
        distances = [
            matrix_distances(found, resolutions, benchmark.pairs)
            for found, benchmark in zip(embeddings, benchmarks, strict=True)
        ]
        tables = tabulate(benchmarks, distances, fars)
        if tables["negatives"] == 1:
            alike = "one pair of two people has no spread of distances; give benchmarks with more"
        else:
            alike = _alike(tables["impostors"]["std"], resolutions)
        if alike:
            shutil.rmtree(work)
            raise InputError(f"{encoder.model}: {alike}")
        content = {
            "schema": SCHEMA,
            "model": encoder.model,
            "step": encoder.step,
            "model_fingerprint": encoder.fingerprint,
            "degradation": variant,
            "benchmarks": {b.name: results.describe(b) for b in benchmarks},
            "time": environment.now(),
            **environment.made_with(),
            "resolutions": list(resolutions),
            **tables,
        }
        environment.write_json(out, content)
        shutil.rmtree(work)
    return content


def tabulate(
    benchmarks: Sequence[Benchmark],
    distances: Sequence[Float32[np.ndarray, "s s _"]],
    fars: Sequence[float],
) -> dict[str, Any]:
    """What a calibration file says of the distances [s s p] of the benchmarks' pairs."""
    same = np.concatenate([benchmark.same for benchmark in benchmarks])
    fold = np.concatenate([fold_of(len(benchmark.pairs)) for benchmark in benchmarks])
    negatives = int((~same).sum())
    kept = {far_name(far): far for far in sorted(fars) if not too_few(far, negatives)}
    declined = {
        far_name(far): reason([(far_name(far), f"{far * negatives:g}")], negatives)
        for far in fars
        if too_few(far, negatives)
    }
    size = distances[0].shape[0]
    objectives: dict[str, float | None] = {BEST: None, **kept}
    tables = {name: {f: np.zeros((size, size)) for f in FIGURES} for name in objectives}
    impostors = {name: np.zeros((size, size)) for name in ("mean", "std")}
    cells = [(i, j) for i in range(size) for j in range(i, size)]

    def fill(cell: tuple[int, int]) -> None:
        i, j = cell
        both = np.concatenate([_both(part, i, j) for part in distances])
        different = both[~same].astype(np.float64)
        found = [(impostors, {"mean": different.mean(), "std": different.std()})]
        found += [(tables[name], judge(both, same, fold, f)) for name, f in objectives.items()]
        for table, figures in found:
            for figure, value in figures.items():
                table[figure][i, j] = table[figure][j, i] = value

    with tqdm(total=len(cells), desc="thresholds", unit=" cells", disable=None) as progress:
        for start in range(0, len(cells), 64):
            part = cells[start : start + 64]
            threaded(fill, part)
            progress.update(len(part))
    return {
        "negatives": negatives,
        "declined": declined,
        "objectives": {name: _lists(table) for name, table in tables.items()},
        "impostors": _lists(impostors),
    }


def _alike(std: list[list[float]], resolutions: Sequence[int]) -> str | None:
    """Where a model tells no two people apart, from the spread of their distances [s s]."""
    for first, row in zip(resolutions, std, strict=True):
        for second, spread in zip(resolutions, row, strict=True):
            if spread < ALIKE:
                return (
                    f"the distances of two people at {first} and {second} px are all alike: there "
                    "the model, which has collapsed, tells nobody apart; choose another step, "
                    "another model or other --resolutions"
                )
    return None


def _lists(table: dict[str, np.ndarray]) -> dict[str, list]:
    return {name: np.round(array, 8).tolist() for name, array in table.items()}


def _embed(
    encoder: Encoder,
    benchmarks: Sequence[Benchmark],
    resolutions: Sequence[int],
    work: Path,
    mesh: Mesh,
    batch: int,
    variant: str,
) -> list[dict[int, np.ndarray]]:
    identity = {"model": encoder.model, "step": encoder.step, "degradation": variant}
    results.open_sweep(work, identity | {"model_fingerprint": encoder.fingerprint}, benchmarks)
    wanted = [needed(benchmark, ["matrix"], resolutions, []) for benchmark in benchmarks]
    embed = make_embed(encoder, mesh, variant=variant)
    batches = {"mesh": mesh, "batch": batch, "pad": encoder.network is not None}
    missing = find_missing(embed, benchmarks, wanted, work, **batches)
    embed_missing(embed, benchmarks, missing, work, **batches)
    found = []
    for benchmark in benchmarks:
        folder = results.embeddings_folder(work, benchmark.name)
        # a copy: what is mapped from a file is gone with the file
        kept = {r: store.load(folder, r, len(benchmark.images)) for r in resolutions}
        found.append({r: np.array(array) for r, array in kept.items()})
    return found


def _both(
    distances: Float32[np.ndarray, "s s p"], i: int, j: int
) -> Float32[np.ndarray, "p orders"]:
    """The distances of each pair at two resolutions, in both orders where they differ."""
    orders = [distances[i, j]] if i == j else [distances[i, j], distances[j, i]]
    return np.stack(orders, axis=1)


def judge(
    distance: Float32[np.ndarray, "p orders"],
    same: Bool[np.ndarray, " p"],
    fold: np.ndarray,
    far: float | None,
) -> Figures:
    """FIGURES of one cell: the threshold, and the rates to expect at it with 95 % intervals.

    far None: the threshold is the mean of those that are most accurate on nine folds each, as in a
    sweep.  Else it is the largest at which at most this share of all negative distances is
    accepted, as of a sweep's TAR.  The rates are those of held-out pairs, each judged by the
    threshold that the other nine folds give for the same objective: what a threshold is chosen on
    flatters it.  A pair counts once, by the share of its orders that are judged so.
    """
    orders = distance.shape[1]
    flat = distance.ravel().astype(np.float64)
    order = np.argsort(flat, kind="stable")
    ordered, truth = flat[order], np.repeat(same, orders)[order]
    folds = np.repeat(fold, orders)[order]

    def choose(kept: Bool[np.ndarray, " m"]) -> float:
        if far is None:
            return exact_threshold(ordered[kept], np.where(truth[kept], 1, -1))
        return far_threshold(ordered[kept], truth[kept], far)

    chosen = np.array([choose(folds != held_out) for held_out in range(FOLDS)])
    accepted = (distance < chosen[fold][:, None]).mean(axis=1)  # of each pair, of its orders
    threshold = chosen.mean() if far is None else choose(np.ones(len(flat), bool))
    wrong = {"far": (~same, accepted), "frr": (same, 1 - accepted)}
    wrong["accuracy"] = (np.ones(len(same), bool), np.where(same, accepted, 1 - accepted))
    figures = {"threshold": float(threshold)}
    for name in RATES:
        kind, values = wrong[name]
        value = float(values[kind].mean())
        low, high = wilson(value, int(kind.sum()))
        figures |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return figures


def wilson(share: float, pairs: int) -> tuple[float, float]:
    """The 95 % interval of a share of pairs (E. B. Wilson, 1927), which holds the truth in about as
    many cases where errors are rare, or none was seen.  The share may be of half pairs.
    """
    square = NORMAL**2
    middle = (share + square / (2 * pairs)) / (1 + square / pairs)
    spread = math.sqrt(square * (share * (1 - share) / pairs + square / (4 * pairs**2)))
    half = spread / (1 + square / pairs)
    return max(0.0, middle - half), min(1.0, middle + half)
