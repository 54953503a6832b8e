"""Models trained for one low resolution each, BT-r and ST-r: which, and the paper's fig. 9."""

import re

from crfr.report import paper
from crfr.report.drawing import INK, PANEL, Entry, stem, style
from crfr.report.figures import accuracy_curve, curves_figure
from crfr.report.models import Model, Report
from crfr.report.render import Drawing, drawing
from crfr.report.rows import Row


def find(report: Report, method: str) -> Model | None:
    """The model of a method; of several recipes that with the most seeds, or else the first."""
    found = [model for model in report.models if model.method == method]
    return max(found, key=lambda model: len(model.singles), default=None)


def specialised(report: Report, kind: str) -> dict[int, Model]:
    """The models of a kind, "bt" or "st", by rising r in px."""
    methods = {model.method for model in report.models}
    numbers = [int(m[1]) for name in methods if (m := re.fullmatch(rf"{kind}-(\d+)", name))]
    return {r: model for r in sorted(numbers) if (model := find(report, f"{kind}-{r}"))}


def specialised_figure(report: Report, place: str) -> Drawing | None:
    """Models trained for one resolution, each at its own, beside the baseline (fig. 9).

    None without two such models of one kind.
    """
    families: dict[str, dict[int, Row]] = {}
    for kind in ("bt", "st"):
        for r, model in specialised(report, kind).items():
            own = model.curve(place, "CR").get(r)
            if own is not None:
                families.setdefault(kind, {})[r] = own
    families = {name: rows for name, rows in families.items() if len(rows) > 1}
    if not families:
        return None
    curves, legend = [], []
    if report.reference.method == "baseline" and (rows := report.reference.curve(place, "CR")):
        own = {r for rows in families.values() for r in rows}
        curves.append(
            accuracy_curve({r: row for r, row in rows.items() if r in own}, INK, "^", equal=False)
        )
        legend.append(Entry(report.reference.legend, INK, "^"))
    for number, (name, rows) in enumerate(families.items(), 1):
        look = style(number)
        curves.append(accuracy_curve(dict(sorted(rows.items())), *look, equal=False))
        legend.append(Entry(f"{paper.display(name)}-r, each at its own r", *look))
    title = f"Models trained for one resolution, on {place}"
    figure = curves_figure([c for c in curves if c.values], PANEL, 3.0, "accuracy, %")
    return drawing(stem("specialised", place), title, figure, legend, description=title)
