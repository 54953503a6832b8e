"""The parts of the page about one benchmark, or about the average of several."""

from crfr.report import figures
from crfr.report.breaks import break_table
from crfr.report.comparison import difference_table, paired_tests
from crfr.report.differences import seed_table
from crfr.report.drawing import Entry, Styles
from crfr.report.files import Folder
from crfr.report.findings import findings
from crfr.report.formats import escape, prose
from crfr.report.heatmap import matrix_figures
from crfr.report.models import Model, Report
from crfr.report.pictures import sample_pairs, sample_table
from crfr.report.render import for_page, swatch
from crfr.report.specialised import specialised_figure
from crfr.report.tables import (
    accuracy_table,
    below,
    distance_table,
    merit_table,
    protocol_table,
)
from crfr.report.violins import HALVES, KINDS, violin_figures


def paragraphs(sentences: list[str]) -> str:
    return "".join(f"<p>{prose(sentence)}</p>" for sentence in sentences)


def legend(lists: list[list[Entry]]) -> str:
    """Lists of entries, a list a line."""
    parts = []
    for entries in lists:
        items = "".join(
            f"<li>{for_page(swatch(entry), '')}{escape(entry.name)}</li>" for entry in entries
        )
        parts.append(f'<ul class="legend">{items}</ul>')
    return "".join(parts)


def _panels(heading: str, lines: list[list[Entry]], panels: list[str], caption: str) -> str:
    """A heading, a legend and figures side by side where there is room; empty without figures."""
    if not panels:
        return ""
    shown = legend(lines) if lines else ""
    return (
        f'<h3>{escape(heading)}</h3><figure>{shown}<div class="panels">{"".join(panels)}</div>'
        f"<figcaption>{prose(caption)}</figcaption></figure>"
    )


def _models(models: list[Model], styles: Styles) -> list[list[Entry]]:
    return [figures.entries_of(models, styles)] if len(models) > 1 else []


def _accuracy(report: Report, place: str, styles: Styles, folder: Folder) -> str:
    """The main figure, its tables, where models break, and the zoomed parts."""
    models = [m for m in report.models if m.curve(place, "CR") or m.curve(place, "ER")]
    several = any(model.runs for model in models)
    if not models:  # protocols alone were measured
        return ""
    drawn = folder.figure(figures.accuracy_figure(report, place, styles))
    lines = [figures.entries_of(models, styles), [figures.CROSS, figures.EQUAL]]
    zooms = [folder.panel(d) for d in figures.zoom_figures(report, place, styles)]
    special = specialised_figure(report, place)
    return (
        f"<figure>{legend(lines)}{drawn}<figcaption>"
        "Share of photo pairs judged correctly as one person or two. Solid: CR, one image of each "
        "pair is reduced; the band is the 95 % interval"
        + (", or of several seeds their mean ± standard deviation" if several else "")
        + ". Dotted: ER, both images are reduced. The axis of resolutions is logarithmic."
        "</figcaption></figure>"
        + "".join(folder.table(accuracy_table(report, place, s)) for s in ("CR", "ER"))
        + f'<p class="note">Below each accuracy its {below(report)}'
        + ("; the best of each column is bold.</p>" if len(models) > 1 else ".</p>")
        + folder.table(break_table(report, place))
        + _panels("Close up", _models(models, styles), zooms, "CR accuracy near 7 and near 14 px, "
                  "two resolutions that models are trained for (the paper’s fig. 13).")
        + _panels("Models trained for one resolution", [], [folder.panel(special)] if special else
                  [], "Every point of a curve is another model, measured at the resolution that it "
                  "was trained for (the paper’s fig. 9).")
    )  # fmt: skip


def average_section(report: Report, styles: Styles, folder: Folder) -> str:
    """The average over benchmarks (figs 1, 9, 12) and the benchmarks side by side (fig. 5)."""
    place, names = report.places[0], ", ".join(report.average)
    return (
        f'<section id="place-0"><h2>Average of {len(report.average)} benchmarks</h2>'
        f'<p class="note">Unweighted means over {escape(names)}: the paper’s figs 1, 9 and 12.</p>'
        + _accuracy(report, place, styles, folder)
        + folder.table(protocol_table(report, place))
        + across(report, folder)
        + "</section>"
    )


def across(report: Report, folder: Folder) -> str:
    """One figure a model with every benchmark (fig. 5); empty with one benchmark."""
    if len(report.benchmarks) < 2:
        return ""
    looks = figures.benchmark_styles(report)
    lines = [[Entry(name, *look) for name, look in looks.items()]]
    lines += [[figures.CROSS, figures.EQUAL]]
    drawn = [figures.benchmarks_figure(report, model) for model in report.models]
    panels = [folder.panel(d, m.label) for d, m in zip(drawn, report.models, strict=True) if d]
    caption = "Accuracy on each benchmark (the paper’s fig. 5); solid CR, dotted ER."
    return _panels("Benchmark by benchmark", lines, panels, caption)


def _distances(report: Report, benchmark: str, styles: Styles, folder: Folder) -> str:
    """Mean distances, thresholds and distributions (figs 6, 7, 10, 11, 14)."""
    means = [
        folder.panel(d, model.label)
        for model in report.models
        if (d := figures.distances_figure(model, benchmark, KINDS))
    ]
    parts = _panels(
        "Mean distances",
        [KINDS, [figures.CROSS, figures.EQUAL]],
        means,
        "Mean cosine distances of pairs of one person and of two people (the paper’s fig. 6). "
        "Where the two curves meet, a model can no longer tell.",
    )
    models = [model.one for model in report.models if benchmark in model.one.pairs]
    violins = []
    for model in models:
        equal = len(models) == 1 or model is report.reference.one
        for drawing, scenario in violin_figures(model, benchmark, equal=equal):
            violins.append(folder.panel(drawing, f"{model.label}, {scenario}"))
    parts += _panels(
        "Distributions of distances",
        [HALVES],
        violins,
        "Left halves: pairs of one person; right halves: pairs of two people; all peaks are "
        "equally wide. A short line is the median, a dashed one the threshold (the paper’s figs 7, "
        f"10, 14).{_one_seed(report)}",
    )
    best = figures.thresholds_figure(report, benchmark, styles)
    return parts + _panels(
        "Best thresholds",
        _models(report.measured(benchmark), styles),
        [folder.panel(best, "CR")] if best else [],
        "Mean over the folds (the paper’s fig. 11). One threshold for all resolutions would be a "
        "horizontal line.",
    )


def _one_seed(report: Report) -> str:
    """What a figure of single trainings says where there are several seeds."""
    several = any(model.runs for model in report.models)
    return " Of several seeds one is shown, as named: a mean would blur it." if several else ""


def _matrices(report: Report, benchmark: str, folder: Folder) -> str:
    panels = []
    for model in (each.one for each in report.models):
        drawn = matrix_figures(model, benchmark)
        for drawing, words in zip(drawn, ("accuracy, %", "threshold"), strict=False):
            panels.append(folder.panel(drawing, f"{model.label}, {words}"))
    return _panels(
        "Every pair of resolutions",
        [],
        panels,
        "The first image of each pair at the resolution of the row, the second at that of the "
        "column. The diagonal is ER; the row and the column of 112 px are the two halves of CR."
        f"{_one_seed(report)}",
    )


def benchmark_section(
    report: Report, benchmark: str, styles: Styles, folder: Folder, order: int
) -> str:
    """All that was measured on a benchmark; `order` is its place on the page."""
    lead = "" if order == 0 else paragraphs(findings(report, benchmark)[1])
    tests = difference_table(report, benchmark, paired_tests(report, benchmark))
    if samples := sample_table(report, benchmark):
        folder.keep(samples)
    halves = "".join(
        folder.table(table(report, benchmark, scenario))
        for scenario in ("CR_A", "CR_B")
        for table in (accuracy_table, distance_table)
    )
    rates = "".join(folder.table(merit_table(report, benchmark, s)) for s in ("CR", "ER"))
    more = "".join(folder.table(distance_table(report, benchmark, s)) for s in ("CR", "ER"))
    folds = [
        ("Error rates: TAR at fixed FAR, EER, AUC", rates),
        ("Thresholds and mean distances in numbers", more),
        ("The two halves of CR: first image reduced (CR_A), second image reduced (CR_B)", halves),
    ]
    return (
        f'<section id="place-{order}"><h2>{escape(benchmark)}</h2>{lead}'
        + _accuracy(report, benchmark, styles, folder)
        + folder.table(tests)
        + folder.table(seed_table(report, benchmark))
        + folder.table(protocol_table(report, benchmark))
        + sample_pairs(report, benchmark)
        + _distances(report, benchmark, styles, folder)
        + _matrices(report, benchmark, folder)
        + "".join(
            f"<details><summary>{escape(name)}</summary>{content}</details>"
            for name, content in folds
            if content
        )
        + "</section>"
    )
