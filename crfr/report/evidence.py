"""What was measured of each of the paper's claims: plain functions of a report to differences.

Each returns the parts of a claim: what is compared, in words with its numbers, and the difference
whose interval decides.  Parts that the sweeps do not have are left out; no parts are no evidence.
What is said of models at their own r is in `evidence_own`.
"""

from dataclasses import dataclass

import numpy as np

from crfr.evaluate.intervals import Mean, fold_error, seed_mean
from crfr.evaluate.statistics import fold_weights
from crfr.report.comparison import scores, verdict
from crfr.report.differences import Gap, accuracy_gap, count, matched, over_seeds, shown
from crfr.report.models import Model, Report
from crfr.report.resolutions import PAPER
from crfr.report.specialised import find, specialised

FULL = 112  # px
VERY_LOW = 10  # px, the upper end of the paper's low-resolution protocol (section 6.3)


@dataclass(frozen=True)
class Part:
    """A difference that a claim speaks of, in words and as a number.

    No words: it decides like the others, and is not shown.  No number: what was not compared.
    """

    words: str
    difference: Mean | None


def points(d: Mean) -> str:
    return f"{100 * d.value:+.2f} ± {100 * d.half:.2f} ({count(d.seeds)})"


def _cosine(d: Mean) -> str:
    return f"{d.value:+.3f} ± {d.half:.3f} ({count(d.seeds)})"


def _where(resolutions: tuple[int, ...]) -> str:
    """
    >>> _where((7,)), _where((5, 7, 10))
    ('at 7 px', 'mean over 5, 7, 10 px')
    """
    listed = ", ".join(map(str, resolutions))
    return f"mean over {listed} px" if len(resolutions) > 1 else f"at {listed} px"


def accuracies(first: Model, second: Model, gap: Gap | None) -> list[Part]:
    if gap is None:
        return []
    words = f"{first.label} {100 * gap.first:.2f}, {second.label} {100 * gap.second:.2f}"
    return [Part(f"{_where(gap.resolutions)}: {words}: {points(gap.difference)}", gap.difference)]


def _lowest(report: Report, benchmark: str, model: Model, scenarios: tuple[str, ...]) -> list[int]:
    """The lowest very low resolution that each of the model's trainings has in all scenarios."""
    curves = [run.curve(benchmark, name) for run in model.singles for name in scenarios]
    low = [r for r in report.resolutions(benchmark) if r <= VERY_LOW]
    return [r for r in low if all(r in curve for curve in curves)][:1]


def falls(report: Report, benchmark: str) -> list[Part]:
    """The baseline's CR accuracy at the lowest resolution against the middle between guessing and
    what it has at 112 px."""
    baseline, parts = find(report, "baseline"), []
    if baseline is None:
        return []
    for r in _lowest(report, benchmark, baseline, ("CR",)):
        found = [
            (low, full)
            for run in baseline.singles
            if (low := scores(run, benchmark, "CR", r, report.thresholds)) is not None
            if (full := scores(run, benchmark, "CR", FULL, report.thresholds)) is not None
        ]
        if found:
            weights = fold_weights(len(found[0][0]))
            means = [np.mean(each, axis=0) for each in zip(*found, strict=True)]
            at_r, at_full = (float(weights @ mean) for mean in means)
            gap = over_seeds([low - (0.5 + full) / 2 for low, full in found], weights)
            middle = f"half-way to 50 is {50 * (0.5 + at_full):.2f}"
            words = f"at {r} px: {100 * at_r:.2f}, at {FULL} px {100 * at_full:.2f}, {middle}"
            parts.append(Part(f"{words}: {points(gap)}", gap))
    return parts


def equal_above_cross(report: Report, benchmark: str) -> list[Part]:
    """The baseline's ER accuracy minus its CR accuracy at the lowest resolution."""
    baseline, parts = find(report, "baseline"), []
    if baseline is None:
        return []
    for r in _lowest(report, benchmark, baseline, ("CR", "ER")):
        scenarios = ("ER", "CR")
        gap = accuracy_gap(report, benchmark, baseline, baseline, [r], scenarios=scenarios)
        if gap:
            words = f"at {r} px: ER {100 * gap.first:.2f}, CR {100 * gap.second:.2f}"
            parts.append(Part(f"{words}: {points(gap.difference)}", gap.difference))
    return parts


def ranges(
    report: Report,
    benchmark: str,
    *,
    methods: list[tuple[str, str]],
    below: float = np.inf,
    above: float = 0,
) -> list[Part]:
    """The first of each two methods against the second, the mean over the shown resolutions between
    two (px), ends left out."""
    parts = []
    for first, second in ((find(report, a), find(report, b)) for a, b in methods):
        if first and second:
            resolutions = [r for r in shown(report, benchmark, first, second) if above < r < below]
            gap = accuracy_gap(report, benchmark, first, second, resolutions)
            parts += accuracies(first, second, gap)
    return parts


def _distances(run: Model, benchmark: str, resolution: int) -> np.ndarray | None:
    """CR distances of the pairs of two people [q], the mean of both directions."""
    pairs = run.pairs.get(benchmark)
    found = [pairs.at(name, resolution) for name in ("CR_A", "CR_B")] if pairs else []
    halves = [half[~pairs.same] for half in found if half is not None] if pairs else []
    return np.mean(halves, axis=0, dtype=float) if len(halves) == 2 else None


def compressed(
    report: Report,
    benchmark: str,
    *,
    methods: tuple[str, ...],
    resolutions: list[int] | None = None,
) -> list[Part]:
    """The mean distance of two people minus half of what the baseline has at 112 px, at these
    resolutions (px) or at those of fig. 14."""
    baseline, parts = find(report, "baseline"), []
    for model in (find(report, method) for method in methods):
        if not model or not baseline:
            continue
        for r in resolutions or PAPER:
            found = [
                (own, full)
                for run, other in matched(model, baseline)
                if (own := _distances(run, benchmark, r)) is not None
                if (full := _distances(other, benchmark, FULL)) is not None
            ]
            if found:
                weights = np.full(len(found[0][0]), 1 / len(found[0][0]))
                gap = over_seeds([own - full / 2 for own, full in found], weights)
                own, full = (float(np.mean(each)) for each in zip(*found, strict=True))
                words = f"{model.label} at {r} px: {own:.3f}, half of the baseline’s {full / 2:.3f}"
                parts.append(Part(f"{words}: {_cosine(gap)}", gap))
    return parts


def _threshold(report: Report, benchmark: str, model: Model, resolution: int) -> list[Part]:
    """The best CR threshold at a resolution minus that at 112 px, of the same trainings."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for run in model.singles:
        each = [
            [verdict(run, benchmark, half, r, report.thresholds) for half in ("CR_A", "CR_B")]
            for r in (resolution, FULL)
        ]
        folds = [[half.fold_thresholds for half in both if half] for both in each]
        if all(len(both) == 2 for both in folds):
            low, full = (np.mean(both, axis=0) for both in folds)
            found.append((low, full))
    if not found or resolution == FULL:
        return []
    differences = [low - full for low, full in found]
    gap = seed_mean(
        [float(d.mean()) for d in differences], fold_error(np.mean(differences, axis=0))
    )
    low, full = (float(np.mean(each)) for each in zip(*found, strict=True))
    words = f"{model.label} at {resolution} px: {low:.3f}, at {FULL} px {full:.3f}"
    return [Part(f"{words}: {_cosine(gap)}", gap)]


def baseline_threshold(report: Report, benchmark: str) -> list[Part]:
    """The baseline's threshold at the lowest resolution against that at 112 px."""
    model, parts = find(report, "baseline"), []
    if model is None:
        return []
    for r in _lowest(report, benchmark, model, ("CR",)):
        parts += _threshold(report, benchmark, model, r)
    return parts


def own_thresholds(report: Report, benchmark: str, *, kind: str, highest: int) -> list[Part]:
    """Thresholds of BT-r or ST-r at their own r, up to `highest` px, against those at 112 px."""
    parts = []
    for r, model in specialised(report, kind).items():
        if r <= highest:
            parts += _threshold(report, benchmark, model, r)
    return parts
