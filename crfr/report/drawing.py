"""What all figures have in common: colours, sizes, axes.

They are drawn with matplotlib's object API: no pyplot, no window, no global state.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crfr.report.models import Model

# Okabe and Ito's palette, safe for colour-blind readers, without its yellow, which white swallows;
# black is the ink, kept for the baseline.  6 colours and 7 markers: 42 other models look different.
INK, RULE = "#1a1d21", "#dfe3e8"
PALETTE = (INK, "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
POSITIVE, NEGATIVE = "#0072b2", "#e69f00"  # pairs of one person and of two, as in the paper
WIDE, PANEL = 8.0, 3.9  # inches (72 units of the SVG each): a laptop's page, a phone or half a page
Styles = dict[str, tuple[str, str]]  # label of a model -> (colour, marker)


@dataclass(frozen=True)
class Entry:
    """A line of a legend; without marker and line a patch of the colour, with them a curve."""

    name: str
    colour: str
    marker: str = ""
    line: Literal["", "-", ":", "--"] = "-"


def styles(models: Iterable[Model]) -> Styles:
    """A colour and a marker for each model; the first baseline has the ink."""
    styles, others = {}, 0
    for model in models:
        if model.method == "baseline" and not any(INK in style for style in styles.values()):
            styles[model.label] = (INK, MARKERS[0])
        else:
            others += 1
            styles[model.label] = style(others)
    return styles


def style(number: int) -> tuple[str, str]:
    """Colour and marker of the curve of that number, from 1; none of 42 are alike, none has ink."""
    return PALETTE[1 + (number - 1) % (len(PALETTE) - 1)], MARKERS[number % len(MARKERS)]


def stem(*parts: str) -> str:
    """The name of a file that such words make, without its suffix; safe on every disk.

    >>> stem("accuracy", "lfw"), stem("../x", "<b>")
    ('accuracy-lfw', 'x-b')
    """
    words = [re.sub(r"[^A-Za-z0-9_]+", "-", part).strip("-")[:48] or "unnamed" for part in parts]
    return "-".join(words)


def axes_of(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that size in inches with one plain pair of axes.

    Its margins are fixed: labels are short, and finding margins would take most of the time.
    """
    figure = Figure(figsize=(width, height))
    left, right, bottom, top = 0.58, 0.08, 0.46, 0.1
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(color=RULE, labelcolor=INK, labelsize=9)
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def label_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)


def tick_labels(resolutions: list[int], octave: float) -> list[int]:
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
