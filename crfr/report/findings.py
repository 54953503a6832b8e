"""The findings in plain words, computed from the rows: what a newcomer reads first.

Accuracies are spoken of in % with one decimal, differences in points between the numbers as spoken,
so that a reader who subtracts gets the same (the tables have two decimals).
"""

from statistics import fmean

from crfr.report.breaks import break_sentences, joined
from crfr.report.models import FOREIGN, Model, Report

LOW = 10  # px, the upper end of the paper's low-resolution protocol (section 6.3)


def _percent(fraction: float) -> float:
    return round(100 * fraction, 1)


def _mean(model: Model, benchmark: str, resolutions: list[int]) -> float:
    """Mean over the resolutions of the CR accuracies, a fraction."""
    rows = model.curve(benchmark, "CR")
    return fmean(rows[r].accuracy for r in resolutions)


def _doubt(model: Model, benchmark: str, resolutions: list[int]) -> float:
    """Half the 95 % interval of the CR accuracies, a fraction: its mean over the resolutions."""
    rows = [model.curve(benchmark, "CR")[r] for r in resolutions]
    return fmean(((r.accuracy_high or 0.0) - (r.accuracy_low or 0.0)) / 2 for r in rows)


def _seeds(models: list[Model]) -> list[str]:
    """A sentence on the models whose numbers are means over seeds; none without."""
    several = [f"{model.label} ({len(model.runs)})" for model in models if model.runs]
    return [f"Numbers are means over training seeds of {joined(several)}."] if several else []


def _when(resolution: int, highest: int) -> str:
    both = resolution == highest == 112
    return "when both photos have 112 px" if both else f"when one of the two has {resolution} px"


def findings(report: Report, benchmark: str) -> tuple[str, list[str]]:
    """(headline, sentences) on the CR rows of a benchmark, as plain text.

    Models are compared at the resolutions that all of them share, and at low ones by the mean over
    those of at most 10 px, or at the lowest where there is none.
    """
    models = report.measured(benchmark)
    shared = [
        r
        for r in report.resolutions(benchmark)
        if models and all(r in model.curve(benchmark, "CR") for model in models)
    ]
    if len(shared) < 2:
        names = joined([model.label for model in report.models])
        return f"{names} measured on {benchmark}", [
            "Fewer than two resolutions have CR rows of every model, so there is no fall to speak "
            "of; the tables have what was measured."
        ]
    low, high = shared[0], shared[-1]
    lowest = [r for r in shared[:-1] if r <= LOW] or [low]

    def at(model: Model, resolutions: list[int]) -> float:
        return _percent(_mean(model, benchmark, resolutions))

    ranked = sorted(models, key=lambda model: -_mean(model, benchmark, lowest))
    baselines = [model for model in models if model.method == "baseline"]
    baseline = baselines[0] if baselines else None
    first = baseline or ranked[0]
    fall = round(at(first, [high]) - at(first, [low]), 1)
    name = "the baseline" if len(baselines) == 1 else first.label
    if baseline:
        subject = f"{name[0].upper()}{name[1:]}, trained at 112 px alone,"
    else:
        subject = f"{name}, which crfr did not train," if first.method in FOREIGN else name
    measure = (
        f"{subject} gets {at(first, [high]):.1f} % of the photo pairs right (one person or two?) "
        f"{_when(high, high)}, and {at(first, [low]):.1f} % {_when(low, high)}: "
    )
    change = f"a {'fall' if fall > 0 else 'rise'} of {abs(fall):.1f} points" if fall else "no fall"
    sentences = [f"{measure}{change}. Guessing gives 50 %."]
    loses = f"loses {fall:.1f} points of accuracy" if fall > 0 else "loses nothing"
    headline = f"From {high} px to {low} px, {name} {loses}"

    others = [model for model in ranked if model is not first and model not in baselines]
    sentences += break_sentences(first, benchmark, name)
    seeds = _seeds(models)
    if not others:
        return headline, sentences + seeds
    best, rival = (others[0], first) if baseline else (first, others[0])
    gain = round(at(best, lowest) - at(rival, lowest), 1)
    noise = 100 * max(_doubt(m, benchmark, lowest) for m in (best, rival))
    where = f"At {joined([str(r) for r in lowest])} px"
    where = where if len(lowest) <= 4 else f"From {lowest[0]} to {lowest[-1]} px"
    numbers = f"{at(best, lowest):.1f} % against {at(rival, lowest):.1f} %"
    numbers = f"{numbers} on average" if len(lowest) > 1 else numbers
    doubt = f", less than the 95 % interval (± {noise:.1f}), so no clear difference"
    doubt = doubt if abs(gain) < noise else ""
    if not baseline:
        sentences.append(
            f"{where}, {best.label} is the best of {len(models)} models, {gain:.1f} points ahead "
            f"of {rival.label} ({numbers}){doubt}."
        )
    elif gain > 0:
        sentences.append(
            f"{where}, {best.label} mends it best: {numbers}, {gain:.1f} points more{doubt}."
        )
        back = round(at(best, [low]) - at(baseline, [low]), 1)
        if back > 0 and not doubt:
            headline += f"; {best.label} wins back {back:.1f}"
    else:
        sentences.append(
            f"{where}, no model mends it: {best.label} comes closest with {numbers} of {name} "
            f"({gain:+.1f} points){doubt}."
        )
    price = round(at(best, [high]) - at(rival, [high]), 1)
    change = f"is {abs(price):.1f} points {'below' if price < 0 else 'above'}"
    sentences.append(
        f"At {high} px, {best.label} {change if price else 'is level with'} "
        f"{name if baseline else rival.label} "
        f"({at(best, [high]):.1f} % against {at(rival, [high]):.1f} %)."
    )
    overall = max(models, key=lambda model: _mean(model, benchmark, shared))
    sentences.append(
        f"Averaged over {len(shared)} resolutions, {overall.label} has the highest accuracy "
        f"({at(overall, shared):.1f} %)."
    )
    return headline, sentences + seeds
