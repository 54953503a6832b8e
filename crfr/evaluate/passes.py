"""The embedding pass: what a sweep needs and has not yet, made once and kept (store.py)."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError
from crfr.evaluate import results, store
from crfr.evaluate.embed import Embed, check_embeddings, embed_work

SAVE_EVERY = 60.0  # seconds: what a kill may cost
PROBES = 8  # kept embeddings that are made again, to see that the model is still the same
SAME = 0.01  # cosine distance up to which two embeddings of one image are the same model's


def embed_missing(
    embed: Embed,
    benchmarks: Sequence[Benchmark],
    wanted: Sequence[dict[int, np.ndarray]],
    out: Path,
    *,
    mesh: Mesh,
    batch: int,
) -> int:
    """Make and keep the embeddings that are wanted and not there; how many these were."""
    missing = []
    for benchmark, masks in zip(benchmarks, wanted, strict=True):
        folder, images = results.embeddings_folder(out, benchmark.name), len(benchmark.images)
        there = {r: store.present(folder, r, images) for r in masks}
        for resolution, mask in there.items():
            if mask.any():
                _probe(embed, benchmark, folder, resolution, mask, mesh=mesh, batch=batch)
                break
        missing.append({r: np.flatnonzero(mask & ~there[r]) for r, mask in masks.items()})
    total = sum(len(which) for part in missing for which in part.values())
    with tqdm(total=total, unit=" images", desc="embedding", disable=None) as progress:
        for benchmark, part in zip(benchmarks, missing, strict=True):
            folder = results.embeddings_folder(out, benchmark.name)
            _embed_into(embed, benchmark, part, folder, progress, mesh=mesh, batch=batch)
    return total


def _embed_into(
    embed: Embed,
    benchmark: Benchmark,
    missing: dict[int, np.ndarray],
    folder: Path,
    progress: tqdm,
    *,
    mesh: Mesh,
    batch: int,
) -> None:
    """Make and keep the missing images of each resolution, in one stream of full batches."""
    which = np.concatenate([np.zeros(0, int), *missing.values()])
    sizes = np.repeat(list(missing), [len(images) for images in missing.values()]).astype(int)
    held: list[np.ndarray] = []
    first, saved = 0, time.monotonic()  # `held` is of which[first:...]

    def save(stop: int) -> None:
        nonlocal held, first, saved
        values, rest = np.concatenate(held), stop - first
        for resolution in dict.fromkeys(sizes[first:stop].tolist()):
            at = np.flatnonzero(sizes[first:stop] == resolution)
            check_embeddings(values[at], which[first:stop][at], resolution)
            store.add(folder, resolution, len(benchmark.images), which[first:stop][at], values[at])
        held, first, saved = [values[rest:]], stop, time.monotonic()

    for part, embeddings in embed_work(
        embed, benchmark.images, which, sizes, mesh=mesh, batch=batch
    ):
        held.append(embeddings)
        progress.update(len(embeddings))
        # up to the end of the last resolution that is complete, or all of it from time to time
        last = int(sizes[part.stop - 1])
        begun = int(np.searchsorted(-sizes, -last, side="left"))
        if part.stop == len(which) or time.monotonic() - saved > SAVE_EVERY:
            save(part.stop)
        elif begun > first:
            save(begun)


def _probe(
    embed: Embed,
    benchmark: Benchmark,
    folder: Path,
    resolution: int,
    there: np.ndarray,
    *,
    mesh: Mesh,
    batch: int,
) -> None:
    """Raise InputError where the model no longer gives the embeddings that are kept of it."""
    kept = store.load(folder, resolution, len(benchmark.images))
    assert kept is not None
    which = np.flatnonzero(there)[:PROBES]
    sizes = np.full(len(which), resolution)
    (_, again), *_ = embed_work(embed, benchmark.images, which, sizes, mesh=mesh, batch=batch)
    if again.shape[1] == kept.shape[1]:
        distance = float(np.max(1 - np.einsum("nd,nd->n", kept[which], again)))
        if distance < SAME:
            return
    raise InputError(
        f"{folder}: the embeddings kept at {resolution} px are not what the model gives now; they "
        "are another model's or it has changed: choose another --out"
    )
