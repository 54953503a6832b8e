"""The matrix of resolutions as a heat map: both images of a pair at resolutions of their own."""

import math

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from crfr.report.drawing import INK, PANEL, RULE, stem, tick_labels
from crfr.report.models import Model
from crfr.report.render import Drawing, drawing
from crfr.report.resolutions import chosen
from crfr.report.sides import Matrix

MAP = "cividis"  # rises in lightness, and looks alike to colour-blind readers
NUMBERED = 8  # a matrix of at most so many resolutions has its numbers in its cells
TICKS = 10
GRID = 224  # cells a side of the picture


def _evenly(resolutions: list[int], values: np.ndarray) -> np.ndarray:
    """The values [s s] of rising resolutions on a grid that is even in octaves.

    One picture of it is drawn: the 11,664 cells of a full matrix would be a megabyte of paths.
    """
    log = np.log2(np.asarray(resolutions, float))
    middle = (log[1:] + log[:-1]) / 2
    grid = np.linspace(log[0], log[-1], GRID)
    nearest = np.searchsorted(middle, grid)
    return values[np.ix_(nearest, nearest)]


def _figure(matrix: Matrix, name: str) -> Figure:
    factor, form = (100, "{:.1f}") if name == "accuracy" else (1, "{:.2f}")
    resolutions = list(matrix.resolutions)[::-1]
    values = factor * matrix.figures[name][::-1, ::-1]
    low, high = (50.0, 100.0) if name == "accuracy" else (values.min(), values.max())
    low, high = min(low, values.min()), max(high, values.max(), low + 1e-3)
    figure = Figure(figsize=(PANEL, 3.4))
    axes = figure.add_axes((0.55 / PANEL, 0.46 / 3.4, 2.84 / PANEL, 2.84 / 3.4))
    small = len(resolutions) <= NUMBERED
    if small:
        ticks = labels = resolutions
        places = list(range(len(resolutions)))
        first, last = -0.5, len(resolutions) - 0.5
        cells = values
    else:
        ticks = chosen(resolutions, TICKS)
        places = [math.log2(r) for r in ticks]
        first, last = math.log2(resolutions[0]), math.log2(resolutions[-1])
        labels = tick_labels(ticks, 2.84 / (last - first))
        cells = _evenly(resolutions, values)
    box = (first, last, first, last)
    look = {"cmap": MAP, "norm": Normalize(low, high), "interpolation": "none", "origin": "lower"}
    image = axes.imshow(cells, extent=box, **look)
    for i, j in np.ndindex(values.shape) if small else ():
        light = (values[i, j] - low) / (high - low) > 0.42
        # black and white stay what they are in dark mode: they stand on the map's colours
        colour = "#000000" if light else "#ffffff"
        text = form.format(values[i, j])
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
    words = [str(r) if r in labels else "" for r in ticks]
    axes.set_xticks(places, labels=words)
    axes.set_yticks(places, labels=words)
    axes.tick_params(color=RULE, labelcolor=INK, labelsize=9)
    axes.set_xlabel("second image, px", color=INK, fontsize=9)
    axes.set_ylabel("first image, px", color=INK, fontsize=9)
    axes.spines[:].set_color(RULE)
    beside = figure.add_axes((3.45 / PANEL, 0.46 / 3.4, 0.1 / PANEL, 2.84 / 3.4))
    bar = figure.colorbar(image, cax=beside)
    bar.ax.tick_params(color=RULE, labelcolor=INK, labelsize=8)
    bar.outline.set_edgecolor(RULE)  # pyright: ignore[reportCallIssue]
    return figure


def matrix_figures(model: Model, benchmark: str) -> list[Drawing]:
    """Accuracy in % and best threshold over both resolutions; empty without a matrix."""
    matrix = model.matrices.get(benchmark)
    if matrix is None or len(matrix.resolutions) < 2:
        return []
    drawn = []
    for name, words in (("accuracy", "Accuracy, %"), ("threshold", "Best threshold")):
        title = f"{words}, {model.label} on {benchmark}"
        file = stem("matrix", benchmark, model.label, name)
        drawn.append(drawing(file, title, _figure(matrix, name), [], description=title))
    return drawn
