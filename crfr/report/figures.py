"""The figures whose horizontal axis is the resolution: the paper's figs 1, 5, 6, 11, 12, 13."""

import math
from dataclasses import dataclass

from matplotlib.figure import Figure

from crfr.report.drawing import (
    INK,
    PANEL,
    WIDE,
    Entry,
    Styles,
    axes_of,
    label_axes,
    stem,
    style,
    tick_labels,
)
from crfr.report.models import Model, Report
from crfr.report.render import Drawing, drawing
from crfr.report.resolutions import chosen
from crfr.report.rows import Row

MOST_TICKS = 10  # a sweep of more resolutions has ticks and markers at some of them
REDUCED = "resolution of the reduced image, px"
ZOOMS = ((5, 9), (10, 18))  # px, the two parts of fig. 13
CROSS = Entry("CR, one image of a pair reduced", INK)
EQUAL = Entry("ER, both reduced", INK, line=":")


@dataclass(frozen=True)
class Curve:
    """Values by rising resolution in px, perhaps with a band (low, high) of each."""

    values: dict[int, float]
    colour: str
    marker: str
    line: str = "-"
    band: dict[int, tuple[float, float]] | None = None
    open_marker: bool = False


def accuracy_curve(rows: dict[int, Row], colour: str, marker: str, *, equal: bool) -> Curve:
    """Accuracies in %: CR solid with a band, ER dotted and without.

    The band is that of the 95 % intervals, or of several seeds ± the standard deviation.
    """
    values = {r: 100 * row.accuracy for r, row in rows.items()}
    if equal:
        return Curve(values, colour, marker, ":", open_marker=True)
    band = over_seeds(rows, "accuracy", 100) | {
        r: (100 * row.accuracy_low, 100 * row.accuracy_high)
        for r, row in rows.items()
        if row.std is None and row.accuracy_low is not None and row.accuracy_high is not None
    }
    return Curve(values, colour, marker, band=dict(sorted(band.items())))


def over_seeds(rows: dict[int, Row], name: str, unit: float = 1) -> dict[int, tuple[float, float]]:
    """A figure's mean ± its standard deviation by resolution, where there are several seeds."""
    found = {}
    for r, row in rows.items():
        if row.std and name in row.std:
            mean, std = unit * getattr(row, name), unit * row.std[name]
            found[r] = (mean - std, mean + std)
    return found


def curves_figure(curves: list[Curve], width: float, height: float, unit: str) -> Figure:
    """Curves over resolution in octaves.  Accuracies (`unit` has a %) are drawn up to 100 %."""
    figure, axes = axes_of(width, height)
    resolutions = sorted({r for curve in curves for r in curve.values})
    ticks = chosen(resolutions, MOST_TICKS)
    seen: list[float] = []
    for curve in curves:
        places = list(curve.values)
        values = list(curve.values.values())
        if curve.band:
            low, high = zip(*curve.band.values(), strict=True)
            axes.fill_between(
                list(curve.band), low, high, color=curve.colour, alpha=0.15, linewidth=0
            )
            seen += [*low, *high]
        face = "none" if curve.open_marker else curve.colour
        axes.plot(
            places,
            values,
            color=curve.colour,
            linestyle=curve.line,
            linewidth=1.2 if curve.open_marker else 1.7,
            marker=curve.marker,
            markersize=4 if curve.open_marker else 5,
            markerfacecolor=face,
            markevery=[i for i, r in enumerate(places) if r in ticks],
        )
        seen += values
    axes.set_xscale("log", base=2)
    octaves = math.log2(resolutions[-1] / resolutions[0])
    margin = 2 ** (0.03 * octaves + 0.01)
    right = resolutions[-1] * margin
    axes.set_xlim(resolutions[0] / margin, right)
    shown = tick_labels(ticks, (width - 0.7) / (octaves + 2 * math.log2(margin)))
    axes.set_xticks(ticks, labels=[str(r) if r in shown else "" for r in ticks])
    axes.minorticks_off()
    if "%" in unit:
        floor, top = min(99.0, *seen), 100.0
        if floor < 62:  # close enough to guessing to show where that is
            floor = min(floor, 49.5)
            axes.axhline(50, color=INK, linewidth=0.7, linestyle=(0, (6, 4)), alpha=0.6)
            axes.text(right, 50.3, "guessing", ha="right", va="bottom", fontsize=8, color=INK)
        elif width <= PANEL:
            top = min(100.0, max(seen) + 1)
    else:
        floor, top = min(0.0, *seen), max(seen)
    axes.set_ylim(floor - (top - floor) * 0.03, top + (top - floor) * 0.03)
    label_axes(axes, REDUCED, unit)
    return figure


def entries_of(models: list[Model], styles: Styles) -> list[Entry]:
    return [Entry(model.legend, *styles[model.label]) for model in models]


def accuracy_figure(report: Report, place: str, styles: Styles) -> Drawing:
    """All models on a benchmark, or on the average: CR solid, ER dotted (figs 1, 9, 12)."""
    curves, models = [], []
    for model in report.models:
        for scenario in ("ER", "CR"):
            if rows := model.curve(place, scenario):
                look = styles[model.label]
                curves.append(accuracy_curve(rows, *look, equal=scenario == "ER"))
                models += [model] if model not in models else []
    title = f"Verification accuracy on {place}" if place in report.benchmarks else (
        f"Verification accuracy, average of {len(report.average)} benchmarks"
    )  # fmt: skip
    return drawing(
        stem("accuracy", place),
        title,
        curves_figure(curves, WIDE, 4.2, "accuracy, %"),
        [*entries_of(models, styles), CROSS, EQUAL],
        description=f"{title} over resolution",
        narrow=curves_figure(curves, PANEL, 3.9, "accuracy, %"),
    )


def zoom_figures(report: Report, place: str, styles: Styles) -> list[Drawing]:
    """CR accuracy near 7 px and near 14 px (fig. 13), where there is more than one resolution."""
    drawn = []
    for low, high in ZOOMS:
        curves, models = [], []
        for model in report.measured(place):
            rows = {r: row for r, row in model.curve(place, "CR").items() if low <= r <= high}
            if rows:
                curves.append(accuracy_curve(rows, *styles[model.label], equal=False))
                models.append(model)
        if len({r for curve in curves for r in curve.values}) > 1:
            title = f"CR accuracy on {place}, {low} to {high} px"
            figure = curves_figure(curves, PANEL, 3.0, "accuracy, %")
            name = stem("zoom", place, f"{low}-{high}")
            legend = entries_of(models, styles)
            drawn.append(drawing(name, title, figure, legend, description=title))
    return drawn


def benchmark_styles(report: Report) -> Styles:
    """A colour and a marker for each benchmark; none is that of the ink."""
    return {name: style(i) for i, name in enumerate(report.benchmarks, 1)}


def benchmarks_figure(report: Report, model: Model) -> Drawing | None:
    """One model on every benchmark, CR solid and ER dotted (fig. 5)."""
    looks, curves, legend = benchmark_styles(report), [], []
    for name in report.benchmarks:
        for scenario in ("ER", "CR"):
            if rows := model.curve(name, scenario):
                curve = accuracy_curve(rows, *looks[name], equal=scenario == "ER")
                # bands of five benchmarks would hide one another
                curves.append(Curve(**{**vars(curve), "band": None}))
                entry = Entry(name, *looks[name])
                legend += [entry] if entry not in legend else []
    if len(legend) < 2:
        return None
    figure = curves_figure(curves, PANEL, 3.6, "accuracy, %")
    title = f"{model.legend} on {len(legend)} benchmarks"
    name = stem("benchmarks", model.label)
    return drawing(name, title, figure, [*legend, CROSS, EQUAL], description=title)


def distances_figure(model: Model, benchmark: str, kinds: list[Entry]) -> Drawing | None:
    """Mean distances of positive and negative pairs, CR solid and ER dotted (fig. 6)."""
    curves = []
    for scenario in ("ER", "CR"):
        rows = model.curve(benchmark, scenario)
        for kind, field in zip(kinds, ("positive_distance", "negative_distance"), strict=True):
            values = {r: v for r, row in rows.items() if (v := getattr(row, field)) is not None}
            if values:
                line, faint = (":", True) if scenario == "ER" else ("-", False)
                band = over_seeds(rows, field)
                curves.append(Curve(values, kind.colour, kind.marker, line, band, faint))
    if not curves:
        return None
    title = f"Mean distances of pairs, {model.legend} on {benchmark}"
    figure = curves_figure(curves, PANEL, 3.0, "mean cosine distance")
    name = stem("distances", benchmark, model.label)
    return drawing(name, title, figure, [*kinds, CROSS, EQUAL], description=title)


def thresholds_figure(report: Report, benchmark: str, styles: Styles) -> Drawing | None:
    """The best CR thresholds over resolution (fig. 11)."""
    curves, models = [], []
    for model in report.measured(benchmark):
        rows = model.curve(benchmark, "CR")
        values = {r: row.threshold for r, row in rows.items() if row.threshold is not None}
        if values:
            band = over_seeds(rows, "threshold")
            curves.append(Curve(values, *styles[model.label], band=band))
            models.append(model)
    if not curves:
        return None
    title = f"Best CR thresholds on {benchmark}"
    figure = curves_figure(curves, PANEL, 3.0, "threshold, cosine distance")
    legend = entries_of(models, styles)
    return drawing(stem("thresholds", benchmark), title, figure, legend, description=title)
