"""The curves of training, from metrics.jsonl: the paper's fig. 15, losses, rates."""

import math
from statistics import fmean

from matplotlib.ticker import MaxNLocator

from crfr.report.drawing import PANEL, Styles, axes_of, label_axes, stem
from crfr.report.figures import entries_of
from crfr.report.models import Model
from crfr.report.render import Drawing, drawing

POINTS = 200  # a curve has at most so many points: means over stretches of the log

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


def _series(records: list[dict], key: str, x: str) -> tuple[list[float], list[float]]:
    """(x, y) of a curve; NaN, a gap in the line, where a record has no finite number.

    Long logs are thinned to means over stretches of equal length.
    """
    stretch = -(-len(records) // POINTS)
    xs, ys = [], []
    for start in range(0, len(records), stretch or 1):
        part = records[start : start + stretch]
        for values, name in ((xs, x), (ys, key)):
            numbers = [n for n in (_number(record, name) for record in part) if n == n]
            values.append(fmean(numbers) if numbers else math.nan)
    return xs, ys


def training_records(model: Model) -> list[dict]:
    """The metrics up to the model's step, of its first sweep that has any."""
    metrics = next((sweep.metrics for sweep in model.sweeps if sweep.metrics), ())
    return [record for record in metrics if model.step is None or record["step"] <= model.step]


def epoch_seconds(model: Model) -> float | None:
    """Seconds an epoch of the training, from its first log line to its last; None without."""
    records = [
        (epoch, seconds)
        for record in training_records(model)
        if (epoch := _number(record, "epoch")) == epoch and "loss" in record
        if (seconds := _number(record, "seconds")) == seconds
    ]
    if len(records) < 2 or records[-1][0] <= records[0][0]:
        return None
    (first, started), (last, ended) = records[0], records[-1]
    return (ended - started) / (last - first) if ended > started else None


def _panel(
    models: list[Model], styles: Styles, key: str, benchmark: str | None, name: str
) -> Drawing | None:
    """One curve a model, over steps, or epochs for accuracy on a benchmark; None without curves."""
    figure, axes = axes_of(PANEL, 1.9 if key == "learning_rate" else 2.7)
    seen: list[float] = []
    drawn: list[Model] = []
    for model in models:
        records = [
            record
            for record in training_records(model)
            if key in record and (benchmark is None or record.get("benchmark") == benchmark)
        ]
        x, y = _series(records, key, "epoch" if benchmark is not None else "step")
        # a method without the term logs zeros
        if not any(value == value and value != 0 for value in y):
            continue
        seen += [value for value in y if value == value]
        if "accuracy" in key:
            y = [100 * value for value in y]
        colour, marker = styles[model.label]
        look = {"marker": marker, "markersize": 4} if len(y) <= 40 else {}
        axes.plot(x, y, color=colour, linewidth=1.3, **look)
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
        for record in training_records(model)
        if "verification_accuracy" in record
    )
    panels = [(f"Accuracy on {b}, 112 px, %", "verification_accuracy", b) for b in benchmarks]
    panels += [(name, key, None) for name, key in TRAINING]
    drawn = [_panel(models, styles, key, benchmark, name) for name, key, benchmark in panels]
    return [panel for panel in drawn if panel is not None]
