"""Figures as what a page and its folder hold: inline SVG, SVG and PNG files.

On the page a figure is inline SVG whose ink, rule and colours become CSS variables, so that it
follows the page into dark mode; its text stays text.  The legend is the page's there.  The same
figure as a file has a title and a legend of its own.
"""

import html
import io
import re
import warnings
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from crfr.report.drawing import INK, PALETTE, RULE, Entry

VARIABLES = {INK: "var(--ink)", RULE: "var(--rule)"} | {
    colour: f"var(--c{i}, {colour})" for i, colour in enumerate(PALETTE) if colour != INK
}
DPI = 160


@dataclass(frozen=True)
class Drawing:
    """A figure: inline SVG for the page (`narrow` for phones, where it is not the same), files."""

    stem: str
    title: str
    svg: str
    narrow: str
    files: dict[str, bytes]  # by suffix


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element, a pure function of what is drawn; `name` is its own alone."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=DPI)
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r' id="[^"]*_\d+"', "", body)  # names of groups, alike in all figures
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    # a pixel is 0.75 units: two digits of a coordinate are enough, and halve the page
    body = re.sub(r' (d|x|y)="[^"]*"', lambda part: re.sub(r"(\.\d\d)\d+", r"\1", part[0]), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    width, height = figure.get_size_inches() * 72
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img">{body}'


def for_page(svg: str, description: str) -> str:
    """The element with a description, in colours that follow the page into dark mode."""
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    label = html.escape(description)
    return svg.replace('role="img"', f'role="img" aria-label="{label}"', 1)


def _svg_file(svg: str, width: float, height: float, title: str, entries: list[Entry]) -> str:
    """The element as a file, with a title above and a legend below; sizes in inches."""
    width, height = 72 * width, 72 * height
    text = f'font-family="DejaVu Sans, Verdana, sans-serif" fill="{INK}"'
    parts = [
        f'<text x="{width / 2:g}" y="14" text-anchor="middle" font-size="10" {text}>'
        f"{html.escape(title)}</text>",
        svg.replace("<svg ", f'<svg y="20" width="{width:g}" height="{height:g}" ', 1),
    ]
    for number, entry in enumerate(entries):
        y = height + 22 + 15 * number
        sign = swatch(entry).replace("<svg ", f'<svg x="42" y="{y:g}" width="30" height="12" ', 1)
        parts.append(f'{sign}<text x="78" y="{y + 9:g}" font-size="9" {text}>')
        parts.append(f"{html.escape(entry.name)}</text>")
    whole = height + 26 + 15 * len(entries)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" width="{width:g}pt" height="{whole:g}pt" '
        f'viewBox="0 0 {width:g} {whole:g}"><rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _png(figure: Figure, title: str, entries: list[Entry]) -> bytes:
    """The figure as a PNG file with a title above and a legend below.  Changes the figure."""
    width, height = (float(size) for size in figure.get_size_inches())
    above, below = 0.3, 0.1 + 0.21 * len(entries)
    whole = height + above + below
    figure.set_size_inches(width, whole)
    for axes in figure.axes:
        box = axes.get_position()
        rect = (box.x0, (box.y0 * height + below) / whole, box.width, box.height * height / whole)
        axes.set_position(rect)
    middle = 1 - 0.18 / whole
    text = {"color": INK, "parse_math": False}  # names of models may hold dollar signs
    figure.text(0.5, middle, title, ha="center", va="center", fontsize=9, **text)
    for number, entry in enumerate(entries):
        y = (below - 0.1 - 0.21 * number) / whole
        figure.text(1.05 / width, y, entry.name, va="center", fontsize=8, **text)
        ends = [0.6 / width, 0.98 / width]
        if entry.line:
            line = Line2D(ends, [y, y], color=entry.colour)
            line.set_linestyle(entry.line)
            figure.add_artist(line)
            if entry.marker:
                middle = [sum(ends) / 2]
                figure.add_artist(Line2D(middle, [y], color=entry.colour, marker=entry.marker))
        else:
            corner = (ends[0], y - 0.05 / whole)
            box = Rectangle(corner, ends[1] - ends[0], 0.1 / whole, color=entry.colour)
            figure.add_artist(box)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of scripts that matplotlib's font lacks
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def drawing(
    name: str,
    title: str,
    figure: Figure,
    entries: list[Entry],
    *,
    description: str,
    narrow: Figure | None = None,
) -> Drawing:
    """What a page and its folder need of a figure."""
    svg = _svg(figure, name)
    small = _svg(narrow, f"{name} narrow") if narrow is not None else ""
    width, height = (float(size) for size in figure.get_size_inches())
    files = {
        ".svg": _svg_file(svg, width, height, title, entries).encode(),
        ".png": _png(figure, title, entries),
    }
    return Drawing(name, title, for_page(svg, description), for_page(small, description), files)


# Markers as paths around (0, 0), as large as matplotlib's of size 6 are
MARKER_PATHS = {
    "o": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
    "s": "M-3 -3h6v6h-6z",
    "^": "M0 -3.4L3.2 2.6H-3.2z",
    "D": "M0 -4L4 0L0 4L-4 0z",
    "v": "M0 3.4L3.2 -2.6H-3.2z",
    "P": "M-1.3 -3.6h2.6v2.3h2.3v2.6h-2.3v2.3h-2.6v-2.3h-2.3v-2.6h2.3z",
    "X": "M-3.4 -1.8L-1.8 -3.4L0 -1.6L1.8 -3.4L3.4 -1.8L1.6 0L3.4 1.8L1.8 3.4L0 1.6L-1.8 3.4"
    "L-3.4 1.8L-1.6 0z",
}
DASHES = {":": "1.8 2.4", "--": "6 3"}


def swatch(entry: Entry) -> str:
    """A line with its marker, or a patch of colour, for a legend."""
    colour = entry.colour
    if entry.line:
        dash = f' stroke-dasharray="{DASHES[entry.line]}"' if entry.line in DASHES else ""
        body = f'<path d="M-17 0H17" stroke="{colour}" stroke-width="1.8"{dash}/>'
        if entry.marker:
            body += f'<path d="{MARKER_PATHS[entry.marker]}" fill="{colour}"/>'
    else:
        body = f'<path d="M-11 -5H11V5H-11z" fill="{colour}"/>'
    return f'<svg viewBox="-18 -7.2 36 14.4" role="img">{body}</svg>'
