"""Figures as inline SVG, drawn with matplotlib's object API: no pyplot, no window, no global state.

Ink and rule are drawn in stand-in colours that become CSS variables, so that a figure follows the
page into dark mode.  Text stays text.  The legend is the page's: figures hold no text from files.
"""

import html
import io
import math
import re
from collections.abc import Iterable
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crfr.report.models import Model, Report, chosen

# Okabe and Ito's palette, safe for colour-blind readers, without its yellow, which white swallows;
# black is the ink, kept for the baseline.  6 colours and 7 markers: 42 other models look different.
INK, RULE = "#010203", "#040506"
PALETTE = (INK, "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
VARIABLES = {INK: "var(--ink)", RULE: "var(--rule)"} | {
    colour: f"var(--c{i}, {colour})" for i, colour in enumerate(PALETTE) if colour != INK
}
POINTS = 200  # a curve of training has at most so many points: means over stretches of the log
MOST_TICKS = 10  # a sweep of more resolutions has ticks and markers at some of them

# (name on the page, key of metrics.jsonl): the curves of training, where the model has them
TRAINING = (
    ("Loss", "loss"),
    ("Cross-entropy", "cross_entropy"),
    ("Distance of views", "distance"),
    ("Training accuracy, %", "accuracy"),
    ("Learning rate", "learning_rate"),
)
Styles = dict[str, tuple[str, str]]  # label of a model -> (colour, marker)


def styles(models: Iterable[Model]) -> Styles:
    """A colour and a marker for each model; the first baseline has the ink."""
    styles, others = {}, 0
    for model in models:
        if model.method == "baseline" and not any(INK in style for style in styles.values()):
            styles[model.label] = (INK, MARKERS[0])
        else:
            others += 1
            colour = PALETTE[1 + (others - 1) % (len(PALETTE) - 1)]
            styles[model.label] = (colour, MARKERS[others % len(MARKERS)])
    return styles


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element, a pure function of what is drawn; `name` is its own alone."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index(">") + 1 :]
    body = re.sub(r' id="[^"]*_\d+"', "", body)  # names of groups, alike in all figures
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, variable)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{html.escape(description)}">{body}'


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that size in inches (72 units of the SVG each) with one plain pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(color=RULE, labelcolor=INK, labelsize=9)
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def swatch(colour: str, marker: str, line: str, name: str) -> str:
    """A line with its marker, for the legend."""
    figure = Figure(figsize=(0.5, 0.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-1, 1)
    axes.set_ylim(-1, 1)
    axes.plot([-1, 1], [0, 0], color=colour, linewidth=1.8, linestyle=line)
    axes.plot([0], [0], color=colour, marker=marker, markersize=6)
    return _svg(figure, name, "")


def _tick_labels(resolutions: list[int], octave: float) -> list[int]:
    """The resolutions whose labels fit, from the highest down; the lowest always.

    `octave` is the width of an octave in inches; a label wants a quarter of an inch.
    """
    kept = [resolutions[-1]]
    for r in reversed(resolutions[:-1]):
        if math.log2(kept[-1] / r) * octave >= 0.25:
            kept.append(r)
    if kept[-1] != resolutions[0]:
        kept[-1:] = [resolutions[0]] if len(kept) > 1 else [kept[-1], resolutions[0]]
    return kept


def accuracy_figure(report: Report, benchmark: str, styles: Styles, width: float) -> str:
    """Accuracy in % over resolution in px (octaves): CR solid with a band of one std, ER dotted."""
    figure, axes = _axes(width, 4.2)
    resolutions = report.resolutions(benchmark)
    marked = chosen(resolutions, MOST_TICKS)
    floor = 99.0
    for model in report.models:
        colour, marker = styles[model.label]
        for scenario, line in (("ER", ":"), ("CR", "-")):
            curve = model.curve(benchmark, scenario)
            if not curve:
                continue
            accuracy = [100 * row.accuracy for row in curve.values()]
            every = [i for i, r in enumerate(curve) if r in marked]
            look = {"marker": marker, "markersize": 5, "markevery": every, "linestyle": line}
            look["linewidth"] = 1.7
            if scenario == "CR":
                std = [100 * row.accuracy_std for row in curve.values()]
                below = [a - s for a, s in zip(accuracy, std, strict=True)]
                above = [a + s for a, s in zip(accuracy, std, strict=True)]
                axes.fill_between(list(curve), below, above, color=colour, alpha=0.13, linewidth=0)
                floor = min(floor, *below)
            else:
                look |= {"markerfacecolor": "none", "markersize": 4, "linewidth": 1.2}
            axes.plot(list(curve), accuracy, color=colour, **look)
            floor = min(floor, *accuracy)
    axes.set_xscale("log", base=2)
    margin = 2**0.15
    axes.set_xlim(resolutions[0] / margin, resolutions[-1] * margin)
    octave = (width - 0.7) / math.log2(resolutions[-1] / resolutions[0] * margin**2)
    ticks = chosen(resolutions, MOST_TICKS)
    shown = _tick_labels(ticks, octave)
    axes.set_xticks(ticks, labels=[str(r) if r in shown else "" for r in ticks])
    axes.minorticks_off()
    if floor < 62:  # close enough to guessing to show where that is
        floor = min(floor, 49.5)
        axes.axhline(50, color=INK, linewidth=0.7, linestyle=(0, (6, 4)), alpha=0.6)
        right = resolutions[-1] * margin
        axes.text(right, 50.3, "guessing", ha="right", va="bottom", fontsize=8, color=INK)
    axes.set_ylim(floor - (100 - floor) * 0.03, 100 + (100 - floor) * 0.02)
    axes.set_xlabel("resolution of the low-resolution image, px", color=INK, fontsize=9)
    axes.set_ylabel("accuracy, %", color=INK, fontsize=9)
    order = report.benchmarks.index(benchmark)
    return _svg(figure, f"accuracy-{order}-{width}", "Verification accuracy over resolution")


def _series(records: list[dict], key: str, x: str) -> tuple[list[float], list[float]]:
    """(x, y) of a curve; NaN, a gap in the line, where a record has no finite number.

    Long logs are thinned to means over stretches of equal length.
    """

    def number(record: dict, name: str) -> float:
        value = record.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
        return math.nan

    stretch = -(-len(records) // POINTS)
    xs, ys = [], []
    for start in range(0, len(records), stretch or 1):
        part = records[start : start + stretch]
        for values, name in ((xs, x), (ys, key)):
            numbers = [n for n in (number(record, name) for record in part) if n == n]
            values.append(fmean(numbers) if numbers else math.nan)
    return xs, ys


def training_records(model: Model) -> list[dict]:
    """The metrics up to the model's step, of its first sweep that has any."""
    metrics = next((sweep.metrics for sweep in model.sweeps if sweep.metrics), ())
    return [record for record in metrics if model.step is None or record["step"] <= model.step]


def _training_panel(
    models: list[Model], styles: Styles, key: str, benchmark: str | None, name: str
) -> str | None:
    """One curve a model, over steps, or epochs for accuracy on a benchmark; None without curves."""
    figure, axes = _axes(3.4, 1.5 if key == "learning_rate" else 2.4)
    seen: list[float] = []
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
    if not seen:
        return None
    # a rate that falls in factors of ten reads best so; one that fades to nothing does not
    if key == "learning_rate" and 0 < max(seen) < 1e4 * min(seen):
        axes.set_yscale("log")
        axes.minorticks_off()
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("epoch" if benchmark is not None else "step", color=INK, fontsize=9)
    return _svg(figure, f"training {name}", f"{name} over training")


def training_figures(models: list[Model], styles: Styles) -> list[tuple[str, str]]:
    """(name, SVG) of every curve of training that at least one of the models has."""
    benchmarks = dict.fromkeys(
        str(record.get("benchmark"))
        for model in models
        for record in training_records(model)
        if "verification_accuracy" in record
    )
    panels = [(f"Accuracy on {b}, 112 px, %", "verification_accuracy", b) for b in benchmarks]
    panels += [(name, key, None) for name, key in TRAINING]
    drawn = [
        (name, _training_panel(models, styles, key, benchmark, name))
        for name, key, benchmark in panels
    ]
    return [(name, svg) for name, svg in drawn if svg is not None]
