"""The sweep: every image of the benchmarks that a scenario needs, at every resolution, once; rows.

First all embeddings are made and kept, which takes the time and goes on after a kill.  What follows
reads them and takes seconds, so that every call measures what it was asked for anew.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.evaluate import results, store
from crfr.evaluate.distances import matrix_distances, protocol_distances, scenario_distances
from crfr.evaluate.embed import make_embed
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.matrix import resolution_matrix
from crfr.evaluate.passes import embed_missing
from crfr.evaluate.protocols import FULL, Protocol, needed
from crfr.evaluate.samples import write_samples
from crfr.evaluate.scores import (
    average_rows,
    bootstrap,
    finish_rows,
    protocol_lines,
    scenario_lines,
)


def sweep(
    encoder: Encoder,
    benchmarks: Sequence[Benchmark],
    resolutions: Sequence[int],
    out: Path,
    *,
    mesh: Mesh,
    batch: int,
    scenarios: Sequence[str] = ("CR", "ER"),
    protocols: dict[str, list[Protocol]] | None = None,
    thresholds: Sequence[str] = ("exact",),
    variant: str = "bicubic",
    flip: bool = False,
    training: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Measure an encoder on benchmarks at each resolution (px); its files go to `out`.

    `scenarios` are of CR, ER and matrix, `protocols` those of each benchmark by its name.  The same
    call again goes on where it stopped; other scenarios, resolutions, benchmarks and thresholds use
    the embeddings that are there, and their rows stand beside the earlier ones.  Of several
    benchmarks the rows that all have are averaged.  `training` is what the report says of how the
    model was trained.  Returns the rows of this call.

    Raises InputError where `out` holds the sweep of another model, benchmark or degradation.
    """
    started = time.monotonic()
    protocols = protocols or {}
    common = {
        "schema": results.SCHEMA,
        "model": encoder.model,
        "step": encoder.step,
        "method": encoder.method,
        "degradation": variant,
        "pixels": encoder.pixels,
        "precision": encoder.precision,
        "flip": flip,
    }
    summary = results.open_sweep(
        out, common | {"model_fingerprint": encoder.fingerprint}, benchmarks
    )
    summary["training"] = training
    wanted = [needed(b, scenarios, resolutions, protocols.get(b.name, [])) for b in benchmarks]
    embed = make_embed(encoder, mesh, variant=variant, flip=flip)
    made = embed_missing(embed, benchmarks, wanted, out, mesh=mesh, batch=batch)

    found: list[list[dict[str, Any]]] = []
    draws: list[np.ndarray] = []
    for benchmark, masks in zip(benchmarks, wanted, strict=True):
        about = common | {"benchmark": benchmark.name, "average_of": None}
        print(f"measuring {benchmark.name}", flush=True)
        rows, resampled = measure_benchmark(
            benchmark,
            about,
            {r: _kept(out, benchmark, r) for r in masks},
            sorted(set(resolutions), reverse=True),
            out,
            scenarios=scenarios,
            protocols=protocols.get(benchmark.name, []),
            thresholds=thresholds,
        )
        found.append(rows)
        draws.append(resampled)
        shown = sorted({FULL, *resolutions}, reverse=True)
        write_samples(results.samples_folder(out, benchmark.name), benchmark, shown, variant)
    rows = [row for part in found for row in part]
    if len(benchmarks) > 1:
        rows += average_rows(found, draws)
    changed = results.add_rows(out, rows)
    if made or changed:  # a call that finds everything done adds nothing to how the rows were made
        call = {
            "started": environment.now(),
            "command": environment.command(),
            "commit": environment.commit(),
            "versions": environment.versions(),
            "devices": {"count": mesh.size, "kind": mesh.devices.flat[0].device_kind},
            "seconds": round(time.monotonic() - started, 3),
        }
        summary["calls"] = [*summary["calls"], call]
    environment.write_json(out / results.SUMMARY, summary)
    return rows


def _kept(out: Path, benchmark: Benchmark, resolution: int) -> np.ndarray:
    folder = results.embeddings_folder(out, benchmark.name)
    kept = store.load(folder, resolution, len(benchmark.images))
    assert kept is not None
    return kept


def measure_benchmark(
    benchmark: Benchmark,
    about: dict[str, Any],
    embeddings: dict[int, np.ndarray],
    resolutions: list[int],
    out: Path,
    *,
    scenarios: Sequence[str],
    protocols: list[Protocol],
    thresholds: Sequence[str],
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """(rows, their bootstrapped accuracies [rows draws]) of a benchmark; writes its other files."""
    pairs, same = benchmark.pairs, benchmark.same
    distances: dict[str, np.ndarray] = {}
    if {"CR", "ER"}.intersection(scenarios):
        distances = scenario_distances(embeddings, resolutions, pairs)
    drawn = {
        (p.name, p.drawn): np.stack(
            [protocol_distances(embeddings, r, pairs) for r in p.resolutions]
        )
        for p in protocols
    }
    rows, draws = [], []
    for mode in thresholds:
        lines = scenario_lines(distances, resolutions, same, mode, scenarios)
        lines += protocol_lines(drawn, same, mode)
        if lines:
            draws.append(bootstrap(lines, len(pairs)))
            rows += finish_rows(about | {"thresholds": mode}, lines, draws[-1])
    results.write_pairs(out, benchmark, resolutions, distances, protocols, drawn)
    if "matrix" in scenarios:
        square = matrix_distances(embeddings, resolutions, pairs)
        for mode in thresholds:
            arrays = resolution_matrix(square, resolutions, same, mode)
            results.write_arrays(results.matrix_file(out, benchmark.name, mode), arrays)
    return rows, np.concatenate(draws) if draws else np.zeros((0, 1))
