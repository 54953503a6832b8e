"""The files of a sweep directory (docs/architecture.md): written whole, added to by later calls."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError
from crfr.evaluate.protocols import PROTOCOLS, SCENARIOS, Protocol

SCHEMA = 2
ROWS, SUMMARY = "rows.jsonl", "sweep.json"
AVERAGE = "average"  # the name of the mean over benchmarks
KEY = ("benchmark", "thresholds", "scenario", "resolution", "drawn")  # what tells rows apart


def embeddings_folder(out: Path, benchmark: str) -> Path:
    return out / "embeddings" / environment.file_name(benchmark)


def samples_folder(out: Path, benchmark: str) -> Path:
    return out / "samples" / environment.file_name(benchmark)


def pairs_file(out: Path, benchmark: str) -> Path:
    return out / "pairs" / f"{environment.file_name(benchmark)}.npz"


def matrix_file(out: Path, benchmark: str, thresholds: str) -> Path:
    return out / "matrix" / f"{environment.file_name(benchmark)}-{thresholds}.npz"


def fingerprint(benchmark: Benchmark) -> str:
    """A hash of a benchmark's images and pairs."""
    digest = hashlib.sha256()
    for array in (benchmark.images, benchmark.pairs, benchmark.same):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def open_sweep(
    out: Path, identity: dict[str, Any], benchmarks: Sequence[Benchmark]
) -> dict[str, Any]:
    """The content of sweep.json, of an earlier call or a new one, with these benchmarks in it.

    InputError where the directory holds the sweep of another model or setting, or another
    benchmark of the same name.
    """
    path = out / SUMMARY
    names = [benchmark.name for benchmark in benchmarks]
    if len(set(names)) < len(names) or AVERAGE in names:
        raise InputError(
            f"benchmarks {', '.join(names)}: each needs a name of its own, and none may be called "
            f"{AVERAGE!r}; rename a file"
        )
    if path.exists():
        try:
            summary = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(
                f"{path}: not JSON; choose another --out, or delete this one"
            ) from error
    elif (out / ROWS).exists():
        raise InputError(f"{out}: has {ROWS} but no {SUMMARY}; choose another --out or delete it")
    else:
        summary = identity | {"benchmarks": {}, "calls": [], "training": None}
    for key, value in identity.items():
        if summary.get(key) != value:
            raise InputError(
                f"{out}: holds a sweep with {key}={summary.get(key)!r}, not {value!r}; choose "
                "another --out"
            )
    for benchmark in benchmarks:
        about = {
            "fingerprint": fingerprint(benchmark),
            "images": len(benchmark.images),
            "pairs": len(benchmark.pairs),
        }
        if summary["benchmarks"].setdefault(benchmark.name, about) != about:
            raise InputError(
                f"{out}: holds a sweep of another {benchmark.name}, with other images or pairs; "
                "choose another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    environment.write_json(path, summary)
    return summary


def add_rows(out: Path, rows: list[dict[str, Any]]) -> bool:
    """Put rows into rows.jsonl, in the place of those with the same key; whether it has changed.

    Averages over other benchmarks than these rows' are dropped: there is one average.
    """

    def key(row: dict[str, Any]) -> tuple:
        return tuple(row[name] for name in KEY)

    before = environment.read_lines(out / ROWS)
    sets = {tuple(row["average_of"]) for row in rows if row["average_of"]}
    kept = [r for r in before if not sets or not r["average_of"] or tuple(r["average_of"]) in sets]
    merged = {key(row): row for row in [*kept, *rows]}
    names = dict.fromkeys(row["benchmark"] for row in merged.values())
    order = {name: place for place, name in enumerate([n for n in names if n != AVERAGE])}
    scenarios = [*SCENARIOS, *PROTOCOLS]

    def place(row: dict[str, Any]) -> tuple:
        return (
            order.get(row["benchmark"], len(order)),
            row["thresholds"],
            -(row["resolution"] or 0),
            scenarios.index(row["scenario"]),
            row["drawn"] or "",
        )

    after = sorted(merged.values(), key=place)
    if after != before:
        environment.write_lines(out / ROWS, after)
    return after != before


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    path.parent.mkdir(parents=True, exist_ok=True)
    environment.write_atomically(path, buffer.getvalue())


def write_pairs(
    out: Path,
    benchmark: Benchmark,
    resolutions: list[int],
    distances: dict[str, np.ndarray],
    protocols: list[Protocol],
    drawn: dict[tuple[str, str], np.ndarray],
) -> None:
    """The distances of every pair; what earlier calls had of other resolutions stays."""
    path = pairs_file(out, benchmark.name)
    before: dict[str, np.ndarray] = {}
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as file:
                before = dict(file)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: {error}; delete it: the sweep makes it again") from error
    known = {name: dict(zip(before.get("resolutions", np.zeros(0)).tolist(), values, strict=True))
             for name, values in before.items() if name in SCENARIOS}  # fmt: skip
    for name, values in distances.items():
        known.setdefault(name, {}).update(zip(resolutions, values, strict=True))
    every = sorted({r for part in known.values() for r in part}, reverse=True)
    nothing = np.full(len(benchmark.pairs), np.nan, np.float32)
    arrays = {n: v for n, v in before.items() if n.removesuffix("_resolutions") in PROTOCOLS}
    arrays |= {
        name: np.stack([part.get(r, nothing) for r in every]) for name, part in known.items()
    }
    for protocol in protocols:
        arrays[protocol.name] = drawn[protocol.name, protocol.drawn]
        arrays[f"{protocol.name}_resolutions"] = protocol.resolutions
    arrays |= {"resolutions": np.array(every, np.int32), "same": benchmark.same}
    write_arrays(path, arrays)
