"""Which sweeps may stand in one report: what would not compare stops it (InputError)."""

from crfr.errors import InputError
from crfr.report.rows import AVERAGE, Sweep

CONDITIONS = ("degradation", "flip")  # alike in all rows of a report


def check_alike(sweeps: list[Sweep]) -> None:
    """Accuracies measured in different ways may not stand in one table."""
    where: dict[tuple, dict] = {}

    def note(what: tuple, value: object, sweep: Sweep) -> None:
        where.setdefault(what, {}).setdefault(value, {})[sweep.path] = None

    for sweep in sweeps:
        model = f"{sweep.rows[0].model!r}, step {sweep.rows[0].step}"
        note(("fingerprint of model", model), sweep.about["model_fingerprint"], sweep)
        for name, benchmark in sweep.about["benchmarks"].items():
            note(("fingerprint of benchmark", repr(name)), benchmark["fingerprint"], sweep)
        for row in sweep.rows:
            for name in CONDITIONS:
                note((name,), getattr(row, name), sweep)
            note(("number of pairs", f"of {row.benchmark!r}, {row.scenario}"), row.pairs, sweep)
            if row.drawn is not None and row.average_of is None:
                draw = f"of {row.benchmark!r}, {row.scenario}, {row.drawn}"
                note(("resolutions", draw), row.source, sweep)
            if row.average_of is not None:
                note(("benchmarks", f"of {AVERAGE!r}"), ", ".join(sorted(row.average_of)), sweep)
    for what, values in where.items():
        if len(values) > 1:
            found = "; ".join(f"{v!r} in {', '.join(map(str, dirs))}" for v, dirs in values.items())
            raise InputError(f"sweeps differ in {' '.join(what)}: {found}: report them apart")


def chosen_mode(sweeps: list[Sweep], thresholds: str | None) -> str:
    """The mode of thresholds that is reported: the one asked for, "exact", or the only one."""
    modes = sorted({row.thresholds for sweep in sweeps for row in sweep.rows})
    mode = thresholds or ("exact" if "exact" in modes else modes[0])
    if not thresholds and mode != "exact" and len(modes) > 1:
        raise InputError(f"rows of thresholds {', '.join(modes)}: choose with --thresholds=MODE")
    for sweep in sweeps:
        if mode not in {row.thresholds for row in sweep.rows}:
            there = ", ".join(sorted({row.thresholds for row in sweep.rows}))
            raise InputError(
                f"{sweep.path}: no rows of thresholds {mode!r}, only of {there}: "
                f"give --thresholds, or sweep that model with --thresholds={mode}"
            )
    return mode
