"""Reading and checking sweep directories (docs/architecture.md, "A sweep directory").

What is wrong stops the report with an InputError of one line; nothing is dropped or guessed.
Missing side files and metrics are not wrong: the page leaves those parts out and says so.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from crfr.errors import InputError, unknown

SCHEMA = 2
AVERAGE = "average"  # the benchmark whose rows are means over benchmarks
PAIRED = ("CR", "CR_A", "CR_B", "ER")  # scenarios at a resolution
DRAWN = ("published", "file", "seeded")  # whose draw a protocol is, the authors' first
PROTOCOLS = ("low_res", "mid_res", "high_res", "all_res")  # scenarios of drawn resolutions
SCENARIOS = PAIRED + PROTOCOLS
FARS = ("0.1", "0.01", "0.001", "0.0001")
KEY = ("benchmark", "thresholds", "scenario", "resolution", "drawn")  # unique in a directory
TEXTS = ("model", "method", "degradation", "pixels", "precision", "model_fingerprint")
KINDS = dict.fromkeys(TEXTS, str) | {
    **{"step": int | None, "flip": bool, "benchmarks": dict, "calls": list},
    "training": dict | None,
}
CALL = {"command", "commit", "versions", "devices", "seconds"}
AGAIN = "sweep that model again with `crfr sweep`"


@dataclass(frozen=True)
class Row:
    """One line of rows.jsonl, or the mean of those of several seeds.

    Accuracies, TAR, EER and AUC are fractions, thresholds and distances cosine distances,
    resolutions px.  Figures that a mean over benchmarks need not have may be None in its rows.
    Of a mean over `seeds` trainings, `std` has the figures' sample standard deviations by name.
    """

    model: str
    step: int | None
    method: str
    benchmark: str
    average_of: list[str] | None
    degradation: str
    pixels: str
    precision: str
    flip: bool
    thresholds: str
    scenario: str
    resolution: int | None
    drawn: str | None
    source: str | None
    draws: int
    draws_std: float
    accuracy: float
    accuracy_std: float
    accuracy_low: float | None
    accuracy_high: float | None
    threshold: float | None
    positive_distance: float | None
    negative_distance: float | None
    tar: dict[str, float | None]
    tar_reason: str | None
    eer: float | None
    auc: float | None
    pairs: int
    seeds: int = 1
    std: dict[str, float] | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep directory; `about` is sweep.json, `metrics` is empty where there are none."""

    path: Path
    rows: tuple[Row, ...]
    about: dict[str, Any]
    metrics: tuple[dict, ...]

    @property
    def starts(self) -> list[dict]:
        """The objects of the training's run.json, one a start; empty where none is on record."""
        run = (self.about["training"] or {}).get("run")
        return [start for start in run if isinstance(start, dict)] if isinstance(run, list) else []


def is_kind(value: object, kind: Any) -> bool:
    """Whether a JSON value is of a type as annotations write it; a bool is no int to us."""
    if origin := get_origin(kind):
        if origin is list:
            return type(value) is list and all(is_kind(v, get_args(kind)[0]) for v in value)
        if origin is dict:
            return type(value) is dict and all(
                is_kind(v, get_args(kind)[1]) for v in value.values()
            )
        return any(is_kind(value, part) for part in get_args(kind))  # a union
    return type(value) is kind


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


def read_object(path: Path, schema: int, kinds: dict[str, Any], again: str) -> dict[str, Any]:
    """A JSON object from a file, with its schema and the kinds of its values checked."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}): {again}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: not a JSON object: {again}")
    check_record(record, str(path), schema, kinds, again)
    return record


def check_record(
    record: dict, where: str, schema: int, kinds: dict[str, Any], again: str = AGAIN
) -> None:
    """InputError for a record of another schema, without a key, or with a value of another kind."""
    if record.get("schema") != schema:
        raise InputError(
            f"{where}: schema {record.get('schema')!r}, but this crfr reads {schema}: {again}"
        )
    if missing := [key for key in kinds if key not in record]:
        raise InputError(f"{where}: no {', '.join(missing)}: {again}")
    for name, kind in kinds.items():
        value = record[name]
        if not is_kind(value, kind):
            raise InputError(
                f"{where}: {name} is {value!r}, not {getattr(kind, '__name__', kind)}: {again}"
            )
        for number in value.values() if isinstance(value, dict) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{where}: {name} is {value}, not a finite number: {again}")


def _row(record: dict, where: str) -> Row:
    kinds = {field.name: field.type for field in fields(Row) if field.default is MISSING}
    for name, kind in kinds.items():
        if float in (kind, *get_args(kind)) and type(record.get(name)) is int:
            record[name] = float(record[name])  # JSON writers may write 1.0 as 1
    if isinstance(record.get("tar"), dict):
        record["tar"] = {f: float(v) if type(v) is int else v for f, v in record["tar"].items()}
    check_record(record, where, SCHEMA, kinds)
    row = Row(**{name: record[name] for name in kinds})
    if row.scenario not in SCENARIOS:
        raise InputError(f"{where}: {unknown('scenario', row.scenario, SCENARIOS)}")
    fractions = (row.accuracy, row.accuracy_std, row.accuracy_low, row.accuracy_high, row.eer)
    for value in (*fractions, row.auc, row.draws_std, *row.tar.values()):
        if value is not None and not 0 <= value <= 1:
            raise InputError(
                f"{where}: {value} among accuracy, TAR, EER, AUC, no fraction: {AGAIN}"
            )
    if (row.average_of is not None) != (row.benchmark == AVERAGE):
        raise InputError(
            f"{where}: benchmark {row.benchmark!r} with average_of {row.average_of}: {AGAIN}"
        )
    optional = ("accuracy_low", "accuracy_high", "threshold", "eer", "auc")
    for name in (*optional, "positive_distance", "negative_distance"):
        if row.benchmark != AVERAGE and getattr(row, name) is None:
            raise InputError(f"{where}: {name} is None: {AGAIN}")
    if (row.resolution is None) != (row.scenario in PROTOCOLS):
        raise InputError(f"{where}: {row.scenario} with resolution {row.resolution}: {AGAIN}")
    if (row.drawn is None) != (row.scenario in PAIRED) or row.drawn not in (None, *DRAWN):
        raise InputError(f"{where}: {row.scenario} with drawn {row.drawn!r}: {AGAIN}")
    sized = row.resolution is None or 1 <= row.resolution <= 112
    if not sized or row.pairs < 1 or row.draws < 1:
        numbers = f"resolution {row.resolution}, {row.pairs} pairs, {row.draws} draws"
        raise InputError(f"{where}: {numbers}: {AGAIN}")
    if set(row.tar) != set(FARS):
        raise InputError(f"{where}: tar at {sorted(row.tar)}, not at {sorted(FARS)}: {AGAIN}")
    return row


def _rows(path: Path) -> tuple[Row, ...]:
    rows: dict[tuple, tuple[Row, str]] = {}
    for where, record in _records(path):
        row = _row(record, where)
        key = tuple(getattr(row, name) for name in KEY)
        if key in rows:
            raise InputError(
                f"{where}: the same {', '.join(KEY)} as in line {rows[key][1].split()[-1]}: "
                "delete one of the two"
            )
        rows[key] = row, where
    if not rows:
        raise InputError(f"{path} is empty: {AGAIN}")
    return tuple(row for row, _ in rows.values())


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
            remedy = "give --sweep what `crfr sweep` wrote"
            if (path / "sweep.json").is_file():
                remedy = "let `crfr sweep` end; of a matrix alone, sweep --scenarios=CR,ER too"
            raise InputError(f"{path / name} is missing ({state}): {remedy}")
    rows = _rows(path / "rows.jsonl")
    about = read_object(path / "sweep.json", SCHEMA, KINDS, AGAIN)
    for call in about["calls"] or [None]:
        if not isinstance(call, dict) or not call.keys() >= CALL:
            raise InputError(f"{path / 'sweep.json'}: calls hold {call!r}: {AGAIN}")
    shared = ("model", "step", "method", "degradation", "pixels", "precision", "flip")
    for name in shared:
        values = {repr(getattr(row, name)) for row in rows} | {repr(about[name])}
        if len(values) > 1:
            listed = ", ".join(sorted(values))
            raise InputError(f"{path}: more than one {name}: {listed}: one directory for each")
    for row in rows:
        for name in row.average_of or [row.benchmark]:
            known = about["benchmarks"].get(name)
            if not isinstance(known, dict) or not isinstance(known.get("fingerprint"), str):
                raise InputError(f"{path / 'sweep.json'}: no fingerprint of {name!r}: {AGAIN}")
    return Sweep(path, rows, about, _metrics(path / "metrics.jsonl"))
