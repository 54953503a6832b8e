"""The curves of training, from metrics.jsonl: the paper's fig. 15, losses, rates."""

import math
from statistics import fmean, median

from matplotlib.ticker import MaxNLocator

from crfr.report.drawing import PANEL, Styles, axes_of, label_axes, stem
from crfr.report.figures import entries_of
from crfr.report.models import Model
from crfr.report.render import Drawing, drawing

POINTS = 200  # a curve has at most so many points: means over stretches of the log

Points = list[tuple[float, float]]  # (x, y) of a curve; NaN where a log has no finite number

# (name on the page, key of metrics.jsonl): the curves of training, where the model has them
TRAINING = (
    ("Loss", "loss"),
    ("Cross-entropy", "cross_entropy"),
    ("Distance of views", "distance"),
    ("Training accuracy, %", "accuracy"),
    ("Learning rate", "learning_rate"),
)


def _number(record: dict, name: str) -> float:
    value = record.get(name)
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return math.nan


def _thinned(points: Points) -> Points:
    """Long logs as means over stretches of equal length; NaN, a gap in the line, without any."""
    stretch = -(-len(points) // POINTS)
    return [
        tuple(  # pyright: ignore[reportReturnType]
            fmean(numbers) if (numbers := [n for n in values if n == n]) else math.nan
            for values in zip(*points[start : start + stretch], strict=True)
        )
        for start in range(0, len(points), stretch or 1)
    ]


def _mean(curves: list[Points]) -> Points:
    """The mean over seeds at every x that all of them have; NaN where one has no number."""
    if len(curves) == 1:
        return curves[0]
    by_x = [dict(curve) for curve in curves]
    shared = [x for x, _ in curves[0] if all(x in values for values in by_x)]
    return [(x, fmean(values[x] for values in by_x)) for x in shared]


def training_records(model: Model) -> list[dict]:
    """The metrics of a training up to the model's step, of its first sweep that has any."""
    metrics = next((sweep.metrics for sweep in model.sweeps if sweep.metrics), ())
    return [record for record in metrics if model.step is None or record["step"] <= model.step]


def epoch_seconds(model: Model) -> float | None:
    """Seconds an epoch of the training: its images by the median of the log's images a second.

    Those are without verification, and a median is without saves and compilation, which are part of
    few lines.  Of several seeds the mean of those that have it.  None without.
    """
    found = [seconds for run in model.singles if (seconds := _epoch_seconds(run)) is not None]
    return fmean(found) if found else None


def _epoch_seconds(model: Model) -> float | None:
    records = training_records(model)
    rates = [rate for r in records if (rate := _number(r, "images_per_second")) > 0]
    starts = next((sweep.starts for sweep in model.sweeps if sweep.metrics), [])
    images = _number(starts[-1], "images") if starts else math.nan
    # of two lines the one may have compiled
    return images / median(rates) if len(rates) > 2 and images > 0 else None


def _panel(
    models: list[Model], styles: Styles, key: str, benchmark: str | None, name: str
) -> Drawing | None:
    """One curve a model, over steps, or epochs for accuracy on a benchmark; None without curves.

    Of several seeds each is a thin line, and their mean the curve.
    """
    figure, axes = axes_of(PANEL, 1.9 if key == "learning_rate" else 2.7)
    seen: list[float] = []
    drawn: list[Model] = []
    for model in models:
        unit = 100 if "accuracy" in key else 1
        curves: list[Points] = []
        for run in model.singles:
            points = [
                (_number(record, "epoch" if benchmark is not None else "step"), y)
                for record in training_records(run)
                if key in record and (benchmark is None or record.get("benchmark") == benchmark)
                for y in [unit * _number(record, key)]
            ]
            # a method without the term logs zeros
            if any(y == y and y != 0 for _, y in points):
                curves.append(points)
        if not curves:
            continue
        seen += [y for points in curves for _, y in points if y == y]
        colour, marker = styles[model.label]
        for points in curves if len(curves) > 1 else ():
            axes.plot(*zip(*_thinned(points), strict=True), color=colour, linewidth=0.6, alpha=0.5)
        if mean := _thinned(_mean(curves)):
            look = {"marker": marker, "markersize": 4} if len(mean) <= 40 else {}
            axes.plot(*zip(*mean, strict=True), color=colour, linewidth=1.3, **look)
        drawn.append(model)
    if not seen:
        return None
    # a rate that falls in factors of ten reads best so; one that fades to nothing does not
    if key == "learning_rate" and 0 < max(seen) < 1e4 * min(seen):
        axes.set_yscale("log")
        axes.minorticks_off()
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    label_axes(axes, "epoch" if benchmark is not None else "step", "")
    file = stem("training", benchmark or "", key) if benchmark else stem("training", key)
    description = f"{name} over training"
    return drawing(file, name, figure, entries_of(drawn, styles), description=description)


def training_figures(models: list[Model], styles: Styles) -> list[Drawing]:
    """Every curve of training that at least one of the models has."""
    benchmarks = dict.fromkeys(
        str(record.get("benchmark"))
        for model in models
        for run in model.singles
        for record in training_records(run)
        if "verification_accuracy" in record
    )
    panels = [(f"Accuracy on {b}, 112 px, %", "verification_accuracy", b) for b in benchmarks]
    panels += [(name, key, None) for name, key in TRAINING]
    drawn = [_panel(models, styles, key, benchmark, name) for name, key, benchmark in panels]
    return [panel for panel in drawn if panel is not None]
