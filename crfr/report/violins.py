"""Distributions of the pairs' distances at a few resolutions: the paper's figs 7, 10 and 14."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from crfr.report.drawing import INK, NEGATIVE, PANEL, POSITIVE, Entry, axes_of, label_axes, stem
from crfr.report.models import Model
from crfr.report.render import Drawing, drawing
from crfr.report.sides import Pairs

BINS = 512  # of the histogram that is smoothed
POINTS = 72  # of an outline
KINDS = [Entry("pairs of one person", POSITIVE, "o"), Entry("pairs of two people", NEGATIVE, "^")]
HALVES = [Entry(kind.name, kind.colour, line="") for kind in KINDS]


def density(distance: Float[np.ndarray, " p"]) -> tuple[np.ndarray, np.ndarray]:
    """(distances, density) of a Gaussian kernel of Silverman's width; the peak is 1.

    A histogram is smoothed instead of the points: 6,000 pairs cost as much as 60.
    """
    spread = float(np.std(distance))
    low, high = np.percentile(distance, [25, 75])
    width = 0.9 * min(spread, (high - low) / 1.34 or spread) * len(distance) ** -0.2
    width = max(width, 1e-4)
    edges = np.linspace(distance.min() - 3 * width, distance.max() + 3 * width, BINS + 1)
    counts = np.histogram(distance, edges)[0].astype(float)
    step = edges[1] - edges[0]
    reach = min(BINS // 2 - 1, max(1, int(4 * width / step)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
    smooth = np.convolve(counts, kernel, mode="same")
    centres = (edges[1:] + edges[:-1]) / 2
    at = np.linspace(centres[0], centres[-1], POINTS)
    return at, np.interp(at, centres, smooth / smooth.max())


def distances_at(pairs: Pairs, scenario: str, resolution: int) -> Float[np.ndarray, " q"]:
    """The distances of a scenario at a resolution; for CR those of both directions, one after
    the other."""
    halves = ("CR_A", "CR_B") if scenario == "CR" else (scenario,)
    return np.concatenate([pairs.distances[half][resolution] for half in halves])


def limits(pairs: Pairs) -> tuple[float, float]:
    """The range of distances that both figures of a model share; siamese models need little."""
    every = [values for part in pairs.distances.values() for values in part.values()]
    low, high = min(float(v.min()) for v in every), max(float(v.max()) for v in every)
    return min(0.0, low), max(high, low + 1e-3)


def _figure(
    pairs: Pairs, scenario: str, thresholds: dict[int, float], span: tuple[float, float]
) -> Figure:
    figure, axes = axes_of(PANEL, 3.2)
    resolutions = pairs.resolutions(scenario)
    for place, r in enumerate(resolutions):
        distance = distances_at(pairs, scenario, r)
        same = np.resize(pairs.same, len(distance))  # CR has every pair twice
        for of, colour, side in ((same, POSITIVE, -1), (~same, NEGATIVE, 1)):
            at, height = density(distance[of])
            outline = place + side * (0.03 + 0.42 * height)
            axes.fill_betweenx(at, place + side * 0.03, outline, color=colour, linewidth=0)
            middle = float(np.median(distance[of]))
            ends = [place + side * 0.03, place + side * 0.2]
            axes.plot(ends, [middle, middle], color=INK, linewidth=1)
        if r in thresholds:
            ends = [place - 0.45, place + 0.45]
            line = [thresholds[r]] * 2
            axes.plot(ends, line, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    axes.set_xticks(range(len(resolutions)), labels=[str(r) for r in resolutions])
    axes.set_xlim(-0.6, len(resolutions) - 0.4)
    axes.xaxis.grid(False)
    margin = 0.03 * (span[1] - span[0])
    axes.set_ylim(span[0] - margin, span[1] + margin)
    both = "resolution of both images, px" if scenario == "ER" else "resolution of one image, px"
    label_axes(axes, both, "cosine distance")
    return figure


def violin_figures(model: Model, benchmark: str, *, equal: bool) -> list[tuple[Drawing, str]]:
    """(figure, scenario): CR, and with `equal` ER beside it, where they have distances."""
    pairs = model.pairs.get(benchmark)
    if pairs is None:
        return []
    drawn = []
    for scenario in ("CR", "ER"):
        if not pairs.resolutions(scenario) or (scenario == "ER" and not equal):
            continue
        rows = model.curve(benchmark, scenario)
        thresholds = {r: t for r, row in rows.items() if (t := row.threshold) is not None}
        title = f"Distances in {scenario}, {model.label} on {benchmark}"
        figure = _figure(pairs, scenario, thresholds, limits(pairs))
        name = stem("distribution", benchmark, model.label, scenario)
        legend = [*HALVES, Entry("threshold", INK, line="--")]
        drawn.append((drawing(name, title, figure, legend, description=title), scenario))
    return drawn
