"""The arrays of a sweep directory: distances of pairs, resampled accuracies, the matrix.

Each file is written whole, and keeps what earlier calls had of other resolutions and rows.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError
from crfr.evaluate.protocols import PROTOCOLS, SCENARIOS, Protocol

Draws = dict[str, Float32[np.ndarray, " draws"]]  # JSON of a row's key -> its accuracies


def pairs_file(out: Path, benchmark: str) -> Path:
    return out / "pairs" / f"{environment.file_name(benchmark)}.npz"


def draws_file(out: Path, benchmark: str) -> Path:
    return out / "draws" / f"{environment.file_name(benchmark)}.npz"


def matrix_file(out: Path, benchmark: str, thresholds: str) -> Path:
    return out / "matrix" / f"{environment.file_name(benchmark)}-{thresholds}.npz"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; none where it is not there.  InputError for a damaged one."""
    if not path.exists():
        return {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: {error}; delete it: the sweep makes it again") from error


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    path.parent.mkdir(parents=True, exist_ok=True)
    environment.write_atomically(path, buffer.getvalue())


def row_key(row: dict[str, Any]) -> str:
    """What tells the rows of a benchmark apart."""
    return json.dumps([row[name] for name in ("thresholds", "scenario", "resolution", "drawn")])


def add_draws(
    out: Path, benchmark: str, rows: Sequence[dict[str, Any]], draws: Float32[np.ndarray, "m draws"]
) -> None:
    """Keep the resampled accuracies of rows, in the place of those with the same key."""
    merged = read_draws(out, benchmark) | dict(zip(map(row_key, rows), draws, strict=True))
    if merged:
        arrays = {"keys": np.array(list(merged)), "accuracy": np.stack(list(merged.values()))}
        write_arrays(draws_file(out, benchmark), arrays)


def read_draws(out: Path, benchmark: str) -> Draws:
    arrays = read_arrays(draws_file(out, benchmark))
    return dict(zip(arrays["keys"].tolist(), arrays["accuracy"], strict=True)) if arrays else {}


def write_pairs(
    out: Path,
    benchmark: Benchmark,
    resolutions: list[int],
    distances: dict[str, np.ndarray],
    protocols: list[Protocol],
    drawn: dict[str, np.ndarray],
) -> None:
    """The distances of every pair; rows of NaN where a scenario was not measured."""
    path = pairs_file(out, benchmark.name)
    before = read_arrays(path)
    there = before.get("resolutions", np.zeros(0, np.int32)).tolist()
    known = {
        name: {r: v for r, v in zip(there, values, strict=True) if np.isfinite(v).all()}
        for name, values in before.items()
        if name in SCENARIOS
    }
    for name, values in distances.items():
        known.setdefault(name, {}).update(zip(resolutions, values, strict=True))
    every = sorted({r for part in known.values() for r in part}, reverse=True)
    nothing = np.full(len(benchmark.pairs), np.nan, np.float32)
    arrays = {n: v for n, v in before.items() if n.removesuffix("_resolutions") in PROTOCOLS}
    for name, part in known.items():
        arrays[name] = np.stack([part.get(r, nothing) for r in every])
    for protocol in protocols:
        arrays[protocol.name] = drawn[protocol.name]
        arrays[f"{protocol.name}_resolutions"] = protocol.resolutions
    write_arrays(path, arrays | {"resolutions": np.array(every, np.int32), "same": benchmark.same})
