"""Tables: HTML for the page, plain text for a terminal.

An HTML table has one model a row and one resolution a column; text from files is escaped here.
"""

import html
from collections.abc import Callable, Iterable
from pathlib import Path

from crfr.report import paper
from crfr.report.models import Report, chosen, read_report
from crfr.report.rows import Row

MISSING = "–"  # not measured
TERMINAL = 10  # most columns of the summary: it has to fit 80 characters


def escape(text: object) -> str:
    return html.escape(str(text))


def count(value: object) -> str:
    """A number with its thousands apart; anything else that a file has there as it is."""
    if value is None:
        return MISSING
    return f"{value:,}" if type(value) is int else escape(value)


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def html_table(caption: str, head: Iterable[str], body: Iterable[tuple[str, list[str]]]) -> str:
    """A table of HTML: column heads, rows of (row head, cells); it scrolls where it is wide."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    rows = "".join(
        f'<tr><th scope="row"><span>{name}</span></th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>\n"
        for name, cells in body
    )
    return (
        f'<div class="scroll" tabindex="0"><table><caption><span>{caption}</span></caption>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _grid(
    report: Report, benchmark: str, scenario: str, caption: str, cell: Callable[[Row], str]
) -> str:
    """Models x resolutions of one scenario; empty where no model has rows."""
    models = report.measured(benchmark, scenario)
    resolutions = sorted({r for model in models for r in model.curve(benchmark, scenario)})
    body = []
    for model in models:
        rows = model.curve(benchmark, scenario)
        cells = [cell(rows[r]) if r in rows else MISSING for r in resolutions]
        body.append((escape(model.label), cells))
    heads = ["model", *(f"{r}&nbsp;px" for r in resolutions)]
    return html_table(caption, heads, body) if models else ""


def accuracy_table(report: Report, benchmark: str, scenario: str) -> str:
    """Accuracy in % and its standard deviation over the folds; the best of several is bold."""
    rivals = len(report.measured(benchmark, scenario)) > 1
    best: dict[int, str] = {}
    for model in report.models:
        for r, row in model.curve(benchmark, scenario).items():
            best[r] = max(
                best.get(r, ""), percent(row.accuracy), key=lambda text: float(text or -1)
            )

    def cell(row: Row) -> str:
        # equal as printed is equal to the reader
        text = percent(row.accuracy)
        text = f"<b>{text}</b>" if rivals and text == best[row.resolution] else text
        return f"{text}<small>± {percent(row.accuracy_std)}</small>"

    caption = f"<b>{scenario} accuracy</b> on {escape(benchmark)}, %"
    return _grid(report, benchmark, scenario, caption, cell)


def distance_table(report: Report, benchmark: str, scenario: str) -> str:
    """Threshold, and the mean distances of pairs of one person and of two people."""

    def cell(row: Row) -> str:
        means = f"{row.positive_distance:.3f} | {row.negative_distance:.3f}"
        return f"{row.threshold:.3f}<small>{means}</small>"

    caption = (
        f"<b>{scenario} thresholds</b> on {escape(benchmark)}, cosine distances; below each, "
        "the mean distance of pairs of one person | of two people"
    )
    return _grid(report, benchmark, scenario, caption, cell)


def paper_tables(report: Report) -> str:
    """What the paper printed for the methods of this report; empty where it has none of them."""
    methods = list(dict.fromkeys(model.method for model in report.models))
    body = []
    for method in methods:
        if method in paper.TABLE_2:
            row = paper.TABLE_2[method]
            cells = [MISSING if row[p] is None else f"{row[p]:.2f}" for p in paper.PROTOCOLS]
            cells += [f"{row['hours']:g} h"]
            body.append((f"{paper.display(method)} <small>paper</small>", cells))
    columns = [
        name + (f"<small>{of}</small>" if of else "") for name, of in paper.PROTOCOLS.items()
    ]
    heads = ["method", *columns, "one epoch"]
    tables = []
    if body:
        caption = (
            f"<b>The paper’s table 2</b>: CR accuracy on LFW, %, models trained on "
            f"{paper.TRAINING_IMAGES} images"
        )
        tables.append(html_table(caption, heads, body))
    theirs = [
        (f"{paper.display(name)} <small>paper</small>", [f"{r} px", f"{accuracy:.2f}"])
        for r, name, accuracy in paper.TABLE_1
        if name in methods
    ]
    if theirs:
        caption = "<b>The paper’s table 1</b>: accuracy on LFW at the resolution of training, %"
        tables.append(html_table(caption, ["method", "resolution", "accuracy"], theirs))
    return "\n".join(tables)


def beside_paper(report: Report) -> str:
    """This report's CR accuracy on LFW at the resolutions of table 2, with what it was trained on.

    Empty where the report has no LFW, or neither resolution.
    """
    columns = [r for r in (112, 5) if r in report.resolutions(paper.BENCHMARK)]
    body = []
    for model in report.measured(paper.BENCHMARK):
        rows = model.curve(paper.BENCHMARK, "CR")
        cells = [percent(rows[r].accuracy) if r in rows else MISSING for r in columns]
        starts = model.sweeps[0].starts
        cells.append(count(starts[-1].get("images")) if starts else MISSING)
        body.append((escape(model.label), cells))
    caption = f"<b>This report</b>: CR accuracy on {paper.BENCHMARK}, %, at the same resolutions"
    heads = ["model", *(f"{r} px" for r in columns), "training images"]
    return html_table(caption, heads, body) if body and columns else ""


def summary_table(sweeps: list[Path]) -> str:
    """CR accuracy in %, models x resolutions, as plain text for a terminal: one table a benchmark.

    Raises InputError as `write_report` does.
    """
    report = read_report(sweeps)
    parts = []
    for benchmark in report.benchmarks:
        models = report.measured(benchmark)
        everywhere = report.resolutions(benchmark)
        resolutions = chosen(everywhere, TERMINAL)
        title = f"CR accuracy in % on {benchmark}"
        if len(resolutions) < len(everywhere):
            title += f" ({len(resolutions)} of {len(everywhere)} resolutions)"
        width = max([len(model.label) for model in models] + [len("model")])
        lines = [title, "model".ljust(width) + "".join(f"{f'{r} px':>7}" for r in resolutions)]
        for model in models:
            rows = model.curve(benchmark, "CR")
            cells = [percent(rows[r].accuracy) if r in rows else MISSING for r in resolutions]
            lines.append(model.label.ljust(width) + "".join(f"{cell:>7}" for cell in cells))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
