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
from crfr.evaluate.embed import Embed, check_embeddings
from crfr.evaluate.shared import embed_all

SAVE_EVERY = 60.0  # seconds: what a kill may cost
PROBES = 8  # kept embeddings a resolution that are made again, to see that they are the model's
SAME = 1e-4  # cosine distance up to which two embeddings of one image are the same model's
SAME_BFLOAT16 = 1e-2  # with 8 bits, another batch or device, which sums in another order, shows


Missing = list[dict[int, np.ndarray]]  # of each benchmark, resolution -> indices of images


def find_missing(
    embed: Embed,
    benchmarks: Sequence[Benchmark],
    wanted: Sequence[dict[int, np.ndarray]],
    out: Path,
    *,
    mesh: Mesh,
    batch: int,
    pad: bool,
    same: float = SAME,
) -> Missing:
    """What is wanted and not kept.  InputError where what is kept is not what the model gives.

    `pad`: the encoder needs full batches.  `same`: up to this cosine distance an embedding is.
    """
    missing = []
    for benchmark, masks in zip(benchmarks, wanted, strict=True):
        folder = results.embeddings_folder(out, benchmark.name)
        there = {r: store.present(folder, r, len(benchmark.images)) for r in masks}
        _probe(embed, benchmark, folder, mesh=mesh, batch=batch, pad=pad, same=same)
        missing.append({r: np.flatnonzero(mask & ~there[r]) for r, mask in masks.items()})
    return missing


def embed_missing(
    embed: Embed,
    benchmarks: Sequence[Benchmark],
    missing: Missing,
    out: Path,
    *,
    mesh: Mesh,
    batch: int,
    pad: bool,
    same: float = SAME,
) -> None:
    """Make and keep what is missing, and make some of it again, to see that it comes out alike."""
    total = sum(len(which) for part in missing for which in part.values())
    with tqdm(total=total, unit=" images", desc="embedding", disable=None) as progress:
        for benchmark, part in zip(benchmarks, missing, strict=True):
            folder = results.embeddings_folder(out, benchmark.name)
            fresh = not store.resolutions(folder)
            _embed_into(embed, benchmark, part, folder, progress, mesh=mesh, batch=batch, pad=pad)
            if fresh:
                _probe(embed, benchmark, folder, mesh=mesh, batch=batch, pad=pad, same=same)


def _embed_into(
    embed: Embed,
    benchmark: Benchmark,
    missing: dict[int, np.ndarray],
    folder: Path,
    progress: tqdm,
    *,
    mesh: Mesh,
    batch: int,
    pad: bool,
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

    for part, embeddings in embed_all(
        embed, benchmark, which, sizes, mesh=mesh, batch=batch, pad=pad
    ):
        if held and embeddings.shape[1] != held[0].shape[1]:
            raise InputError(
                f"embeddings of {held[0].shape[1]} numbers in one batch and of "
                f"{embeddings.shape[1]} in the next: the model has to give one number of them"
            )
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
    *,
    mesh: Mesh,
    batch: int,
    pad: bool,
    same: float,
) -> None:
    """Raise InputError where the model does not give the embeddings that are kept of it.

    Compared are a few images at the lowest and the highest resolution that is kept: at the highest
    alone, which the degradation leaves as it is, another degradation would go unnoticed.  Where no
    full batch is needed each is made alone, which shows whether the others of a batch matter.
    """
    kept = store.resolutions(folder)
    for resolution in sorted({*kept[:1], *kept[-1:]}):
        before = store.load(folder, resolution, len(benchmark.images))
        assert before is not None
        there = np.flatnonzero(np.isfinite(before[:, 0]))
        which = there[np.linspace(0, len(there) - 1, min(PROBES, len(there))).astype(int)]
        sizes = np.full(len(which), resolution)
        size = batch if pad else 1
        parts = embed_all(embed, benchmark, which, sizes, mesh=mesh, batch=size, pad=pad)
        again = np.concatenate([found for _, found in parts])
        if again.shape[1] == before.shape[1]:
            distance = float(np.max(1 - np.einsum("nd,nd->n", before[which], again)))
            if distance < same:
                continue
        raise InputError(
            f"{folder}: the embeddings kept at {resolution} px are not what the model gives now; "
            "they are another model's, it has changed, or it gives an image another embedding in "
            "another batch (BatchNorm in training mode?): mend it, and choose another --out"
        )
