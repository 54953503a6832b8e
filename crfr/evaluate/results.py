"""What a sweep directory is of, and its rows (docs/architecture.md, "A sweep directory")."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError
from crfr.evaluate.arrays import matrix_file, read_draws, row_key
from crfr.evaluate.protocols import PROTOCOLS, SCENARIOS
from crfr.evaluate.scores import average_rows
from crfr.evaluate.verification import MODES

SCHEMA = 2
ROWS, SUMMARY, EMBEDDINGS = "rows.jsonl", "sweep.json", "embeddings"
AVERAGE = "average"  # the name of the mean over benchmarks
KEY = ("benchmark", "thresholds", "scenario", "resolution", "drawn")  # what tells rows apart


def embeddings_folder(out: Path, benchmark: str) -> Path:
    return out / EMBEDDINGS / environment.file_name(benchmark)


def samples_folder(out: Path, benchmark: str) -> Path:
    return out / "samples" / environment.file_name(benchmark)


def fingerprint(benchmark: Benchmark) -> str:
    """A hash of a benchmark's images and pairs."""
    digest = hashlib.sha256()
    for array in (benchmark.images, benchmark.pairs, benchmark.same):
        digest.update(np.ascontiguousarray(array).data)  # no copy: images may be gigabytes
    return digest.hexdigest()[:16]


def describe(benchmark: Benchmark) -> dict[str, Any]:
    """What sweep.json says of a benchmark."""
    return {
        "fingerprint": fingerprint(benchmark),
        "images": len(benchmark.images),
        "pairs": len(benchmark.pairs),
    }


def open_sweep(
    out: Path, identity: dict[str, Any], benchmarks: Sequence[Benchmark]
) -> dict[str, Any]:
    """The content of sweep.json, of an earlier call or a new one, with these benchmarks in it.

    The model keeps the name that it had in the first call, however its path is written now.  A
    call that came to nothing for a benchmark binds nothing of it.  InputError where the directory
    holds the sweep of another model or setting, or another benchmark of the same name.
    """
    names = [benchmark.name for benchmark in benchmarks]
    if len(set(names)) < len(names) or AVERAGE in names:
        raise InputError(
            f"benchmarks {', '.join(names)}: each needs a name of its own, and none may be called "
            f"{AVERAGE!r}; rename a file"
        )
    for path in out.glob(f"{EMBEDDINGS}/*/.*.npy.*"):  # of a call that was killed while it wrote
        path.unlink()
    summary = read_summary(out)
    if summary is None:
        summary = identity | {"benchmarks": {}, "calls": [], "training": None}
    for key, value in identity.items():
        if key != "model" and summary.get(key) != value:
            raise InputError(
                f"{out}: holds a sweep with {key}={summary.get(key)!r}, not {value!r}; choose "
                "another --out"
            )
    summary["benchmarks"] = {n: a for n, a in summary["benchmarks"].items() if _measured(out, n)}
    for benchmark in benchmarks:
        about = describe(benchmark)
        if summary["benchmarks"].setdefault(benchmark.name, about) != about:
            raise InputError(
                f"{out}: holds a sweep of another {benchmark.name}, with other images or pairs; "
                "choose another --out"
            )
    environment.write_json(out / SUMMARY, summary)
    return summary


def _measured(out: Path, name: str) -> bool:
    """Whether the directory has something of a benchmark: embeddings, rows or a matrix."""
    kept = any(embeddings_folder(out, name).glob("*.npy")) or any(
        matrix_file(out, name, mode).exists() for mode in MODES
    )
    rows = environment.read_lines(out / ROWS)
    return kept or any(isinstance(row, dict) and row.get("benchmark") == name for row in rows)


def read_summary(out: Path) -> dict[str, Any] | None:
    """The content of sweep.json; None where there are no results."""
    path = out / SUMMARY
    holds = (out / ROWS).exists() or any(out.glob(f"{EMBEDDINGS}/*/*.npy"))
    if not path.exists():
        if holds:
            raise InputError(
                f"{out}: has results but no {SUMMARY}; choose another --out or delete it"
            )
        return None
    try:
        summary = json.loads(path.read_text())
    except ValueError:
        summary = None
    if not isinstance(summary, dict) or not {"benchmarks", "calls", "model"} <= summary.keys():
        raise InputError(
            f"{path}: is no record of a sweep; choose another --out, or delete this one"
        )
    return summary if holds else None


def add_rows(out: Path, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> bool:
    """Put rows into rows.jsonl, in the place of those with the same key; whether it has changed.

    The averages are those of all benchmarks of the directory, `names`, that have rows, and made
    anew.
    """

    def key(row: dict[str, Any]) -> tuple:
        return tuple(row[name] for name in KEY)

    before = environment.read_lines(out / ROWS)
    try:
        kept = [row for row in before if row["benchmark"] != AVERAGE]
        merged = {key(row): row for row in [*kept, *rows]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{out / ROWS}: a line has no {error}; delete the file: the sweep makes it again"
        ) from error
    scenarios = [*SCENARIOS, *PROTOCOLS]

    def place(row: dict[str, Any]) -> tuple:
        return (
            row["thresholds"],
            -(row["resolution"] or 0),
            scenarios.index(row["scenario"]),
            row["drawn"] or "",
        )

    parts = [sorted((r for r in merged.values() if r["benchmark"] == n), key=place) for n in names]
    parts = [part for part in parts if part]  # a matrix alone has no rows
    after = [row for part in parts for row in part]
    if len(parts) > 1:
        after += average_rows(parts, [_draws(out, part) for part in parts])
    if after != before:
        environment.write_lines(out / ROWS, after)
    return after != before


def _draws(out: Path, rows: list[dict[str, Any]]) -> np.ndarray:
    name = rows[0]["benchmark"]
    kept = read_draws(out, name)
    if not all(row_key(row) in kept for row in rows):
        raise InputError(
            f"{out}: the resampled accuracies of {name} are not all there; delete {ROWS} and sweep "
            "again: the embeddings stay"
        )
    return np.stack([kept[row_key(row)] for row in rows])
