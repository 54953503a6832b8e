"""Paired tests between models on the same pairs, from the distances beside the rows."""

from dataclasses import dataclass

import numpy as np

from crfr.evaluate.statistics import paired_test, resampling
from crfr.evaluate.verification import Verdict, kfold
from crfr.report.drawing import stem
from crfr.report.models import Model, Report
from crfr.report.tables import MISSING, Cell, Table

LEVEL = 0.05  # of p-values, after Holm's correction


@dataclass(frozen=True)
class Difference:
    """CR accuracy of a model minus the reference's at a resolution in px, as fractions."""

    model: str
    resolution: int
    difference: float
    low: float
    high: float
    p_value: float
    corrected: float


def verdict(
    run: Model, benchmark: str, scenario: str, resolution: int, thresholds: str
) -> Verdict | None:
    """The held-out verdicts of a training in CR_A, CR_B or ER, found once; None without pairs."""
    place = benchmark, scenario, resolution
    if place not in run.verdicts:
        pairs = run.pairs.get(benchmark)
        values = pairs.at(scenario, resolution) if pairs else None
        run.verdicts[place] = None
        if pairs and values is not None:
            run.verdicts[place] = kfold(values, pairs.same, thresholds=thresholds)
    return run.verdicts[place]


def scores(
    run: Model, benchmark: str, scenario: str, resolution: int, thresholds: str
) -> np.ndarray | None:
    """The share of right held-out verdicts on each pair [p], in CR the mean of both directions."""
    halves = ("CR_A", "CR_B") if scenario == "CR" else (scenario,)
    found = [verdict(run, benchmark, half, resolution, thresholds) for half in halves]
    right = [each.correct for each in found if each is not None]
    return np.mean(right, axis=0, dtype=float) if len(right) == len(halves) else None


def holm(p_values: list[float]) -> list[float]:
    """Holm's corrected p-values, in the order given.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def paired_tests(report: Report, benchmark: str) -> list[Difference]:
    """Every other model against the reference at the selected resolutions, corrected together.

    Of models of one training: `differences` has those of several seeds.
    """
    reference = report.reference
    others = [m for m in report.models if m is not reference and benchmark in m.pairs]
    if benchmark not in reference.pairs or not others:
        return []
    base = reference.pairs[benchmark]
    weights = resampling(len(base.same))
    found: list[tuple[Model, int, dict]] = []
    for r in base.resolutions("CR")[::-1]:
        rivals = [m for m in others if r in m.pairs[benchmark].resolutions("CR")]
        if not rivals:
            continue
        first = scores(reference, benchmark, "CR", r, report.thresholds)
        for model in rivals:
            score = scores(model, benchmark, "CR", r, report.thresholds)
            if first is not None and score is not None:
                found.append((model, r, paired_test(score, first, weights)))
    corrected = holm([test["p_value"] for _, _, test in found])
    return [
        Difference(m.label, r, t["difference"], t["low"], t["high"], t["p_value"], p)
        for (m, r, t), p in zip(found, corrected, strict=True)
    ]


def probability(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def difference_table(report: Report, benchmark: str, tests: list[Difference]) -> Table | None:
    """Differences in points with their intervals and corrected p-values; None without tests."""
    if not tests:
        return None
    resolutions = sorted({test.resolution for test in tests})
    cells = {
        (t.model, t.resolution): (
            f"{100 * t.difference:+.2f}",
            f"{100 * t.low:+.2f} to {100 * t.high:+.2f}; p {probability(t.corrected)}",
            *(("best",) if t.corrected < LEVEL else ()),
        )
        for t in tests
    }
    body = []
    for model in dict.fromkeys(test.model for test in tests):
        row: list[Cell] = [cells.get((model, r), (MISSING,)) for r in resolutions]
        body.append(((model,), *row))
    note = (
        f"points of CR accuracy more or less than {report.reference.label} on the same pairs, with "
        "95 % bootstrap interval and two-sided p of the exact sign-flip test of the held-out "
        f"verdicts, Holm-corrected for all {len(tests)} comparisons of this table; bold where p is "
        f"below {LEVEL:g}. Pairs share images, so that intervals and p are somewhat too small"
    )
    heads = ("model", *(f"{r} px" for r in resolutions))
    title = f"Difference from {report.reference.label} on {benchmark}"
    name = stem("differences", benchmark)
    return Table(name, title, note, heads, tuple(body), "95 % interval; corrected p")
