"""The models of a report: what several sweep directories say about each, and under which name.

Whatever would put numbers that are not comparable into one table stops the report (InputError).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from crfr.errors import InputError
from crfr.evaluate.verification import Verdict
from crfr.report import paper
from crfr.report.alike import check_alike, chosen_mode
from crfr.report.analysis import Analysis, read_analysis
from crfr.report.rows import AVERAGE, DRAWN, PAIRED, PROTOCOLS, Row, Sweep, read_sweep
from crfr.report.seeds import Group, find_groups, key_of, mean_row, seed_of
from crfr.report.sides import Matrix, Pairs, Samples, read_matrix, read_pairs, read_samples

FOREIGN = ("onnx", "stablehlo", "callable")  # methods of models of which no training is known


@dataclass(frozen=True)
class Model:
    """A model at a step with all its sweeps, or several that differ only in their seed.

    `cells` maps (benchmark, scenario, resolution in px) to a row, `drawn` (benchmark, protocol,
    how its resolutions were drawn).  `pairs` and `matrices` are by benchmark.  With `runs`, one
    Model a seed by rising seed, the rows are means over them, and `pairs` and `matrices` are empty:
    those are a single training's.  `verdicts` keeps what `differences` has judged once.
    """

    label: str
    method: str
    step: int | None
    sweeps: tuple[Sweep, ...]
    cells: dict[tuple[str, str, int], Row]
    drawn: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    pairs: dict[str, Pairs] = field(default_factory=dict)
    matrices: dict[str, Matrix] = field(default_factory=dict)
    seed: int | None = None
    runs: tuple["Model", ...] = ()
    verdicts: dict[tuple[str, str, int], Verdict | None] = field(default_factory=dict)

    @property
    def singles(self) -> tuple["Model", ...]:
        """The trainings behind the rows, one Model each."""
        return self.runs or (self,)

    @property
    def one(self) -> "Model":
        """The training whose distributions, matrices and samples are shown: that of the lowest
        seed, which its label names where there are several."""
        return self.singles[0]

    @property
    def legend(self) -> str:
        """The label, and of how many seeds the numbers are means."""
        return f"{self.label}, {len(self.runs)} seeds" if self.runs else self.label

    @cached_property
    def _curves(self) -> dict[tuple[str, str], dict[int, Row]]:
        curves: dict[tuple[str, str], dict[int, Row]] = {}
        for (benchmark, scenario, r), row in sorted(self.cells.items()):
            curves.setdefault((benchmark, scenario), {})[r] = row
        return curves

    def curve(self, benchmark: str, scenario: str) -> dict[int, Row]:
        """Resolution in px -> row, by rising resolution."""
        return self._curves.get((benchmark, scenario), {})

    def protocol(self, benchmark: str, protocol: str) -> Row | None:
        """The row of a protocol: as published where that was measured, else of another draw."""
        found = (self.drawn.get((benchmark, protocol, how)) for how in DRAWN)
        return next(filter(None, found), None)


@dataclass(frozen=True)
class Report:
    """All that a page shows; models in the paper's order, benchmarks in order of appearance.

    `average` has the names of the benchmarks whose mean is benchmark "average", if there is one.
    """

    models: tuple[Model, ...]
    sweeps: tuple[Sweep, ...]
    benchmarks: tuple[str, ...]
    average: tuple[str, ...]
    thresholds: str
    samples: dict[str, Samples]
    analysis: Analysis | None

    @property
    def singles(self) -> list[Model]:
        """Every training on its own."""
        return [run for model in self.models for run in model.singles]

    def measured(self, benchmark: str, scenario: str = "CR") -> list[Model]:
        return [m for m in self.models if m.curve(benchmark, scenario)]

    def resolutions(self, benchmark: str) -> list[int]:
        """Every resolution in px at which any model was measured, rising."""
        curves = [m.curve(benchmark, scenario) for m in self.models for scenario in PAIRED]
        return sorted({r for curve in curves for r in curve})

    @property
    def places(self) -> tuple[str, ...]:
        """The benchmarks, their average first where there is one."""
        return ((AVERAGE,) if self.average else ()) + self.benchmarks

    @property
    def reference(self) -> Model:
        """The model that others are compared with: the first baseline, else the first model."""
        return next((m for m in self.models if m.method == "baseline"), self.models[0])


def _name(model: str, method: str) -> str:
    """The paper's name of a method; the file's or the function's of a model of somebody else.

    >>> _name("models/sface.onnx", "onnx"), _name("my.module:embed", "callable")
    ('sface', 'embed')
    >>> _name("bt-7.stablehlo", "stablehlo")
    'bt-7'
    >>> _name("runs/a", "bt-7")
    'BT-7'
    """
    if method in ("onnx", "stablehlo"):
        return PurePosixPath(re.sub(r"\.(onnx(:.*)?|stablehlo)$", "", model)).name or model
    if method == "callable":
        return model.rpartition(":")[2] or model
    return paper.display(method)


def _labels(keys: list[tuple[str, int | None, str]]) -> list[str]:
    """The method as the paper prints it; where models share it, what tells them apart as well."""
    labels = {}
    for shared in {_name(model, method) for model, _, method in keys}:
        alike = [key for key in keys if _name(key[0], key[2]) == shared]
        steps = [f" (step {step})" for _, step, _ in alike]
        names = [f" ({PurePosixPath(model).name})" for model, _, _ in alike]
        both = [f" ({PurePosixPath(model).name}, step {step})" for model, step, _ in alike]
        paths = [f" ({model}, step {step})" for model, step, _ in alike]
        whole = [f" ({model}, step {step}, {method})" for model, step, method in alike]
        if len({model for model, _, _ in alike}) > 1:
            steps = names  # different trainings are better told apart by name than by length
        choices = ([""] * len(alike), steps, names, both, paths, whole)
        details = next(choice for choice in choices if len(set(choice)) == len(alike))
        for key, detail in zip(alike, details, strict=True):
            labels[key] = shared + detail
    return [labels[key] for key in keys]


def _by_place(rows: Iterable[tuple[tuple, Row, Path]]) -> dict[tuple, Row]:
    """Rows by their place; equal repeats in another directory of the model count once."""
    found: dict[tuple, Row] = {}
    for place, row, path in rows:
        if found.setdefault(place, row) != row:
            raise InputError(
                f"{path}: {row.model} step {row.step} on {row.benchmark}, {row.scenario} at "
                f"{place[2]} is there twice with different values: keep one of the two"
            )
    return found


def _run(label: str, sweeps: list[Sweep], benchmarks: tuple[str, ...], mode: str) -> Model:
    rows = [(row, s.path) for s in sweeps for row in s.rows if row.thresholds == mode]
    cells = [
        ((row.benchmark, row.scenario, row.resolution), row, path)
        for row, path in rows
        if row.scenario in PAIRED
    ]
    drawn = [
        ((row.benchmark, row.scenario, row.drawn), row, path)
        for row, path in rows
        if row.scenario in PROTOCOLS
    ]
    pairs, matrices = {}, {}
    for sweep in sweeps:
        for name in benchmarks:
            if name in sweep.about["benchmarks"]:
                # of several directories the first that has them
                pairs[name] = pairs.get(name) or read_pairs(sweep, name)
                matrices[name] = matrices.get(name) or read_matrix(sweep, name, mode)
    return Model(
        label,
        sweeps[0].rows[0].method,
        sweeps[0].rows[0].step,
        tuple(sweeps),
        _by_place(cells),
        _by_place(drawn),
        {name: found for name, found in pairs.items() if found is not None},
        {name: found for name, found in matrices.items() if found is not None},
        seed_of(sweeps[0]),
    )


def _means(rows: list[dict[tuple, Row]]) -> dict[tuple, Row]:
    """The means of the rows of each place, over the seeds that have it."""
    places = dict.fromkeys(place for each in rows for place in each)
    return {place: mean_row([each[place] for each in rows if place in each]) for place in places}


def _model(label: str, group: Group, benchmarks: tuple[str, ...], mode: str) -> Model:
    """The model of the sweeps of one training, or of several that differ only in their seed."""
    if len(group) == 1:
        return _run(label, group[0], benchmarks, mode)
    name, _, method = key_of(group)
    if label != _name(name, method):  # what tells recipes apart is the name of the first training
        label = f"{label[:-1]} and {len(group) - 1} more)"
    runs = tuple(_run(f"{label}, seed {seed_of(s[0])}", s, benchmarks, mode) for s in group)
    sweeps = tuple(sweep for run in runs for sweep in run.sweeps)
    cells, drawn = _means([run.cells for run in runs]), _means([run.drawn for run in runs])
    return Model(label, runs[0].method, runs[0].step, sweeps, cells, drawn, runs=runs)


def read_report(
    paths: list[Path], dataset: Path | None = None, thresholds: str | None = None
) -> Report:
    """The directories, read and checked.  InputError names the file and the remedy."""
    if not paths:
        raise InputError("no sweep directory: give --sweep=DIR, or several as DIR,DIR")
    sweeps = [read_sweep(path) for path in dict.fromkeys(paths)]
    check_alike(sweeps)
    mode = chosen_mode(sweeps, thresholds)
    rows = [row for sweep in sweeps for row in sweep.rows if row.thresholds == mode]
    benchmarks = tuple(dict.fromkeys(r.benchmark for r in rows if r.benchmark != AVERAGE))
    average = next((tuple(row.average_of) for row in rows if row.average_of), ())
    groups = find_groups(sweeps)
    labels = _labels([key_of(group) for group in groups])
    models = tuple(
        _model(label, group, benchmarks, mode) for label, group in zip(labels, groups, strict=True)
    )
    samples = {}
    for name in benchmarks:
        runs = [run for model in models for run in model.singles]
        same = [run.pairs[name].same for run in runs if name in run.pairs]
        if any(not np.array_equal(same[0], other) for other in same[1:]):
            raise InputError(f"pairs of {name!r} differ between sweeps: sweep those models again")
        found = [read_samples(s, name) for s in sweeps if name in s.about["benchmarks"]]
        if found := next(filter(None, found), None):
            samples[name] = found
    fingerprints = {n: b["fingerprint"] for s in sweeps for n, b in s.about["benchmarks"].items()}
    analysis = read_analysis(dataset, fingerprints, rows[0].degradation) if dataset else None
    return Report(models, tuple(sweeps), benchmarks, average, mode, samples, analysis)
