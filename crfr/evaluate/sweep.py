"""The sweep: every distinct image of a benchmark at every resolution once, verification,
rows.jsonl.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from PIL import Image
from tqdm import tqdm

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError
from crfr.evaluate.embed import compile_embed, embed_images
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.protocols import FULL, SCENARIOS, scenario_distances
from crfr.evaluate.verification import kfold_accuracy
from crfr.views.degrade import degrade

ROWS, SUMMARY, SAMPLES = "rows.jsonl", "sweep.json", "samples"
SCHEMA = 1
SAMPLE_FACES = 8


def verify_pairs(distances: np.ndarray, same: np.ndarray, thresholds: str) -> dict[str, Any]:
    """The figures of one scenario: accuracy, threshold and mean distances (paper fig. 6)."""
    accuracy, std, threshold = kfold_accuracy(distances, same, thresholds=thresholds)
    return {
        "accuracy": accuracy,
        "accuracy_std": std,
        "threshold": threshold,
        "positive_distance": float(distances[same].mean()),
        "negative_distance": float(distances[~same].mean()),
        "pairs": len(same),
    }


def scenario_rows(
    common: dict[str, Any],
    resolution: int,
    distances: dict[str, np.ndarray],
    same: np.ndarray,
    thresholds: str,
) -> list[dict[str, Any]]:
    """The rows of one resolution; CR's figures are the means of CR_A's and CR_B's, its pairs those
    of one.
    """
    figures = {name: verify_pairs(d, same, thresholds) for name, d in distances.items()}
    a, b = figures["CR_A"], figures["CR_B"]
    figures["CR"] = {name: (a[name] + b[name]) / 2 for name in a} | {"pairs": a["pairs"]}
    return [
        {**common, "scenario": name, "resolution": resolution, **figures[name]}
        for name in SCENARIOS
    ]


def write_samples(folder: Path, benchmark: Benchmark, resolution: int, variant: str) -> None:
    """A strip of the same few faces at a resolution, as the network sees them."""
    chosen = np.unique(benchmark.pairs[benchmark.same, 0])
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(SAMPLE_FACES, len(chosen))).astype(int)]
    faces = np.asarray(degrade(benchmark.images[chosen], resolution, variant=variant))
    strip = np.concatenate(list(np.clip(np.round(faces), 0, 255).astype(np.uint8)), axis=1)
    folder.mkdir(exist_ok=True)
    Image.fromarray(strip).save(folder / f"{resolution}.png")


def sweep(
    encoder: Encoder,
    benchmark: Benchmark,
    resolutions: list[int],
    out: Path,
    *,
    mesh: Mesh,
    batch: int,
    thresholds: str = "exact",
    variant: str = "bicubic",
    flip: bool = False,
    training: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Measure an encoder on a benchmark at each resolution (px); rows go to `out` as they are
    finished.

    The same call again goes on where it stopped.  `training` is what the report says of how the
    model was trained.  Raises InputError where `out` holds the sweep of another model, benchmark or
    setting.
    """
    started = time.monotonic()
    common = {
        "schema": SCHEMA,
        "model": encoder.model,
        "step": encoder.step,
        "method": encoder.method,
        "benchmark": benchmark.name,
        "degradation": variant,
        "precision": str(encoder.network.dtype),
        "thresholds": thresholds,
        "flip": flip,
    }
    identity = {
        **common,
        "model_fingerprint": encoder.fingerprint,
        "benchmark_fingerprint": _fingerprint(benchmark),
    }
    summary = _open(out, identity)
    rows = environment.read_lines(out / ROWS)
    finished = {row["resolution"] for row in rows}
    wanted = [r for r in resolutions if r not in finished]
    call = {
        "started": environment.now(),
        "command": environment.command(),
        "commit": environment.commit(),
        "versions": environment.versions(),
        "devices": {"count": mesh.size, "kind": mesh.devices.flat[0].device_kind},
        "seconds": 0.0,
    }
    summary |= {"images": len(benchmark.images), "pairs": len(benchmark.pairs)}
    summary["training"] = training
    if wanted:  # a call that finds everything done adds nothing to how the rows were made
        summary["calls"] = [*summary.get("calls", []), call]
        environment.write_json(out / SUMMARY, summary)
    embed = compile_embed(encoder.network, mesh, variant=variant, flip=flip)
    # full resolution first: every cross-resolution distance needs it
    passes = sorted({*wanted, FULL}, reverse=True) if wanted else []
    full = None
    with tqdm(
        total=len(passes) * len(benchmark.images),
        unit=" images",
        desc=f"sweep {encoder.method}",
        disable=None,
    ) as progress:
        for resolution in passes:
            low = embed_images(
                embed,
                encoder.variables,
                benchmark.images,
                resolution,
                mesh=mesh,
                batch=batch,
                progress=progress,
            )
            full = low if full is None else full
            if resolution not in wanted:
                continue
            distances = scenario_distances(low, full, benchmark.pairs)
            rows += scenario_rows(common, resolution, distances, benchmark.same, thresholds)
            write_samples(out / SAMPLES, benchmark, resolution, variant)
            environment.write_lines(out / ROWS, rows)
            call["seconds"] = round(time.monotonic() - started, 3)
            environment.write_json(out / SUMMARY, summary)
    rows.sort(key=lambda row: (-row["resolution"], SCENARIOS.index(row["scenario"])))
    environment.write_lines(out / ROWS, rows)
    return rows


def _fingerprint(benchmark: Benchmark) -> str:
    digest = hashlib.sha256()
    for array in (benchmark.images, benchmark.pairs, benchmark.same):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _open(out: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The summary of an earlier call of the same sweep, or a new one; refuses a foreign one."""
    path = out / SUMMARY
    if not path.exists():
        if (out / ROWS).exists():
            raise InputError(
                f"{out}: has {ROWS} but no {SUMMARY}; choose another --out or delete it"
            )
        out.mkdir(parents=True, exist_ok=True)
        environment.write_json(path, identity)
        return identity
    try:
        summary = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON; choose another --out, or delete this one") from error
    for key, value in identity.items():
        if summary.get(key) != value:
            raise InputError(
                f"{out}: holds a sweep with {key}={summary.get(key)!r}, not {value!r}; choose "
                "another --out"
            )
    return summary
