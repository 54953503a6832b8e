"""What was measured of the claims on BT-r and ST-r at their own r; parts as in `evidence`."""

from crfr.report import paper
from crfr.report.differences import accuracy_gap
from crfr.report.evidence import Part, accuracies
from crfr.report.models import Model, Report
from crfr.report.specialised import find, specialised

OWN = 40  # px, above which the paper's specialised models and its baseline do not differ (fig. 9)
BEST = {"bt": 18, "st": 8}  # px: up to this r the paper has them ahead of all others (fig. 13)
MULTI = ("bt-m", "st-m1", "st-m2")  # trained for several resolutions


def own_r(report: Report, benchmark: str, *, kind: str) -> list[Part]:
    """BT-r ("bt") or ST-r ("st") against the baseline, each at its own r below 40 px."""
    baseline, parts = find(report, "baseline"), []
    for r, model in specialised(report, kind).items():
        if r < OWN and baseline:
            gap = accuracy_gap(report, benchmark, model, baseline, [r])
            parts += accuracies(model, baseline, gap)
    return parts


def bt_against_st(report: Report, benchmark: str) -> list[Part]:
    """BT-r against ST-r, each at its own r below 40 px: above, the paper has them alike."""
    rivals, parts = specialised(report, "st"), []
    for r, model in specialised(report, "bt").items():
        if r in rivals and r < OWN:
            gap = accuracy_gap(report, benchmark, model, rivals[r], [r])
            parts += accuracies(model, rivals[r], gap)
    return parts


def best_at_own_r(report: Report, benchmark: str) -> list[Part]:
    """BT-r and ST-r at their own r, where the paper has them ahead, against every model not trained
    for r alone, of which one at least is a multi-resolution model.

    None of these is chosen by its figures: the best on these pairs would be so by luck, too.
    """
    parts = []
    for kind, highest in BEST.items():
        for r, model in specialised(report, kind).items():
            rivals = [
                other
                for other in report.models
                if paper.is_method(other.method)
                and other.method not in (f"bt-{r}", f"st-{r}")
                and other.curve(benchmark, "CR").get(r)
            ]
            if r <= highest and any(other.method in MULTI for other in rivals):
                parts += _ahead(report, benchmark, model, rivals, r)
    return parts


def _ahead(report: Report, benchmark: str, model: Model, rivals: list[Model], r: int) -> list[Part]:
    """A model against each of its rivals at r px; words of the closest, and of what is missing."""
    found, without = [], []
    for other in rivals:
        gap = accuracy_gap(report, benchmark, model, other, [r])
        if gap is None:
            without.append(other)
        else:
            found.append((gap.difference.value, other, gap))
    missing = ", ".join(other.label for other in without)
    if not any(other.method in MULTI for _, other, _ in found):
        words = f"at {r} px: {model.label} not compared: no seed in common with {missing}"
        return [Part(words, None)]
    found.sort(key=lambda each: each[0])
    _, closest, gap = found[0]
    (shown,) = accuracies(model, closest, gap)
    words = f"{shown.words}, the closest of {len(found)}"
    words += f"; no seed in common with {missing}" if missing else ""
    rest = [Part("", gap.difference) for _, _, gap in found[1:]]
    return [Part(words, shown.difference), *rest]
