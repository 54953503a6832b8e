"""Measuring models: specs -> the sweep's functions; one function a command."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from crfr import agreement, environment
from crfr.data.benchmarks import Benchmark, load_benchmarks
from crfr.errors import InputError, unknown
from crfr.evaluate import arrays, results
from crfr.evaluate import sweep as sweeping
from crfr.evaluate.dataset import analyse
from crfr.evaluate.distances import pair_distances
from crfr.evaluate.embed import PRECISIONS, compile_embed, embed_images
from crfr.evaluate.encoders import Encoder, load_encoder
from crfr.evaluate.protocols import (
    FULL,
    Protocol,
    draw_protocols,
    read_protocols,
    write_protocols,
)
from crfr.evaluate.verification import MODES, kfold_accuracy
from crfr.model.resnet import ResNet
from crfr.networks import build_for_evaluation
from crfr.train import sharding
from crfr.train.log import FILE as METRICS
from crfr.train.state import State
from crfr.views.degrade import VARIANTS, check_resolutions
from crfr.workdir import read_config, read_starts

SCENARIOS = ("CR", "ER", "protocols", "matrix")


def sweep(
    model: str | Encoder,
    benchmark: str | list[Benchmark],
    resolutions: Sequence[int],
    out: Path,
    *,
    scenarios: Sequence[str] = ("CR", "ER"),
    protocols: Path | dict[str, list[Protocol]] | None = None,
    draws: int = 5,
    seed: int = 0,
    thresholds: Sequence[str] = ("exact",),
    degradation: str = "bicubic",
    flip: bool = False,
    batch: int = 256,
    precision: str = "float32",
) -> None:
    """Measure a MODEL on benchmarks at each resolution (px) and write everything to `out`.

    The scenario "protocols" takes the CSV files of the folder `protocols`, or those that are
    given, by the benchmarks' names, or else draws the paper's four `draws` times.  A folder of CSV
    files asks for that scenario by itself.  `precision` is that of a crfr model's products.
    """

    def prepare() -> tuple[list[Benchmark], dict[str, list[Protocol]]]:
        for name, values, known in (
            ("--scenarios", scenarios, SCENARIOS),
            ("--thresholds", thresholds, MODES),
            ("--degradation", [degradation], VARIANTS),
            ("--precision", [precision], PRECISIONS),
        ):
            for value in values:
                if value not in known:
                    raise unknown(name, value, known)
        check_resolutions(np.asarray(resolutions))
        loaded = load_benchmarks(benchmark) if isinstance(benchmark, str) else benchmark
        if isinstance(protocols, dict):
            return loaded, protocols
        if protocols is not None:
            return loaded, {b.name: read_protocols(protocols, b) for b in loaded}
        if "protocols" in scenarios:
            return loaded, {b.name: draw_protocols(b, draws, seed) for b in loaded}
        return loaded, {}

    benchmarks, drawn = agreement.together(prepare)
    environment.keep_programs()
    encoder = model if isinstance(model, Encoder) else load_encoder(model, build_for_evaluation)
    if precision != "float32":
        encoder = _in_precision(encoder, precision)
    mesh = sharding.make_mesh()
    if jax.process_count() > 1:
        _require_same(encoder, benchmarks)
        if not agreement.leader():
            sweeping.help_sweep(encoder, benchmarks, mesh=mesh, variant=degradation, flip=flip)
            return
    training, metrics = _training(encoder)
    try:
        rows = sweeping.sweep(
            encoder,
            benchmarks,
            resolutions,
            out,
            mesh=mesh,
            batch=batch,
            scenarios=[name for name in scenarios if name != "protocols"],
            protocols=drawn,
            thresholds=thresholds,
            variant=degradation,
            flip=flip,
            training=training,
        )
        if metrics:
            environment.write_lines(out / METRICS, metrics)
    except OSError as error:
        raise InputError(f"--out={out}: {error.strerror}; choose a writable folder") from error
    print(f"{out}: {len(rows)} rows")


def _in_precision(encoder: Encoder, precision: str) -> Encoder:
    if encoder.network is None:
        raise agreement.SharedError(
            f"{encoder.model}: has its own precision; leave out --precision={precision}, which "
            "is for models of crfr"
        )
    network = encoder.network.clone(dtype=np.dtype(precision))
    return dataclasses.replace(encoder, network=network, precision=precision)


def _require_same(encoder: Encoder, benchmarks: Sequence[Benchmark]) -> None:
    """Refuse what several processes cannot sweep, and processes that are not alike."""
    if encoder.network is None:
        raise agreement.SharedError(
            f"{encoder.model}: only models of crfr are swept in several processes; leave out "
            "--distributed"
        )
    about = {b.name: results.describe(b) for b in benchmarks}
    made = environment.versions() | {"commit": environment.commit()}
    agreement.require_same({"model": encoder.fingerprint, "benchmarks": about} | made)


def finished(
    out: Path,
    step: int,
    about: dict[str, dict[str, Any]],
    resolutions: Sequence[int],
    *,
    scenarios: Sequence[str],
    protocols: dict[str, list[Protocol]],
) -> bool:
    """Whether a sweep of a crfr model at a step has left all that `sweep` would with these
    arguments and exact thresholds.

    `about` is what `results.describe` says of each benchmark, by its name.  InputError where the
    directory has another benchmark of one of these names.
    """
    summary = results.read_summary(out)
    if summary is None:
        return False
    for name, facts in about.items():
        if summary["benchmarks"].get(name, facts) != facts:
            raise InputError(
                f"{out}: holds a sweep of another {name}, with other images or pairs; choose "
                "another --out"
            )
    if summary["step"] != step or not (out / METRICS).exists():  # which are written last
        return False
    there = {
        (row["benchmark"], row["scenario"], row["resolution"], row["source"])
        for row in environment.read_lines(out / results.ROWS)
        if row["thresholds"] == "exact"
    }
    single = [name for name in ("CR", "ER") if name in scenarios]
    wanted = {(b, name, r, None) for b in about for name in single for r in resolutions}
    wanted |= {(b, p.name, None, p.source) for b, drawn in protocols.items() for p in drawn}
    if not wanted <= there:
        return False
    if "matrix" in scenarios:
        for name in [*about, *([results.AVERAGE] if len(about) > 1 else [])]:
            matrix = arrays.read_arrays(arrays.matrix_file(out, name, "exact"))
            if not set(resolutions) <= set(matrix.get("resolutions", np.zeros(0)).tolist()):
                return False
    return True


def _training(encoder: Encoder) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """(how a crfr model was trained, for the report; its metrics); (None, []) of any other."""
    if encoder.step is None:
        return None, []
    workdir = Path(encoder.model)
    metrics = environment.read_lines(workdir / METRICS)
    seconds = [m["seconds"] for m in metrics if m["step"] <= encoder.step]
    about = {"config": read_config(workdir), "run": read_starts(workdir)}
    return about | {"seconds": max(seconds, default=None)}, metrics


def dataset(
    benchmark: str, resolutions: Sequence[int], out: Path, *, degradation: str, batch: int
) -> None:
    """What reducing to each resolution (px) does to the images of benchmarks; files go to `out`."""
    if degradation not in VARIANTS:
        raise unknown("--degradation", degradation, VARIANTS)
    check_resolutions(np.asarray(resolutions))
    benchmarks = load_benchmarks(benchmark)
    about = analyse(
        benchmarks,
        resolutions,
        out,
        mesh=sharding.make_mesh(),
        batch=batch,
        variant=degradation,
    )
    for name, found in about["benchmarks"].items():
        means = found["mean_absolute_difference"]
        listed = ", ".join(f"{r} px {means[str(r)]:.2f}" for r in resolutions)
        print(f"{name}: mean absolute difference in grey levels at {listed}")


def protocols(benchmark: str, out: Path, seed: int) -> None:
    """Draw the paper's protocols and write them as CSV files in the authors' layout."""
    for loaded in load_benchmarks(benchmark):
        for path in write_protocols(out, loaded, seed):
            print(path)


def make_verify(
    network: ResNet, benchmark: Benchmark, mesh: Mesh, batch: int
) -> Callable[[State], dict[str, Any]]:
    """The function that measures a training's state at 112 px, as a sweep would (figure 15)."""
    embed = compile_embed(network, mesh)

    def verify(state: State) -> dict[str, Any]:
        variables = {"params": state.params["backbone"], "batch_stats": state.batch_stats}
        embeddings = embed_images(
            partial(embed, variables), benchmark.images, FULL, mesh=mesh, batch=batch
        )
        distances = pair_distances(embeddings, embeddings, benchmark.pairs)
        accuracy, std, threshold = kfold_accuracy(distances, benchmark.same)
        return {
            "benchmark": benchmark.name,
            "verification_accuracy": accuracy,
            "verification_std": std,
            "verification_threshold": threshold,
        }

    return verify
