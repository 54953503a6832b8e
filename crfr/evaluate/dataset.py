"""What losing resolution does to the images of a benchmark (paper section 4.1, fig. 4): the mean
image (eq. 4) and, at each resolution, the mean absolute difference of a pixel (eq. 5).

Sums.  A batch's images are added on the devices, pixels as integers and differences in float32
pair by pair, and batches on the host in float64.  So the mean image is exact whatever the number of
images, and a mean difference has the error of one batch's sum, which is log2(batch) roundings, 6e-5
grey levels for a difference of 100 in batches of 1,024, and that of the degradation itself.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Float64, Int32, UInt8
from PIL import Image
from tqdm import tqdm

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError, unknown
from crfr.evaluate.results import fingerprint
from crfr.model.norm import AXIS
from crfr.train.sharding import P, by_example
from crfr.views.degrade import VARIANTS, apply_degradation, check_resolutions, degrade

SCHEMA = 1
SUMMARY, ARRAYS = "dataset.json", "arrays.npz"

# (images, which of them count) -> (sum of images, sums of differences, largest differences)
Sums = Callable[
    [Array, Array],
    tuple[Int32[Array, "h w c"], Float32[Array, "s h w c"], Float32[Array, " s"]],
]


class Analysis(NamedTuple):
    """In grey levels, of 0..255, for each of s resolutions.

    mean: eq. 4.  difference: eq. 5.  largest: the largest difference of a pixel of any one image.
    """

    mean: Float32[np.ndarray, "h w c"]
    difference: Float32[np.ndarray, "s h w c"]
    largest: Float32[np.ndarray, " s"]


def add_up(images: Float32[Array, "b h w c"]) -> Float32[Array, "h w c"]:
    """The sum of images, pair by pair: one after the other, 512 of them lose the third decimal."""
    while len(images) > 1:
        half = len(images) // 2
        odd = images[2 * half :]
        images = jnp.concatenate([images[:half] + images[half : 2 * half], odd])
    return images[0]


def compile_sums(resolutions: Sequence[int], mesh: Mesh, variant: str = "bicubic") -> Sums:
    """The jitted function that adds up a batch, all resolutions (px) one after the other.

    Each device takes its share of the images; the sums are all-reduced.
    """
    sizes = np.asarray(resolutions, np.int32)

    def share(images: UInt8[Array, "b h w c"], real: Bool[Array, " b"]):
        pixels, counts = images.astype(jnp.float32), real[:, None, None, None]

        def at(resolution):
            every = jnp.broadcast_to(resolution, len(images))
            difference = jnp.abs(apply_degradation(pixels, every, variant) - pixels)
            difference = jnp.where(counts, difference, 0)
            return add_up(difference), difference.max()

        difference, largest = jax.lax.map(at, jnp.asarray(sizes))
        total = jnp.where(counts, images, 0).sum(0, dtype=jnp.int32)
        return *jax.lax.psum((total, difference), AXIS), jax.lax.pmax(largest, AXIS)

    sums = jax.shard_map(share, mesh=mesh, in_specs=(P(AXIS), P(AXIS)), out_specs=P())
    return jax.jit(sums)


def analyse_images(
    sums: Sums,
    images: UInt8[np.ndarray, "n h w c"],
    *,
    mesh: Mesh,
    batch: int,
    progress: tqdm | None = None,
) -> Analysis:
    """One pass over the images; `batch` is rounded up to a multiple of the devices."""
    added: list[Any] = []
    for total, difference, largest in _batches(sums, images, mesh, batch, progress):
        part = [total.astype(np.float64), difference.astype(np.float64), largest]
        if added:
            part = [added[0] + part[0], added[1] + part[1], np.maximum(added[2], part[2])]
        added = part
    total, difference, largest = added
    mean: Float64[np.ndarray, "h w c"] = total / len(images)
    return Analysis(mean.astype(np.float32), (difference / len(images)).astype(np.float32), largest)


def _batches(
    sums: Sums, images: np.ndarray, mesh: Mesh, batch: int, progress: tqdm | None
) -> Iterator[tuple[np.ndarray, ...]]:
    """The sums of each batch, on the host; the last one is padded and masked."""
    batch = -(-batch // mesh.size) * mesh.size
    place = by_example(mesh)
    before = None
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        real = np.arange(batch) < len(part)
        padded = np.zeros((batch, *images.shape[1:]), np.uint8)
        padded[: len(part)] = part
        found = sums(jax.device_put(padded, place), jax.device_put(real, place))
        if before is not None:  # one batch is under way while the one before it is added up
            yield tuple(map(np.asarray, before))
        before = found
        if progress is not None:
            progress.update(len(part))
    if before is not None:
        yield tuple(map(np.asarray, before))


def analyse(
    benchmarks: Sequence[Benchmark],
    resolutions: Sequence[int],
    out: Path,
    *,
    mesh: Mesh,
    batch: int,
    variant: str = "bicubic",
) -> dict[str, Any]:
    """Analyse the distinct images of benchmarks at each resolution (px); the files go to `out`.

    The pictures of differences of one call have one scale, stated in dataset.json: black is 0 and
    white the largest mean difference among them.  Every file is written whole, and dataset.json,
    which is returned, last.  InputError for a resolution outside 1..112, an unknown variant of the
    degradation, and a folder that cannot be written.
    """
    resolutions = list(dict.fromkeys(resolutions))
    if not resolutions or not benchmarks:
        raise InputError("nothing to analyse; name a benchmark and a resolution")
    check_resolutions(np.asarray(resolutions))
    if variant not in VARIANTS:
        raise unknown("degradation", variant, VARIANTS)
    for benchmark in benchmarks:
        folder = out / environment.file_name(benchmark.name)
        environment.make_folder(folder, f"--out={out}", "choose a writable folder")

    sums = compile_sums(resolutions, mesh, variant)
    images = sum(len(benchmark.images) for benchmark in benchmarks)
    with tqdm(total=images, desc="dataset", unit=" images", disable=None) as progress:
        found = [
            analyse_images(sums, each.images, mesh=mesh, batch=batch, progress=progress)
            for each in benchmarks
        ]
    white = max(float(analysis.difference.max()) for analysis in found)
    (out / SUMMARY).unlink(missing_ok=True)  # what it says of the pictures is true no longer
    for benchmark, analysis in zip(benchmarks, found, strict=True):
        folder = out / environment.file_name(benchmark.name)
        _write(folder, benchmark, resolutions, analysis, white, variant)
    summary = {
        "schema": SCHEMA,
        "degradation": variant,
        "resolutions": resolutions,
        "difference_scale": {"black": 0.0, "white": white},
        "benchmarks": {
            benchmark.name: _figures(benchmark, resolutions, analysis)
            for benchmark, analysis in zip(benchmarks, found, strict=True)
        },
        "command": environment.command(),
        "commit": environment.commit(),
        "versions": environment.versions(),
    }
    environment.write_json(out / SUMMARY, summary)
    return summary


def _figures(
    benchmark: Benchmark, resolutions: Sequence[int], analysis: Analysis
) -> dict[str, Any]:
    def by_resolution(values: np.ndarray) -> dict[str, float]:
        return {str(r): float(v) for r, v in zip(resolutions, values, strict=True)}

    pixels = analysis.difference.astype(np.float64).reshape(len(resolutions), -1)
    return {
        "images": len(benchmark.images),
        "fingerprint": fingerprint(benchmark),
        "mean_absolute_difference": by_resolution(pixels.mean(1)),
        "max_difference": by_resolution(pixels.max(1)),
        "largest_difference": by_resolution(analysis.largest),
    }


def _write(
    folder: Path,
    benchmark: Benchmark,
    resolutions: Sequence[int],
    analysis: Analysis,
    white: float,
    variant: str,
) -> None:
    """The pictures and arrays of one benchmark; its first image is the sample."""
    pictures = {"mean": analysis.mean, "sample": benchmark.images[0]}
    arrays: dict[str, Any] = {"mean": analysis.mean}
    for resolution, difference in zip(resolutions, analysis.difference, strict=True):
        pictures[f"difference-{resolution}"] = difference * (255 / white if white else 0)
        degraded = degrade(benchmark.images[:1], resolution, variant=variant)
        pictures[f"sample-{resolution}"] = np.asarray(degraded[0])
        arrays[f"difference_{resolution}"] = difference
    for name, pixels in pictures.items():
        content = io.BytesIO()
        rounded = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
        Image.fromarray(rounded).save(content, "PNG")
        environment.write_atomically(folder / f"{name}.png", content.getvalue())
    content = io.BytesIO()
    np.savez(content, **arrays)
    environment.write_atomically(folder / ARRAYS, content.getvalue())
    for stale in [*folder.glob("difference-*.png"), *folder.glob("sample-*.png")]:
        if stale.stem not in pictures:  # of an earlier call, on a scale that is stated no longer
            stale.unlink()
