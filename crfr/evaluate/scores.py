"""Distances of pairs -> the figures of a row: accuracy and its interval, thresholds, TAR, EER, AUC.

A row may stand for several lists of distances: CR for CR_A and CR_B, a protocol for its draws.  Its
figures are their means, and a pair's verdict in the bootstrap is the mean of its verdicts.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from crfr.errors import InputError
from crfr.evaluate.distances import threaded
from crfr.evaluate.protocols import PROTOCOLS, SCENARIOS, Protocol
from crfr.evaluate.statistics import accuracy_draws, interval, resampling, roc_figures
from crfr.evaluate.verification import insightface_val, kfold

MEANS = ("accuracy", "accuracy_std", "threshold", "positive_distance", "negative_distance")
ROWS_AT_ONCE = 512  # rows whose verdicts and draws are in memory together


class Score(NamedTuple):
    """The figures of one list of distances, or their means over several."""

    figures: dict[str, Any]
    verdicts: Float32[np.ndarray, " p"]  # share of right ones a pair


class Line(NamedTuple):
    """A row before its interval is known."""

    key: dict[str, Any]  # scenario, resolution, drawn, source
    draws: list[float] | None  # accuracies, of a protocol
    score: Score


def score(
    distance: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"], thresholds: str
) -> Score:
    """All figures of one list of distances (mean distances: paper fig. 6; threshold: fig. 11)."""
    verdict = kfold(distance, same, thresholds=thresholds)
    roc = roc_figures(distance, same)
    figures = {
        "accuracy": verdict.accuracy,
        "accuracy_std": verdict.std,
        "threshold": verdict.threshold,
        "positive_distance": float(distance[same].mean(dtype=np.float64)),
        "negative_distance": float(distance[~same].mean(dtype=np.float64)),
        "tar": roc["tar"],
        "tar_reason": roc["tar_reason"],
        "eer": roc["eer"],
        "auc": roc["auc"],
        "val": None,
        "pairs": len(same),
    }
    if thresholds == "insightface":
        figures["val"] = _val(distance, same)
    return Score(figures, verdict.correct.astype(np.float32))


def _val(distance: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"]) -> dict[str, Any]:
    """InsightFace's TAR at FAR 1e-3, or the reason why there is none."""
    try:
        tar, std, far = insightface_val(distance, same)
    except InputError as error:  # a fold of one kind: their script divides by zero
        return {"tar": None, "std": None, "far": None, "reason": str(error)}
    return {"tar": tar, "std": std, "far": far, "reason": None}


def mean_score(scores: Sequence[Score]) -> Score:
    """The means of several; a TAR only where all have one."""
    first = scores[0].figures
    figures = mean_figures([score.figures for score in scores]) | {"pairs": first["pairs"]}
    verdicts = np.stack([score.verdicts for score in scores])
    return Score(figures, verdicts.mean(axis=0, dtype=np.float32))


def mean_figures(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means of figures; pairs are added up."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(parts) else None

    figures: dict[str, Any] = {name: mean(p[name] for p in parts) for name in MEANS}
    figures["tar"] = {far: mean(p["tar"][far] for p in parts) for far in parts[0]["tar"]}
    reasons = dict.fromkeys(p["tar_reason"] for p in parts if p["tar_reason"])
    figures["tar_reason"] = "; ".join(reasons) or None
    figures |= {name: mean(p[name] for p in parts) for name in ("eer", "auc")} | {"val": None}
    vals = [p["val"] for p in parts]
    if vals[0]:
        figures["val"] = {n: mean(val[n] for val in vals) for n in ("tar", "std", "far")}
        figures["val"]["reason"] = next((v["reason"] for v in vals if v["reason"]), None)
    return figures | {"pairs": sum(p["pairs"] for p in parts)}


def scenario_lines(
    distances: dict[str, Float32[np.ndarray, "s p"]],
    resolutions: Sequence[int],
    same: Bool[np.ndarray, " p"],
    thresholds: str,
) -> list[Line]:
    """The lines of CR, CR_A, CR_B and ER, what `distances` has of them, at each resolution (px)."""
    cells = [(name, place) for place in range(len(resolutions)) for name in distances]
    scores = threaded(lambda cell: score(distances[cell[0]][cell[1]], same, thresholds), cells)
    found = dict(zip(cells, scores, strict=True))
    lines = []
    for place, resolution in enumerate(resolutions):
        here = {name: found[name, place] for name in distances}
        if "CR_A" in here:
            here["CR"] = mean_score([here["CR_A"], here["CR_B"]])
        for name in SCENARIOS:
            if name in here:
                key = {"scenario": name, "resolution": resolution, "drawn": None, "source": None}
                lines.append(Line(key, None, here[name]))
    return lines


def protocol_lines(
    protocols: Sequence[Protocol],
    distances: dict[str, Float32[np.ndarray, "draws p"]],
    same: Bool[np.ndarray, " p"],
    thresholds: str,
) -> list[Line]:
    """The line of each protocol, a mean over its draws."""
    lines = []
    for protocol in sorted(protocols, key=lambda p: list(PROTOCOLS).index(p.name)):
        scores = threaded(lambda d: score(d, same, thresholds), list(distances[protocol.name]))
        key = {"scenario": protocol.name, "resolution": None}
        key |= {"drawn": protocol.drawn, "source": protocol.source}
        lines.append(Line(key, [s.figures["accuracy"] for s in scores], mean_score(scores)))
    return lines


def resample(benchmark: str, pairs: int) -> Float64[np.ndarray, "draws p"]:
    """The 1,000 resamples of a benchmark's pairs: alike for all models, rows and matrices, and
    others for other benchmarks, so that averages are over independent ones.
    """
    return resampling(pairs, seed=zlib.crc32(benchmark.encode()))


def bootstrap(
    lines: list[Line], weights: Float64[np.ndarray, "draws p"]
) -> Float32[np.ndarray, "m draws"]:
    """The accuracy of each line in each resample of the pairs, at the folds' thresholds."""
    parts = [
        accuracy_draws(
            np.stack([line.score.verdicts for line in lines[start : start + ROWS_AT_ONCE]]), weights
        )
        for start in range(0, len(lines), ROWS_AT_ONCE)
    ]
    return np.concatenate([np.zeros((0, len(weights)), np.float32), *parts])


def spread(accuracies: list[float] | None) -> dict[str, Any]:
    """How many draws a row is the mean of, their accuracies and the population's deviation."""
    known = accuracies or [0.0]
    return {
        "draws": len(known),
        "draws_std": float(np.std(known)),
        "draw_accuracies": accuracies,
    }


def finish_rows(
    common: dict[str, Any], lines: list[Line], draws: Float32[np.ndarray, "m draws"]
) -> list[dict[str, Any]]:
    """Rows of lines and their bootstrapped accuracies."""
    low, high = interval(draws)
    return [
        {
            **common,
            **line.key,
            **spread(line.draws),
            **line.score.figures,
            "accuracy_low": float(low[i]),
            "accuracy_high": float(high[i]),
        }
        for i, line in enumerate(lines)
    ]


def average_rows(
    rows: Sequence[list[dict[str, Any]]], draws: Sequence[Float32[np.ndarray, "_ draws"]]
) -> list[dict[str, Any]]:
    """The unweighted means over benchmarks of the rows that all of them have (paper fig. 1).

    `rows` and `draws` are those of each benchmark.  A protocol counts where it was drawn in one
    way, and equally often, for all.
    """

    def key(row: dict[str, Any]) -> tuple:
        return row["thresholds"], row["scenario"], row["resolution"], row["drawn"], row["draws"]

    if len(rows) < 2 or not all(rows):
        return []
    places = [{key(row): place for place, row in enumerate(part)} for part in rows]
    names = [part[0]["benchmark"] for part in rows]
    found = []
    for first in rows[0]:
        if not all(key(first) in place for place in places):
            continue
        at = [place[key(first)] for place in places]
        parts = [part[i] for part, i in zip(rows, at, strict=True)]
        resampled = np.mean([d[i] for d, i in zip(draws, at, strict=True)], axis=0)
        low, high = interval(resampled[None])
        about = {"benchmark": "average", "average_of": names}
        sources = {part["source"] for part in parts}
        about["source"] = sources.pop() if len(sources) == 1 else None
        each = [p["draw_accuracies"] for p in parts]
        means = None if each[0] is None else np.mean(each, axis=0).tolist()
        bounds = {"accuracy_low": float(low[0]), "accuracy_high": float(high[0])}
        found.append(first | about | mean_figures(parts) | spread(means) | bounds)
    return found
