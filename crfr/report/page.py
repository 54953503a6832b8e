"""The report: one HTML file that needs nothing else, no network and no other file."""

import base64
import importlib.resources
import io
import math
import os
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from crfr.errors import InputError
from crfr.report import figures, paper
from crfr.report.findings import findings
from crfr.report.glossary import glossary
from crfr.report.models import Report, chosen, read_report
from crfr.report.provenance import provenance
from crfr.report.rows import Sweep
from crfr.report.tables import (
    accuracy_table,
    beside_paper,
    distance_table,
    escape,
    paper_tables,
)

STRIPS = 10  # most resolutions of which sample faces are shown
STRIP_WIDTH = 1120  # px, ten faces; a wider strip is cut to keep the page small


def _prose(text: str) -> str:
    """Escaped text in which no line ends between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(px|%|points)\b|%)", "&nbsp;", escape(text))


def _paragraphs(sentences: list[str]) -> str:
    return "".join(f"<p>{_prose(sentence)}</p>" for sentence in sentences)


def _data_uri(path: Path) -> str:
    """A strip of sample faces as JPEG: a tenth of the PNG, and no difference that the eye sees."""
    try:
        with Image.open(path) as image:
            strip = image.convert("RGB").crop((0, 0, min(image.width, STRIP_WIDTH), image.height))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(
            f"{path}: no readable image ({error}): delete it or sweep again"
        ) from error
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _samples(sweeps: tuple[Sweep, ...], benchmark: str) -> str:
    """The same faces at falling resolutions, from the first sweep of the benchmark that has them.

    A directory has samples of one benchmark, the one of its sweep.json.
    """
    sweeps = tuple(
        sweep
        for sweep in sweeps
        if sweep.about["benchmark"] == benchmark or {r.benchmark for r in sweep.rows} == {benchmark}
    )
    strips = next((sweep.samples for sweep in sweeps if sweep.samples), {})
    if not strips:
        return (
            f'<p class="note">No sample faces of {escape(benchmark)}: '
            "its sweep directories have no samples/R.png.</p>"
        )
    shown = chosen(sorted(strips), STRIPS)[::-1]
    rows = "".join(
        f'<div><span>{r} px</span><img src="{_data_uri(strips[r])}" alt="faces at {r} px"></div>'
        for r in shown
    )
    return (
        f'<figure><div class="strips">{rows}</div><figcaption>Samples of {escape(benchmark)} as '
        "the models see them, reduced to each resolution and enlarged again.</figcaption></figure>"
    )


def _legend(report: Report, styles: figures.Styles, place: str, scenarios: bool) -> str:
    """The lines of the models and, where a figure has both, of the scenarios."""
    lists = [[(*styles[model.label], "-", escape(model.label)) for model in report.models]]
    if scenarios:
        cross = (figures.INK, "", "-", "CR, one image of a pair reduced")
        lists.append([cross, (figures.INK, "", ":", "ER, both reduced")])
    parts = []
    for i, entries in enumerate(lists):
        items = "".join(
            f"<li>{figures.swatch(colour, marker, line, f'{place} {i} {j}')}{name}</li>"
            for j, (colour, marker, line, name) in enumerate(entries)
        )
        parts.append(f'<ul class="legend">{items}</ul>')
    return "".join(parts)


def _benchmark(report: Report, benchmark: str, styles: figures.Styles, order: int) -> str:
    """All that was measured on a benchmark."""
    drawings = "".join(
        f'<div class="{kind}">{figures.accuracy_figure(report, benchmark, styles, width)}</div>'
        for kind, width in (("wide", 8.0), ("narrow", 4.0))
    )
    others = "".join(
        table(report, benchmark, scenario)
        for scenario in ("CR_A", "CR_B")
        for table in (accuracy_table, distance_table)
    )
    lead = "" if order == 0 else _paragraphs(findings(report, benchmark)[1])
    return (
        f'<section id="benchmark-{order}"><h2>Accuracy on {escape(benchmark)}</h2>{lead}'
        f"<figure>{_legend(report, styles, f'benchmark {order}', True)}{drawings}<figcaption>"
        "Share of photo pairs judged correctly as one person or two. Solid: CR, one image of each "
        "pair is reduced; the band is one standard deviation over the ten folds to either side. "
        "Dotted: ER, both images are reduced. The axis of resolutions is logarithmic."
        f"</figcaption></figure>{_samples(report.sweeps, benchmark)}"
        + "".join(accuracy_table(report, benchmark, scenario) for scenario in ("CR", "ER"))
        + '<p class="note">The best of each column is bold; ± is the standard deviation over the '
        "ten folds.</p>"
        + "".join(distance_table(report, benchmark, scenario) for scenario in ("CR", "ER"))
        + (
            others
            and "<details><summary>The two halves of CR: the first image reduced (CR_A), the "
            f"second image reduced (CR_B)</summary>{others}</details>"
        )
        + "</section>"
    )


def _training(report: Report, styles: figures.Styles) -> str:
    drawn = figures.training_figures(list(report.models), styles)
    notes = []
    for model in report.models:
        records = figures.training_records(model)
        broken = sum(
            isinstance(r.get("loss"), int | float) and not math.isfinite(r["loss"]) for r in records
        )
        if not records:
            notes.append(f"{model.label}: no metrics.jsonl, so no curves.")
        elif broken:
            notes.append(f"{model.label}: {broken} log lines without a finite loss (gaps).")
    panels = "".join(
        f'<div class="panel"><h3>{escape(name)}</h3>{svg}</div>' for name, svg in drawn
    )
    figure = (
        f'<figure>{_legend(report, styles, "training", False)}<div class="panels">{panels}</div>'
        "<figcaption>Loss is cross-entropy summed over the views of an image, plus the weighted "
        "cosine distance between its high- and low-resolution views where a method has it (eq. 7), "
        "so that losses of different methods do not compare. Accuracy at full resolution over "
        "epochs is the paper’s fig. 15. Long logs are drawn as means.</figcaption></figure>"
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<section id="training"><h2>Training</h2>{figure if drawn else ""}{notes}</section>'


def _paper(report: Report) -> str:
    tables = paper_tables(report)
    note = (
        f"Numbers as printed by {paper.AUTHORS}, {paper.TITLE} ({paper.YEAR}). Its models are "
        f"ResNet-50 trained on MS1M, {paper.TRAINING_IMAGES} images of 87 k people, for 16 epochs: "
        "they say where the methods can get, and do not compare with models trained on less."
    )
    none = '<p class="note">None of these methods is in its tables.</p>'
    return (
        f'<section id="paper"><h2>The paper’s own numbers</h2><div class="paper">'
        f"<p>{_prose(note)}</p>{tables or none}</div>"
        f"{beside_paper(report) if tables else ''}</section>"
    )


def _facts(report: Report) -> str:
    """One line on how the numbers were measured."""
    row = report.sweeps[0].rows[0]
    pairs = {row.benchmark: row.pairs for sweep in report.sweeps for row in sweep.rows}
    facts = [f"{name}: {count:,} pairs" for name, count in pairs.items()]
    facts += [f"{row.degradation} degradation", f"{row.precision} precision"]
    facts += [f"{row.thresholds} thresholds", "with flip" if row.flip else "no flip"]
    return " · ".join(facts)


def page(report: Report) -> str:
    """The whole page as HTML, a pure function of the sweep directories."""
    first = report.benchmarks[0]
    styles = figures.styles(report.models)
    headline, sentences = findings(report, first)
    css = importlib.resources.files("crfr.report").joinpath("page.css").read_text("utf-8")
    names = {sweep.path: model.label for model in report.models for sweep in model.sweeps}
    links = [(f"benchmark-{i}", f"Accuracy on {name}") for i, name in enumerate(report.benchmarks)]
    links += [("training", "Training"), ("paper", "The paper’s numbers")]
    links += [("run", "What was run"), ("glossary", "What the words mean")]
    nav = "".join(f'<a href="#{target}">{escape(name)}</a>' for target, name in links)
    cards = "".join(provenance(sweep, names[sweep.path]) for sweep in report.sweeps)
    terms = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>"
        for term, words in glossary(report.sweeps[0].rows[0])
    )
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(headline)}</title><style>{css}</style></head><body>",
            f'<header><p class="kicker">Cross-resolution face recognition · {escape(first)}</p>',
            f'<h1>{_prose(headline)}</h1><div class="lead">{_paragraphs(sentences)}</div>',
            f'<p class="facts">{escape(_facts(report))}</p><nav>{nav}</nav></header><main>',
            *(_benchmark(report, b, styles, i) for i, b in enumerate(report.benchmarks)),
            _training(report, styles),
            _paper(report),
            f'<section id="run"><h2>What was run</h2><div class="cards">{cards}</div></section>',
            '<section id="glossary" class="glossary"><h2>What the words mean</h2>',
            f"<p>Sections, equations and figures are the paper’s.</p><dl>{terms}</dl></section>",
            '</main><footer class="note">Made by <code>crfr report</code>.</footer></body></html>',
            "",
        ]
    )


def write_report(sweeps: list[Path], out: Path) -> None:
    """Writes the report of the sweep directories to `out`, an HTML file.

    Either the whole page is there afterwards or what was there before.  Raises InputError for sweep
    directories that are damaged or do not belong together, naming the file and the remedy.
    """
    text = page(read_report(sweeps))
    if out.is_dir():
        raise InputError(f"{out} is a directory: give --out a file, such as {out / 'report.html'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        half.write_text(text, encoding="utf-8")
        os.replace(half, out)
    finally:
        half.unlink(missing_ok=True)
