"""The models of a report: what several sweep directories say about each, and under which name.

Whatever would put numbers that are not comparable into one table stops the report (InputError).
"""

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crfr.errors import InputError
from crfr.report import paper
from crfr.report.rows import Row, Sweep, read_sweep

CONDITIONS = ("degradation", "precision", "thresholds", "flip")  # alike in all rows of a report


@dataclass(frozen=True)
class Model:
    """A model at a step, with all its sweeps.

    `cells` maps (benchmark, scenario, resolution in px) to a row.
    """

    label: str
    method: str
    step: int | None
    sweeps: tuple[Sweep, ...]
    cells: dict[tuple[str, str, int], Row]

    def curve(self, benchmark: str, scenario: str) -> dict[int, Row]:
        """Resolution in px -> row, by rising resolution."""
        found = {r: row for (b, s, r), row in self.cells.items() if (b, s) == (benchmark, scenario)}
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Report:
    """All that a page shows; models in the paper's order, benchmarks in order of appearance."""

    models: tuple[Model, ...]
    sweeps: tuple[Sweep, ...]
    benchmarks: tuple[str, ...]

    def measured(self, benchmark: str, scenario: str = "CR") -> list[Model]:
        return [m for m in self.models if m.curve(benchmark, scenario)]

    def resolutions(self, benchmark: str) -> list[int]:
        """Every resolution in px at which any model was measured, rising."""
        return sorted({r for m in self.models for (b, _, r) in m.cells if b == benchmark})


def _check_alike(sweeps: list[Sweep]) -> None:
    """Accuracies measured in different ways may not stand in one table."""
    where: dict[tuple, dict] = {}
    for sweep in sweeps:
        row = sweep.rows[0]
        for what, name in (
            ("model", f"{row.model!r}, step {row.step}"),
            ("benchmark", f"{row.benchmark!r}"),
        ):
            content = where.setdefault((f"fingerprint of {what}", name), {})
            content.setdefault(sweep.about[f"{what}_fingerprint"], {})[sweep.path] = None
        for row in sweep.rows:
            for name in CONDITIONS:
                where.setdefault((name,), {}).setdefault(getattr(row, name), {})[sweep.path] = None
            same = ("number of pairs", f"of {row.benchmark!r}, {row.scenario}")
            where.setdefault(same, {}).setdefault(row.pairs, {})[sweep.path] = None
    for what, values in where.items():
        if len(values) > 1:
            found = "; ".join(f"{v!r} in {', '.join(map(str, dirs))}" for v, dirs in values.items())
            raise InputError(f"sweeps differ in {' '.join(what)}: {found}: report them apart")


def _labels(keys: list[tuple[str, int | None, str]]) -> list[str]:
    """The method as the paper prints it; where models share it, what tells them apart as well."""
    labels = {}
    for method in {method for _, _, method in keys}:
        alike = [key for key in keys if key[2] == method]
        steps = [f" (step {step})" for _, step, _ in alike]
        names = [f" ({PurePosixPath(model).name})" for model, _, _ in alike]
        both = [f" ({PurePosixPath(model).name}, step {step})" for model, step, _ in alike]
        paths = [f" ({model}, step {step})" for model, step, _ in alike]
        if len({model for model, _, _ in alike}) > 1:
            steps = names  # different trainings are better told apart by name than by length
        choices = ([""] * len(alike), steps, names, both, paths)
        details = next(choice for choice in choices if len(set(choice)) == len(alike))
        for key, detail in zip(alike, details, strict=True):
            labels[key] = paper.display(method) + detail
    return [labels[key] for key in keys]


def _cells(sweeps: list[Sweep]) -> dict[tuple[str, str, int], Row]:
    """A model's rows by (benchmark, scenario, resolution); equal repeats count once."""
    cells: dict[tuple[str, str, int], Row] = {}
    for sweep in sweeps:
        for row in sweep.rows:
            cell = (row.benchmark, row.scenario, row.resolution)
            if cells.setdefault(cell, row) != row:
                raise InputError(
                    f"{sweep.path}: {row.model} step {row.step} on {row.benchmark}, "
                    f"{row.scenario} at {row.resolution} px is there twice with different values: "
                    "keep one of the two"
                )
    return cells


def read_report(paths: list[Path]) -> Report:
    """The sweep directories, read and checked.  InputError names the file and the remedy."""
    if not paths:
        raise InputError("no sweep directory: give --sweep=DIR, or several as DIR,DIR")
    sweeps = [read_sweep(path) for path in dict.fromkeys(paths)]
    _check_alike(sweeps)
    groups: dict[tuple[str, int | None, str], list[Sweep]] = {}
    for sweep in sweeps:
        row = sweep.rows[0]
        groups.setdefault((row.model, row.step, row.method), []).append(sweep)
    keys = sorted(groups, key=lambda key: (paper.order(key[2]), key[1] or 0))
    models = tuple(
        Model(label, key[2], key[1], tuple(groups[key]), _cells(groups[key]))
        for key, label in zip(keys, _labels(keys), strict=True)
    )
    benchmarks = tuple(dict.fromkeys(row.benchmark for sweep in sweeps for row in sweep.rows))
    return Report(models, tuple(sweeps), benchmarks)


def chosen(resolutions: list[int], most: int) -> list[int]:
    """At most `most` of the rising resolutions, about even in octaves, both ends among them.

    >>> chosen(list(range(5, 113)), 10)
    [5, 7, 10, 14, 20, 28, 40, 56, 79, 112]
    """
    if len(resolutions) <= most:
        return resolutions
    low, high = math.log2(resolutions[0]), math.log2(resolutions[-1])
    targets = [low + (high - low) * i / (most - 1) for i in range(most)]
    return sorted({min(resolutions, key=lambda r: abs(math.log2(r) - t)) for t in targets})
