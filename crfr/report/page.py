"""The report: one HTML page that needs no network, and a folder of its figures and tables."""

import csv
import importlib.resources
import io
import math
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from crfr.errors import InputError
from crfr.report import paper
from crfr.report.absent import absent
from crfr.report.beside import table_1, table_2
from crfr.report.claims import claims_section
from crfr.report.drawing import Styles, stem, styles
from crfr.report.figures import entries_of
from crfr.report.files import Folder, check_folder, write_folder
from crfr.report.findings import findings
from crfr.report.formats import escape, prose
from crfr.report.glossary import glossary
from crfr.report.models import FOREIGN, Report, read_report
from crfr.report.pictures import analysis_table, differences, reduction
from crfr.report.provenance import provenance
from crfr.report.rows import AVERAGE
from crfr.report.sections import (
    across,
    average_section,
    benchmark_section,
    legend,
    paragraphs,
)
from crfr.report.training import training_figures, training_records


def _training(report: Report, styles: Styles, folder: Folder) -> str:
    """Curves and notes; empty where crfr trained none of the models."""
    drawn = training_figures(list(report.models), styles)
    notes = []
    for model in report.singles:
        if model.method in FOREIGN and not training_records(model):
            continue
        records = training_records(model)
        broken = sum(
            isinstance(r.get("loss"), int | float) and not math.isfinite(r["loss"]) for r in records
        )
        if not records:
            notes.append(f"{model.label}: no metrics.jsonl, so no curves.")
        elif broken:
            notes.append(f"{model.label}: {broken} log lines without a finite loss (gaps).")
    panels = "".join(folder.panel(drawing) for drawing in drawn)
    trained = [model for model in report.models if any(map(training_records, model.singles))]
    several = any(model.runs for model in trained)
    seeds = " Thin lines are single seeds, the others their means." if several else ""
    if not drawn and not notes:
        return ""
    figure = (
        f'<figure>{legend([entries_of(trained, styles)])}<div class="panels">{panels}'
        "</div><figcaption>Loss is cross-entropy summed over the views of an image, plus the "
        "weighted cosine distance between its high- and low-resolution views where a method has it "
        "(eq. 7), so that losses of different methods do not compare. Accuracy at full resolution "
        f"over epochs is the paper’s fig. 15. Long logs are drawn as means.{seeds}</figcaption>"
        "</figure>"
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<section id="training"><h2>Training</h2>{figure if drawn else ""}{notes}</section>'


def _paper(report: Report, folder: Folder) -> str:
    tables = "".join(folder.table(table) for table in (table_2(report), table_1(report)))
    note = (
        f"Numbers as printed by {paper.AUTHORS}, {paper.TITLE} ({paper.YEAR}). Its models are "
        f"ResNet-50 trained on MS1M, {paper.TRAINING_IMAGES} images of 87 k people, for 16 epochs: "
        "they say where the methods can get, and do not compare with models trained on less."
    )
    none = '<p class="note">Its tables are of LFW, which was not measured here.</p>'
    return (
        '<section id="paper"><h2>What the paper says</h2><div class="paper">'
        f"<p>{prose(note)}</p>{tables or none}</div></section>"
    )


def _dataset(report: Report, folder: Folder) -> str:
    analysis = report.analysis
    if analysis is None:
        return ""
    return (
        '<section id="dataset"><h2>What reducing does to the images</h2>'
        f"{reduction(analysis)}{differences(analysis)}{folder.table(analysis_table(analysis))}"
        "</section>"
    )


def _facts(report: Report) -> str:
    """One line on how the numbers were measured."""
    rows = [row for sweep in report.sweeps for row in sweep.rows]
    pairs = {row.benchmark: row.pairs for row in rows if row.benchmark != AVERAGE}
    facts = [f"{name}: {count:,} pairs" for name, count in pairs.items()]
    facts += [f"{rows[0].degradation} degradation", f"{report.thresholds} thresholds"]
    facts += ["with flip" if rows[0].flip else "no flip"]
    # these two may differ between models: a foreign one has precision and input of its own
    for name in ("precision", "pixels"):
        values: dict[str, list[str]] = {}
        for model in report.models:
            values.setdefault(str(getattr(model.sweeps[0].rows[0], name)), []).append(model.label)
        if len(values) == 1:
            facts.append(f"{name} {next(iter(values))}")
        else:
            each = "; ".join(f"{value} ({', '.join(who)})" for value, who in values.items())
            facts.append(f"{name} differs: {each}")
    grouped: dict[int, list[str]] = {}
    for model in report.models:
        grouped.setdefault(len(model.runs), []).append(model.label)
    facts += [f"mean over {n} seeds: {', '.join(who)}" for n, who in sorted(grouped.items()) if n]
    return " · ".join(facts)


def _absent(report: Report) -> str:
    """What the paper has and this page has not, and how to get it; empty with nothing missing."""
    items = "".join(
        f"<li>{escape(what)} <code>{escape(command)}</code></li>"
        for what, command in absent(report)
    )
    if not items:
        return ""
    return f'<section id="absent"><h2>Not shown</h2><ul class="absent">{items}</ul></section>'


def _rows_csv(report: Report) -> str:
    """Every row of every training, one line each."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names: list[str] = []
    runs = [(model.label, run) for model in report.models for run in model.singles]
    for label, run in runs:
        for row in [*run.cells.values(), *run.drawn.values()]:
            values = asdict(row)
            for name in ("tar", "seeds", "std"):
                del values[name]
            values["average_of"] = " ".join(row.average_of or [])
            values = {"label": label, "seed": run.seed} | values
            values |= {f"tar_{far}": v for far, v in row.tar.items()}
            if not names:
                names = list(values)
                writer.writerow(names)
            writer.writerow([values[name] for name in names])
    return buffer.getvalue()


def _add_numbers(report: Report, folder: Folder) -> None:
    """All rows, and every figure of every matrix with its resolutions."""
    folder.files["rows.csv"] = _rows_csv(report).encode()
    for model in report.singles:
        for benchmark, matrix in model.matrices.items():
            for name, values in matrix.figures.items():
                heads = ",".join(["first px \\ second px", *map(str, matrix.resolutions)])
                lines = [
                    ",".join([str(r), *line])
                    for r, line in zip(matrix.resolutions, np.char.mod("%.6g", values), strict=True)
                ]
                folder.add_matrix(
                    stem(benchmark, model.label, name), "\n".join([heads, *lines, ""])
                )


def page(report: Report, folder: Folder) -> str:
    """The whole page as HTML, and into `folder` its files: functions of the directories alone."""
    looks = styles(report.models)
    first = report.places[0]
    headline, sentences = findings(report, first)
    css = importlib.resources.files("crfr.report").joinpath("page.css").read_text("utf-8")
    names = {sweep.path: run.label for run in report.singles for sweep in run.sweeps}
    sections, links = [], []
    for order, place in enumerate(report.places):
        if place == AVERAGE:
            sections.append(average_section(report, looks, folder))
            links.append((f"place-{order}", "Average"))
        else:
            sections.append(benchmark_section(report, place, looks, folder, order))
            links.append((f"place-{order}", place))
    if not report.average and (side := across(report, folder)):
        sections.append(f'<section id="across"><h2>All benchmarks</h2>{side}</section>')
    parts = [
        ("dataset", "The images", _dataset(report, folder)),
        ("paper", "The paper", _paper(report, folder)),
        ("claims", "Its claims", claims_section(report, folder)),
        ("training", "Training", _training(report, looks, folder)),
    ]
    _add_numbers(report, folder)
    cards = "".join(provenance(sweep, names[sweep.path]) for sweep in report.sweeps)
    terms = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in glossary(report)
    )
    parts += [
        ("run", "What was run", '<section id="run"><h2>What was run</h2>'
            f'<div class="cards">{cards}</div></section>'),
        ("glossary", "What the words mean", '<section id="glossary" class="glossary">'
            "<h2>What the words mean</h2><p>Sections, equations and figures are the paper’s.</p>"
            f"<dl>{terms}</dl></section>"),
        ("absent", "Not shown", _absent(report)),
    ]  # fmt: skip
    links += [(target, words) for target, words, content in parts if content]
    nav = "".join(f'<a href="#{target}">{escape(words)}</a>' for target, words in links)
    where = "average of " + ", ".join(report.average) if first == AVERAGE else first
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(headline)}</title><style>{css}</style></head><body>",
            f'<header><p class="kicker">Cross-resolution face recognition · {escape(where)}</p>',
            f'<h1>{prose(headline)}</h1><div class="lead">{paragraphs(sentences)}</div>',
            f'<p class="facts">{escape(_facts(report))}</p><nav>{nav}</nav></header><main>',
            *sections,
            *(content for _, _, content in parts),
            '</main><footer class="note">Made by <code>crfr report</code>. All figures as SVG and '
            "PNG, all tables as CSV and Markdown, and every row in one CSV file are in "
            f"<code>{escape(folder.name)}</code>.</footer></body></html>",
            "",
        ]
    )


def write_report(
    sweeps: list[Path], out: Path, *, dataset: Path | None = None, thresholds: str | None = None
) -> None:
    """Writes the report of the sweep directories to `out`, an HTML file, and to `<stem>_files/`.

    `dataset` is a directory of `crfr dataset`, `thresholds` the mode whose rows are shown (without
    it "exact", or the only one).  Page and folder are each whole afterwards or as they were.
    Raises InputError for directories that are damaged or do not belong together, naming the file
    and the remedy.
    """
    if out.is_dir():
        raise InputError(f"{out} is a directory: give --out a file, such as {out / 'report.html'}")
    files = out.with_name(f"{out.stem}_files")
    check_folder(files)
    folder = Folder(files.name)
    text = page(read_report(sweeps, dataset, thresholds), folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        half.write_text(text, encoding="utf-8")
        write_folder(files, folder.files)
        os.replace(half, out)
    finally:
        half.unlink(missing_ok=True)
