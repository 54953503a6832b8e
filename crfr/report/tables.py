"""Tables as data: plain text cells, which HTML, CSV and Markdown are made of (docs: `formats`)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crfr.report.drawing import stem
from crfr.report.models import Model, Report, read_report
from crfr.report.resolutions import chosen, selected
from crfr.report.rows import AVERAGE, DRAWN, FARS, PROTOCOLS, Row

MISSING = "–"  # not measured
# A table on the page has at most eight resolutions, these if it can; its CSV and Markdown have all.
COLUMNS = (5, 7, 10, 14, 20, 28, 56, 112)  # px
TERMINAL = 10  # most columns of the summary: it has to fit 80 characters
Cell = tuple[str, ...]  # text; perhaps small print; perhaps "best"


@dataclass(frozen=True)
class Table:
    """A table; `small` says what the small print of its cells is.

    `page` has the columns that the page shows, by their place; None is all of them.
    """

    stem: str
    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    small: str = ""
    page: tuple[int, ...] | None = None


def percent(fraction: float | None) -> str:
    return MISSING if fraction is None else f"{100 * fraction:.2f}"


def distance(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def named(model: Model) -> Cell:
    """The model's name; below it the number of seeds that its numbers are means of."""
    return (model.label, f"{len(model.runs)} seeds") if model.runs else (model.label,)


def spread(row: Row, name: str, form: Callable[[float | None], str]) -> str:
    """± a figure's standard deviation over seeds; empty for a row of one seed."""
    return f"± {form(row.std[name])}" if row.std and name in row.std else ""


def fewer(model: Model, row: Row) -> str:
    """How many seeds a row is of, where that is not all of the model's."""
    if row.seeds == len(model.singles):
        return ""
    return f"{row.seeds} seed{'s' * (row.seeds > 1)}"


def lines(*parts: str) -> str:
    """Small print of those parts that there are, each on a line of its own."""
    return "; ".join(filter(None, parts))


def columns(resolutions: list[int]) -> list[int]:
    """The resolutions that a table on the page has of all that were measured, rising."""
    everyone = set(COLUMNS) <= set(resolutions)
    return list(COLUMNS) if everyone else chosen(resolutions, len(COLUMNS))


def interval(low: float | None, high: float | None) -> str:
    """An interval of fractions, in %."""
    return "" if low is None or high is None else f"{percent(low)}–{percent(high)}"


def _grid(
    report: Report,
    place: str,
    scenario: str,
    words: tuple[str, str, str, str],
    cell: Callable[[Row], Cell],
) -> Table | None:
    """Models x resolutions of one scenario; None where no model has rows.

    `words` are the table's file, title, note and the name of its small print.
    """
    models = report.measured(place, scenario)
    if not models:
        return None
    resolutions = sorted({r for model in models for r in model.curve(place, scenario)})
    body = []
    for model in models:
        rows = model.curve(place, scenario)
        cells: list[Cell] = []
        for r in resolutions:
            if r not in rows:
                cells.append((MISSING,))
                continue
            text, small, *mark = cell(rows[r])
            cells.append((text, lines(small, fewer(model, rows[r])), *mark))
        body.append((named(model), *cells))
    page = (0, *(1 + resolutions.index(r) for r in columns(resolutions)))
    heads = ("model", *(f"{r} px" for r in resolutions))
    file, title, note, small = words
    name = stem(file, scenario, place)
    return Table(name, title, note, heads, tuple(body), small, page)


def accuracy_table(report: Report, place: str, scenario: str) -> Table | None:
    """Accuracy in %, its 95 % interval or its spread over seeds; the best of several is marked."""
    rivals = len(report.measured(place, scenario)) > 1
    best: dict[int, float] = {}
    for model in report.models:
        for r, row in model.curve(place, scenario).items():
            # equal as printed is equal to the reader
            best[r] = max(best.get(r, 0.0), float(percent(row.accuracy)))

    def cell(row: Row) -> Cell:
        small = spread(row, "accuracy", percent) or interval(row.accuracy_low, row.accuracy_high)
        text = percent(row.accuracy)
        first = rivals and float(text) == best[row.resolution or 0]
        return (text, small, "best") if first else (text, small)

    title = f"{scenario} accuracy on {place}, %"
    return _grid(report, place, scenario, ("accuracy", title, "", below(report)), cell)


def below(report: Report) -> str:
    """What stands below accuracies."""
    over_seeds = (
        ", or ± standard deviation over seeds" if any(m.runs for m in report.models) else ""
    )
    return f"95 % interval{over_seeds}"


def distance_table(report: Report, benchmark: str, scenario: str) -> Table | None:
    """Threshold, and the mean distances of pairs of one person and of two people."""

    def cell(row: Row) -> Cell:
        kinds = ("positive_distance", "negative_distance")
        means = " | ".join(
            " ".join(filter(None, [distance(getattr(row, kind)), spread(row, kind, distance)]))
            for kind in kinds
        )
        return distance(row.threshold), lines(spread(row, "threshold", distance), means)

    title = f"{scenario} thresholds on {benchmark}"
    note = "cosine distances; below each, the mean distance of pairs of one person | of two people"
    return _grid(report, benchmark, scenario, ("thresholds", title, note, "means"), cell)


def merit_table(report: Report, benchmark: str, scenario: str) -> Table | None:
    """TAR at fixed FAR, EER and AUC at a few resolutions, with the reason of what is missing."""
    body: list[tuple[Cell, ...]] = []
    reasons: list[str] = []
    for model in report.measured(benchmark, scenario):
        rows, head = model.curve(benchmark, scenario), named(model)
        for r in selected(list(rows))[::-1]:
            row = rows[r]
            tar = [(percent(row.tar[far]), spread(row, f"tar {far}", percent)) for far in FARS]
            eer = percent(row.eer), spread(row, "eer", percent)
            auc = _area(row.auc), spread(row, "auc", _area)
            body.append((head, (f"{r} px", fewer(model, row)), *tar, eer, auc))
            head = (model.label,)  # the seeds once
            reasons += [row.tar_reason] if row.tar_reason else []
    if not body:
        return None
    rates = [f"TAR at FAR {100 * float(far):g} %" for far in FARS]
    note = "TAR and EER in %"
    if reasons:
        note += f". {MISSING}: {'; '.join(dict.fromkeys(reasons))}"
    title = f"{scenario} error rates on {benchmark}"
    name = stem("error-rates", scenario, benchmark)
    heads = ("model", "resolution", *rates, "EER", "AUC")
    return Table(name, title, note, heads, tuple(body), "± standard deviation over seeds")


def _area(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def protocol_table(report: Report, place: str) -> Table | None:
    """Accuracy on the four protocols of drawn resolutions, with the spread over draws."""
    protocols = {p: None for m in report.models for (b, p, _) in m.drawn if b == place}
    shown = [p for p in PROTOCOLS if p in protocols]
    body = []
    for model in report.models:
        for how in DRAWN:
            rows = [model.drawn.get((place, p, how)) for p in shown]
            if not any(rows):
                continue
            draws = max(row.draws for row in rows if row)
            cells: list[Cell] = []
            for row in rows:
                if row is None:
                    cells.append((MISSING,))
                    continue
                small = interval(row.accuracy_low, row.accuracy_high)
                over_seeds = spread(row, "accuracy", percent)
                small = f"{over_seeds} over seeds" if over_seeds else small
                over_draws = f"± {percent(row.draws_std)} over draws" if row.draws > 1 else ""
                cells.append((percent(row.accuracy), lines(small, over_draws, fewer(model, row))))
            sources = dict.fromkeys(row.source or "" for row in rows if row)
            words = {
                "published": "published",
                "file": "from files",
                "seeded": f"{' '.join(sources) or 'seeded'}, {draws} draws",
            }[how]
            body.append((named(model), (words,), *cells))
    if not body:
        return None
    title = f"Protocols on {place}, CR accuracy, %"
    heads = ("model", "resolutions drawn", *shown)
    note = (
        "The second image of each pair is reduced to a resolution drawn for it alone "
        "(section 6.3); ± is the standard deviation over draws"
    )
    note += ", or over seeds" if any(m.runs for m in report.models) else ""
    return Table(stem("protocols", place), title, note, heads, tuple(body), below(report))


def summary_table(sweeps: list[Path]) -> str:
    """CR accuracy in %, models x resolutions, as plain text for a terminal: one table a benchmark.

    Raises InputError as `write_report` does.
    """
    report = read_report(sweeps)
    parts = []
    for place in (*report.benchmarks, *((AVERAGE,) if report.average else ())):
        models: list[Model] = report.measured(place)
        if not models:
            continue
        everywhere = report.resolutions(place)
        resolutions = chosen(everywhere, TERMINAL)
        title = f"CR accuracy in % on {place}"
        if place == AVERAGE:
            title = f"CR accuracy in %, average of {', '.join(report.average)}"
        if len(resolutions) < len(everywhere):
            title += f" ({len(resolutions)} of {len(everywhere)} resolutions)"
        width = max([len(model.legend) for model in models] + [len("model")])
        text = [title, "model".ljust(width) + "".join(f"{f'{r} px':>7}" for r in resolutions)]
        for model in models:
            rows = model.curve(place, "CR")
            cells = [percent(rows[r].accuracy) if r in rows else MISSING for r in resolutions]
            text.append(model.legend.ljust(width) + "".join(f"{cell:>7}" for cell in cells))
        parts.append("\n".join(text))
    return "\n\n".join(parts)
