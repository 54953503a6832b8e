"""Reading and checking sweep directories (docs/architecture.md, "A sweep directory").

What is wrong stops the report with an InputError of one line; nothing is dropped or guessed.
Missing samples and metrics are not wrong: the page leaves those parts out and says so.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

from crfr.errors import InputError, unknown

SCHEMA = 1
SCENARIOS = ("CR", "CR_A", "CR_B", "ER")
ABOUT = (
    *("model", "step", "method", "benchmark", "model_fingerprint", "benchmark_fingerprint"),
    *("calls", "images", "pairs", "training"),
)
CALL = {"command", "commit", "versions", "devices", "seconds"}
AGAIN = "sweep that model again with `crfr sweep`"


@dataclass(frozen=True)
class Row:
    """One line of rows.jsonl; accuracies are fractions, the rest of the floats cosine distances."""

    model: str
    step: int | None
    method: str
    benchmark: str
    degradation: str
    precision: str
    thresholds: str
    flip: bool
    scenario: str
    resolution: int
    accuracy: float
    accuracy_std: float
    threshold: float
    positive_distance: float
    negative_distance: float
    pairs: int


@dataclass(frozen=True)
class Sweep:
    """A sweep directory; `about` is sweep.json, `samples` maps R to samples/R.png, falling in R.

    `metrics` and `samples` are empty where there are none.
    """

    path: Path
    rows: tuple[Row, ...]
    about: dict
    metrics: tuple[dict, ...]
    samples: dict[int, Path]

    @property
    def starts(self) -> list[dict]:
        """The objects of the training's run.json, one a start; empty where none is on record."""
        run = (self.about["training"] or {}).get("run")
        return [start for start in run if isinstance(start, dict)] if isinstance(run, list) else []


def _records(path: Path) -> Iterator[tuple[str, dict]]:
    """("FILE line N", JSON object) for each line that is not blank."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason}): {AGAIN}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise InputError(f"{where}: not JSON ({error}): delete it and {AGAIN}") from error
            if not isinstance(record, dict):
                raise InputError(f"{where}: not a JSON object: delete it and {AGAIN}")
            yield where, record


def _check_schema(record: dict, where: str, keys: tuple[str, ...]) -> None:
    if record.get("schema") != SCHEMA:
        raise InputError(
            f"{where}: schema {record.get('schema')!r}, but this crfr reads {SCHEMA}: {AGAIN}"
        )
    if missing := [key for key in keys if key not in record]:
        raise InputError(f"{where}: no {', '.join(missing)}: {AGAIN}")


def _row(record: dict, where: str) -> Row:
    _check_schema(record, where, tuple(field.name for field in fields(Row)))
    values = {}
    for field in fields(Row):
        value = record[field.name]
        if field.type is float and type(value) is int:
            value = float(value)  # JSON writers may write 1.0 as 1
        # exact types: a bool is an int to Python, not to us
        if type(value) not in (get_args(field.type) or (field.type,)):
            kind = getattr(field.type, "__name__", field.type)
            raise InputError(f"{where}: {field.name} is {value!r}, not {kind}: {AGAIN}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{where}: {field.name} is {value}, not a finite number: {AGAIN}")
        values[field.name] = value
    row = Row(**values)
    if row.scenario not in SCENARIOS:
        raise InputError(f"{where}: {unknown('scenario', row.scenario, SCENARIOS)}")
    if not (0 <= row.accuracy <= 1 and 0 <= row.accuracy_std <= 1):
        raise InputError(
            f"{where}: accuracy {row.accuracy} with std {row.accuracy_std}, not fractions: {AGAIN}"
        )
    if row.resolution < 1 or row.pairs < 1:
        raise InputError(f"{where}: resolution {row.resolution}, {row.pairs} pairs: {AGAIN}")
    return row


def _metrics(path: Path) -> tuple[dict, ...]:
    """The lines of metrics.jsonl by rising step, () where there is no such file.

    A training that goes on from a checkpoint writes the steps after it a second time: the later
    line is the one that led to the model.
    """
    latest = {}
    for where, record in _records(path) if path.exists() else ():
        step = record.get("step")
        if type(step) is not int:
            raise InputError(f"{where}: step is {step!r}, not an integer: delete the line")
        latest[step, str(record.get("benchmark"))] = record
    return tuple(sorted(latest.values(), key=lambda record: record["step"]))


def read_sweep(path: Path) -> Sweep:
    """One sweep directory, read and checked.  Raises InputError, naming the file and the remedy."""
    for name in ("rows.jsonl", "sweep.json"):
        if not (path / name).is_file():
            state = "unfinished" if path.is_dir() else "no such directory"
            raise InputError(
                f"{path / name} is missing ({state}): give --sweep what `crfr sweep` wrote"
            )
    rows = tuple(_row(record, where) for where, record in _records(path / "rows.jsonl"))
    if not rows:
        raise InputError(f"{path / 'rows.jsonl'} is empty: {AGAIN}")
    try:
        about = json.loads((path / "sweep.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path / 'sweep.json'}: not JSON ({error}): {AGAIN}") from error
    if not isinstance(about, dict):
        raise InputError(f"{path / 'sweep.json'}: not a JSON object: {AGAIN}")
    _check_schema(about, str(path / "sweep.json"), ABOUT)
    kinds = {"training": dict | None, "calls": list}
    kinds |= dict.fromkeys(("model_fingerprint", "benchmark_fingerprint"), str)
    for name, kind in kinds.items():
        if not isinstance(about[name], kind):
            raise InputError(f"{path / 'sweep.json'}: {name} is {about[name]!r}: {AGAIN}")
    for call in about["calls"] or [None]:
        if not isinstance(call, dict) or not call.keys() >= CALL:
            raise InputError(f"{path / 'sweep.json'}: calls hold {call!r}: {AGAIN}")
    names = {str((row.model, row.step, row.method)) for row in rows}
    names.add(str((about["model"], about["step"], about["method"])))
    if len(names) > 1:
        listed = ", ".join(sorted(names))
        raise InputError(
            f"{path}: more than one (model, step, method): {listed}: one directory a model"
        )
    samples = {int(f.stem): f for f in path.glob("samples/*.png") if f.stem.isdecimal()}
    samples = dict(sorted(samples.items(), reverse=True))
    return Sweep(path, rows, about, _metrics(path / "metrics.jsonl"), samples)
