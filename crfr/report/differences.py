"""Differences between methods over training seeds, with intervals over seeds and pairs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from crfr.evaluate.intervals import Mean, pair_error, seed_mean
from crfr.evaluate.statistics import fold_weights
from crfr.report.comparison import scores
from crfr.report.drawing import stem
from crfr.report.models import Model, Report
from crfr.report.specialised import find, specialised
from crfr.report.tables import MISSING, Cell, Table, columns

MOST = 12  # resolutions: of more only some are compared


@dataclass(frozen=True)
class Gap:
    """Accuracies of two models as fractions, over the seeds that are compared, and first - second.

    `resolutions` in px: those that the accuracies are means over.
    """

    first: float
    second: float
    difference: Mean
    resolutions: tuple[int, ...]


def matched(first: Model, second: Model) -> list[tuple[Model, Model]]:
    """The trainings of two models that are compared: those of the same seed.

    Two models of one training each are compared whatever their seeds, and one without a seed, such
    as another's, with every seed of the other.  Empty where they have no seed in common.
    """
    if len(first.singles) == len(second.singles) == 1:
        return [(first.one, second.one)]
    if first.one.seed is None or second.one.seed is None:
        return [(a, b) for a in first.singles for b in second.singles]
    return [(a, b) for a in first.singles for b in second.singles if a.seed == b.seed]


def over_seeds(numbers: list[Float[np.ndarray, " p"]], weights: Float[np.ndarray, " p"]) -> Mean:
    """The weighted mean of a number of each pair, of each seed [p]; weights sum to 1."""
    values = [float(weights @ each) for each in numbers]
    return seed_mean(values, pair_error(np.mean(numbers, axis=0), weights))


def accuracy_gap(
    report: Report,
    benchmark: str,
    first: Model,
    second: Model,
    resolutions: list[int],
    *,
    scenarios: tuple[str, str] = ("CR", "CR"),
) -> Gap | None:
    """Accuracy of `first` in the one scenario minus that of `second` in the other, the mean over
    the resolutions (px) of those seeds that have all of them; None where none has.
    """
    halves: list[tuple[np.ndarray, np.ndarray]] = []
    for runs in matched(first, second):
        both = []
        for run, scenario in zip(runs, scenarios, strict=True):
            found = [scores(run, benchmark, scenario, r, report.thresholds) for r in resolutions]
            if found and not any(score is None for score in found):
                both.append(np.mean([s for s in found if s is not None], axis=0))
        if len(both) == 2:
            halves.append((both[0], both[1]))
    if not halves:
        return None
    weights = fold_weights(len(halves[0][0]))
    means = [np.mean(each, axis=0) for each in zip(*halves, strict=True)]
    of_first, of_second = (float(weights @ mean) for mean in means)
    difference = over_seeds([a - b for a, b in halves], weights)
    return Gap(of_first, of_second, difference, tuple(resolutions))


def shown(report: Report, benchmark: str, *models: Model) -> list[int]:
    """The resolutions that are compared and at which each training of the models has CR rows,
    rising: all measured ones, of more than `MOST` those of the page's tables."""
    measured = report.resolutions(benchmark)
    curves = [run.curve(benchmark, "CR") for model in models for run in model.singles]
    compared = measured if len(measured) <= MOST else columns(measured)
    return [r for r in compared if all(r in curve for curve in curves)]


def pairings(report: Report) -> list[tuple[Model, Model]]:
    """(model, reference) of which at least one has several seeds: every model against the report's
    reference, then what the paper compares beside its baseline."""
    found = [(model, report.reference) for model in report.models]
    for one, other in (("st-m1", "bt-m"), ("st-m2", "st-m1")):
        found += [(a, b) for a in [find(report, one)] for b in [find(report, other)] if a and b]
    st = specialised(report, "st")
    found += [(model, st[r]) for r, model in specialised(report, "bt").items() if r in st]
    unique: dict[frozenset[str], tuple[Model, Model]] = {}
    for a, b in found:
        if a is not b and (a.runs or b.runs):
            unique.setdefault(frozenset((a.label, b.label)), (a, b))
    return list(unique.values())


def count(seeds: int) -> str:
    """So many seeds, in words.

    >>> count(1), count(3)
    ('1 seed', '3 seeds')
    """
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


def seed_table(report: Report, benchmark: str) -> Table | None:
    """Differences in points over seeds; None where no model has several or no pairs are kept."""
    resolutions = shown(report, benchmark)
    body: list[tuple[Cell, ...]] = []
    measured = False
    for first, second in pairings(report):
        seeds = len(matched(first, second))
        cells: list[Cell] = []
        for r in resolutions:
            gap = accuracy_gap(report, benchmark, first, second, [r])
            if gap is None:
                cells.append((MISSING,))
                continue
            d, measured = gap.difference, True
            small = f"± {100 * d.half:.2f}" + (f"; {count(d.seeds)}" if d.seeds < seeds else "")
            clear = ("best",) if d.low > 0 or d.high < 0 else ()
            cells.append((f"{100 * d.value:+.2f}", small, *clear))
        words = count(seeds) if seeds else "no seed in common"
        body.append(((f"{first.label} − {second.label}", words), *cells))
    if not measured:
        return None
    note = (
        "points of CR accuracy on the same pairs, each seed against the same seed; ± is half the "
        "95 % interval over seeds and pairs, bold where it leaves out 0. Of one seed it is that "
        "over pairs alone, which leaves out the randomness of training. Not corrected for the "
        "number of comparisons"
    )
    heads = ("difference", *(f"{r} px" for r in resolutions))
    title = f"Differences over seeds on {benchmark}"
    name = stem("differences-over-seeds", benchmark)
    return Table(name, title, note, heads, tuple(body), "half the 95 % interval")
