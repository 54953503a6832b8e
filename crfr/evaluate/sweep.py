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
from crfr.evaluate import arrays, results, store
from crfr.evaluate.distances import matrix_distances, protocol_distances, scenario_distances
from crfr.evaluate.embed import Embed, make_embed
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.matrix import average_matrix, resolution_matrix
from crfr.evaluate.passes import SAME_BFLOAT16, embed_missing, find_missing
from crfr.evaluate.protocols import FULL, Protocol, needed
from crfr.evaluate.samples import write_samples
from crfr.evaluate.scores import bootstrap, finish_rows, protocol_lines, resample, scenario_lines
from crfr.evaluate.shared import follow, release


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
    embed: Embed | None = None,
) -> list[dict[str, Any]]:
    """Measure an encoder on benchmarks at each resolution (px); its files go to `out`.

    `scenarios` are of CR, ER and matrix, `protocols` those of each benchmark by its name.  The same
    call again goes on where it stopped; other scenarios, resolutions, benchmarks and thresholds use
    the embeddings that are there, and their rows stand beside the earlier ones.  Of several
    benchmarks in the directory the rows that all have are averaged.  `training` is what the report
    says of how the model was trained.  `embed` is the encoder's `make_embed` for `variant` and
    `flip`, where it is compiled already.  Returns the rows of this call, without averages.

    Raises InputError where `out` holds the sweep of another model, benchmark or degradation.
    """
    started = time.monotonic()
    protocols = protocols or {}
    thresholds, scenarios = list(dict.fromkeys(thresholds)), list(dict.fromkeys(scenarios))
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
    out.mkdir(parents=True, exist_ok=True)
    busy = f"{out}: another crfr sweep is writing there; wait until it has ended"
    with environment.locked(out, busy):
        identity = common | {"model_fingerprint": encoder.fingerprint}
        summary = results.open_sweep(out, identity, benchmarks)
        common["model"] = summary["model"]
        summary["training"] = training
        call = {
            "started": environment.now(),
            "command": environment.command(),
            "commit": environment.commit(),
            "versions": environment.versions(),
            "devices": {"count": mesh.size, "kind": mesh.devices.flat[0].device_kind},
            "seconds": 0.0,
        }
        if encoder.runtime:
            call["devices"] = {"count": 1, "kind": encoder.runtime}

        def record() -> None:
            """A call that adds something is on record from its first file on."""
            if call not in summary["calls"]:
                summary["calls"].append(call)
            call["seconds"] = round(time.monotonic() - started, 3)
            environment.write_json(out / results.SUMMARY, summary)

        wanted = [needed(b, scenarios, resolutions, protocols.get(b.name, [])) for b in benchmarks]
        embed = embed or make_embed(encoder, mesh, variant=variant, flip=flip)
        batches = {"mesh": mesh, "batch": batch, "pad": encoder.network is not None}
        if encoder.precision == "bfloat16":
            batches["same"] = SAME_BFLOAT16
        missing = find_missing(embed, benchmarks, wanted, out, **batches)
        if any(which.size for part in missing for which in part.values()):
            record()
            embed_missing(embed, benchmarks, missing, out, **batches)
        release()

        rows, changed = [], False
        for benchmark, masks in zip(benchmarks, wanted, strict=True):
            print(f"measuring {benchmark.name}", flush=True)
            kept = {r: _kept(out, benchmark, r) for r in masks}
            falling = sorted(set(resolutions), reverse=True)
            about = common | {"benchmark": benchmark.name, "average_of": None}
            rows += measure_benchmark(
                benchmark,
                about,
                kept,
                falling,
                out,
                scenarios=scenarios,
                protocols=protocols.get(benchmark.name, []),
                thresholds=thresholds,
            )
            if "matrix" in scenarios:
                changed |= _add_matrix(benchmark, falling, out, thresholds)
            shown = sorted({FULL, *resolutions}, reverse=True)
            write_samples(results.samples_folder(out, benchmark.name), benchmark, shown, variant)
        names = list(summary["benchmarks"])
        changed |= results.add_rows(out, rows, names)
        if "matrix" in scenarios:
            _average_matrices(out, names, thresholds)
        if changed or call in summary["calls"]:
            record()
        environment.write_json(out / results.SUMMARY, summary)
    return rows


def help_sweep(
    encoder: Encoder, benchmarks: Sequence[Benchmark], *, mesh: Mesh, variant: str, flip: bool
) -> None:
    """The part of the other processes in the sweep that process 0 makes, of the same arguments."""
    follow(make_embed(encoder, mesh, variant=variant, flip=flip), benchmarks, mesh=mesh)


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
) -> list[dict[str, Any]]:
    """The rows of a benchmark but for the matrix; writes its distances and resampled accuracies."""
    pairs, same = benchmark.pairs, benchmark.same
    distances = scenario_distances(embeddings, resolutions, pairs, scenarios)
    drawn = {
        p.name: np.stack([protocol_distances(embeddings, each, pairs) for each in p.resolutions])
        for p in protocols
    }
    if not distances and not drawn:
        return []
    weights = resample(benchmark.name, len(pairs))
    rows = []
    for mode in thresholds:
        lines = scenario_lines(distances, resolutions, same, mode)
        lines += protocol_lines(protocols, drawn, same, mode)
        draws = bootstrap(lines, weights)
        part = finish_rows(about | {"thresholds": mode}, lines, draws)
        arrays.add_draws(out, benchmark.name, part, draws)
        rows += part
    arrays.write_pairs(out, benchmark, resolutions, distances, protocols, drawn)
    return rows


def _add_matrix(
    benchmark: Benchmark, resolutions: list[int], out: Path, thresholds: Sequence[str]
) -> bool:
    """Measure the cells that a matrix file has not; whether there were any."""
    added = False
    for mode in thresholds:
        path = arrays.matrix_file(out, benchmark.name, mode)
        before = arrays.read_arrays(path)
        there = before["resolutions"].tolist() if before else []
        every = sorted({*there, *resolutions}, reverse=True)
        if every == there:
            continue
        embeddings = {r: _kept(out, benchmark, r) for r in every}
        distances = matrix_distances(embeddings, every, benchmark.pairs)
        weights = resample(benchmark.name, len(benchmark.pairs))
        found = resolution_matrix(distances, every, benchmark.same, mode, weights, before)
        arrays.write_arrays(path, found)
        added = True
    return added


def _average_matrices(out: Path, names: list[str], thresholds: Sequence[str]) -> None:
    for mode in thresholds:
        found = {n: arrays.read_arrays(arrays.matrix_file(out, n, mode)) for n in names}
        parts = {name: part for name, part in found.items() if part}  # others were swept without it
        if len(parts) > 1:
            mean = average_matrix(list(parts.values())) | {"average_of": np.array(list(parts))}
            arrays.write_arrays(arrays.matrix_file(out, results.AVERAGE, mode), mean)
