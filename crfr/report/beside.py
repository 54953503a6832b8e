"""The paper's tables 1 and 2 with our numbers beside them and the difference in points."""

from crfr.report import paper
from crfr.report.models import FOREIGN, Model, Report
from crfr.report.rows import Row
from crfr.report.tables import MISSING, Cell, Table, fewer, lines, named, percent, spread
from crfr.report.training import epoch_seconds

SINGLE = {"112 px": 112, "5 px": 5}  # the protocols of table 2 that are one resolution
SPECIALISED = (64, 32, 16)  # px, the resolutions of table 1


def lfw(report: Report) -> str | None:
    """The report's name of the paper's benchmark, whatever its case; None without it."""
    return next((b for b in report.benchmarks if b.lower() == paper.BENCHMARK), None)


def _ours(model: Model, benchmark: str, protocol: str) -> Row | None:
    if protocol in SINGLE:
        return model.cells.get((benchmark, "CR", SINGLE[protocol]))
    return model.protocol(benchmark, protocol)


def _accuracy(model: Model, row: Row | None, *small: str) -> Cell:
    """An accuracy in %, with its spread over seeds and other small print."""
    if row is None:
        return (MISSING, *small[:1])
    below = lines(spread(row, "accuracy", percent), *small, fewer(model, row))
    return (percent(row.accuracy), below)


def _difference(row: Row | None, theirs: float | None) -> Cell:
    if row is None or theirs is None:
        return (MISSING,)
    return (f"{100 * row.accuracy - theirs:+.2f}",)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    return f"{seconds / 3600:.2g} h" if seconds >= 3600 else (
        f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
    )  # fmt: skip


def _times(report: Report) -> dict[str, Cell]:
    """The training time an epoch of each model, and relative to the baseline's."""
    seconds = {model.label: epoch_seconds(model) for model in report.models}
    base = seconds[report.reference.label] if report.reference.method == "baseline" else None
    return {
        label: (_time(found), f"{found / base:.2g} × baseline")
        if found and base
        else (_time(found),)
        for label, found in seconds.items()
    }


def table_2(report: Report) -> Table | None:
    """Table 2: for each model the paper's line of its method, ours, and the difference.

    Models of other methods stand beside the paper's baseline.  None without LFW.
    """
    benchmark = lfw(report)
    models = report.measured(benchmark) if benchmark else []
    if benchmark is None or not models:
        return None
    times, body, shown = _times(report), [], set()
    own = False
    for model in models:
        rows = {p: _ours(model, benchmark, p) for p in paper.PROTOCOLS}
        own |= any(row is not None and row.drawn in ("file", "seeded") for row in rows.values())
        method = "baseline" if model.method in FOREIGN else model.method
        theirs = paper.TABLE_2.get(method)
        if theirs and method not in shown:
            shown.add(method)
            printed = [theirs[p] for p in paper.PROTOCOLS]
            cells: list[Cell] = [(MISSING if v is None else f"{v:.2f}",) for v in printed]
            base = paper.TABLE_2["baseline"]["hours"] or 1.0
            hours = theirs["hours"] or 0.0
            time = (f"{hours:g} h", f"{hours / base:g} × baseline")
            body.append(((paper.display(method),), ("paper",), *cells, time))
        cells = [_accuracy(model, row) for row in rows.values()]
        body.append(((model.label,), ("ours", *named(model)[1:]), *cells, times[model.label]))
        if theirs:
            cells = [_difference(row, theirs[p]) for p, row in rows.items()]
            words = "ours − paper" if method == model.method else "ours − paper’s baseline"
            body.append(((model.label,), (words,), *cells, (MISSING,)))
    ranges = ", ".join(f"{name} {of}" for name, of in paper.PROTOCOLS.items() if of)
    note = f"CR accuracy on LFW in %, differences in points; {ranges}; ours an epoch is training "
    note += "alone, without verification"
    if any(model.runs for model in models):
        note += "; below, ± the standard deviation over seeds"
    if own:
        note += "; the resolutions of our protocols are drawn anew, not the published ones"
    heads = ("model", "whose", *paper.PROTOCOLS, "an epoch")
    return Table("paper-table-2", "Table 2: the paper’s and ours", note, heads, tuple(body))


def table_1(report: Report) -> Table | None:
    """Table 1: accuracy at 64, 32 and 16 px; None where no model was measured at any on LFW."""
    benchmark = lfw(report) or ""
    ours = [
        (model, [model.cells.get((benchmark, "CR", r)) for r in SPECIALISED])
        for model in report.measured(benchmark)
    ]
    ours = [(model, rows) for model, rows in ours if any(rows)]
    if not ours:
        return None
    body: list[tuple[Cell, ...]] = []
    printed: dict[str, dict[int, str]] = {}  # by name with r instead of the resolution
    for r, name, value in paper.TABLE_1:
        shown = paper.display(name).replace(f"-{r}", "-r")
        printed.setdefault(shown, {})[r] = f"{value:.2f}"
    for name, values in printed.items():
        body.append(((name,), ("paper",), *((values.get(r, MISSING),) for r in SPECIALISED)))
    theirs = {(r, name): value for r, name, value in paper.TABLE_1}
    for model, rows in ours:
        cells: list[Cell] = []
        for r, row in zip(SPECIALISED, rows, strict=True):
            value = theirs.get((r, model.method))
            small = f"{_difference(row, value)[0]} to the paper" if row and value else ""
            cells.append(_accuracy(model, row, small))
        body.append(((model.label,), ("ours", *named(model)[1:]), *cells))
    heads = ("model", "whose", *(f"{r} px" for r in SPECIALISED))
    note = (
        "CR accuracy on LFW in %. The paper’s BT-r and ST-r are another model at each resolution, "
        "trained for it; numbers in brackets are its references. Our models of the same kind have "
        "the difference in points below"
    )
    return Table("paper-table-1", "Table 1: the paper’s and ours", note, heads, tuple(body))
