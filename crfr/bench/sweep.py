"""`crfr bench sweep`: the sweep against the way of the peers' scripts, in one run.

After embedding: the functions of the sweep on made-up embeddings of LFW's size, against the grid
loops of the peers on the same embeddings.  End to end: a sweep of a network with random weights,
its embedding alone, and embedding both images of every pair anew for each evaluation, as the
scripts do.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crfr.bench import peers
from crfr.bench.timing import keep, spread
from crfr.data.benchmarks import Benchmark, load_benchmark
from crfr.errors import unknown
from crfr.evaluate import store
from crfr.evaluate.distances import matrix_distances
from crfr.evaluate.embed import PRECISIONS, embed_work, make_embed
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.matrix import resolution_matrix
from crfr.evaluate.protocols import FULL, Protocol, draw_protocols
from crfr.evaluate.scores import resample
from crfr.evaluate.sweep import measure_benchmark, sweep
from crfr.model import resnet
from crfr.train import sharding
from crfr.views.degrade import check_resolutions


def seconds_of(call: Callable[[], Any]) -> float:
    """Of a call whose result is on the host when it returns."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def made_up(
    folder: Path, images: int, pairs: int, width: int, resolutions: list[int]
) -> tuple[Benchmark, dict[int, np.ndarray]]:
    """A benchmark without pixels and embeddings that get worse as the resolution falls, mapped
    from files as a sweep has them.
    """
    rng = np.random.default_rng(0)
    people = images // 2
    centres = rng.standard_normal((people, width), np.float32)
    owner = rng.integers(0, people, images)
    same = np.arange(pairs) % 2 == 0
    first = rng.integers(0, images, pairs)
    mates = np.argsort(owner, kind="stable")[np.searchsorted(np.sort(owner), owner[first])]
    second = np.where(same, mates, rng.integers(0, images, pairs))
    couples = np.stack([first, second], axis=1).astype(np.int32)
    embeddings = {}
    for resolution in resolutions:
        noise = rng.standard_normal((images, width), np.float32) * (0.7 + 12 / resolution)
        values = centres[owner] + noise
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        store.add(folder, resolution, images, np.arange(images), values)
        kept = store.load(folder, resolution, images)
        assert kept is not None
        embeddings[resolution] = kept
    benchmark = Benchmark("made-up", np.zeros((images, 1, 1, 3), np.uint8), couples, same)
    return benchmark, embeddings


def after_embedding(
    images: int, pairs: int, width: int, resolutions: list[int], matrix: bool, repeats: int
) -> dict[str, Any]:
    """Seconds for everything after the embedding pass, ours and the peers', in turn.

    An evaluation is one of CR_A, CR_B and ER at one resolution.  Ours makes all of them in each
    repeat, the peers' loops one of each kind at a resolution of its own; of both the median counts,
    and theirs is scaled to all.
    """
    figures: dict[str, Any] = {"repeats": repeats, "evaluations": 3 * len(resolutions)}
    times: dict[str, list[float]] = {}

    def take(name: str, call: Callable[[], Any]) -> None:
        times.setdefault(name, []).append(seconds_of(call))

    with tempfile.TemporaryDirectory() as folder:
        benchmark, kept = made_up(Path(folder) / "kept", images, pairs, width, resolutions)
        protocols = draw_protocols(benchmark, 1, 0)
        common = {"benchmark": benchmark.name, "average_of": None}

        def ours(mode: str = "exact", drawn: Sequence[Protocol] = ()) -> Callable[[], Any]:
            return lambda: measure_benchmark(
                benchmark,
                common,
                kept,
                resolutions,
                Path(folder) / "out",
                scenarios=["CR", "ER"],
                protocols=list(drawn),
                thresholds=[mode],
            )

        for repeat in range(repeats):
            if set(range(5, FULL + 1)) <= set(resolutions):  # all that the protocols draw from
                take("cr_er_protocols", ours(drawn=protocols))
            take("cr_er", ours())
            take("cr_er_insightface_grid", ours("insightface"))
            place = repeat * (len(resolutions) - 1) // max(repeats - 1, 1)
            low, full = kept[resolutions[place]], kept[FULL]
            for a, b in ((low, full), (full, low), (low, low)):
                first, second = a[benchmark.pairs[:, 0]], b[benchmark.pairs[:, 1]]
                for peer in (peers.insightface, peers.knoche):
                    take(peer.__name__, partial(peer, first, second, benchmark.same))
        # ru_maxrss is in KiB on Linux, in bytes on macOS
        unit = 2**20 if sys.platform == "darwin" else 2**10
        figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
        if matrix:
            weights = resample(benchmark.name, pairs)
            take(
                "matrix",
                lambda: resolution_matrix(
                    matrix_distances(kept, resolutions, benchmark.pairs),
                    resolutions,
                    benchmark.same,
                    "exact",
                    weights,
                    {},
                ),
            )
    for name, seconds in times.items():
        figures[f"{name}_seconds"] = [round(s, 4) for s in seconds]
        print(f"{name:<24} {statistics.median(seconds):9.3f} s of {len(seconds)}", flush=True)
    for peer in ("insightface", "knoche"):
        theirs = statistics.median(times[peer]) * figures["evaluations"]
        figures[f"{peer}_ratio"] = round(theirs / statistics.median(times["cr_er"]), 1)
        print(f"{peer}'s loops, scaled: {theirs:.1f} s, {figures[f'{peer}_ratio']:.0f} times cr_er")
    return figures


def end_to_end(
    spec: str,
    model: str,
    precision: str,
    resolutions: list[int],
    batch: int,
    repeats: int,
    scripts: bool,
) -> dict[str, Any]:
    """Seconds of a whole sweep (CR, ER), of its embedding alone, in turn, and, where asked, of the
    scripts' way, once, with one network that is compiled before any.
    """
    benchmark, mesh = load_benchmark(spec), sharding.make_mesh()
    network = resnet.build(model)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    network = network.clone(dtype=jnp.dtype(precision))
    batch = min(batch, len(benchmark.images))
    encoder = Encoder(model, None, "random", network, variables, "random", precision)
    embed = make_embed(encoder, mesh)

    def slots(side: np.ndarray, resolution: int) -> np.ndarray:
        sizes = np.full(len(side), resolution)
        parts = embed_work(embed, benchmark.images, side, sizes, mesh=mesh, batch=batch)
        return np.concatenate([found for _, found in parts])

    first, second = benchmark.pairs[:, 0], benchmark.pairs[:, 1]

    def embedding() -> None:
        """As a sweep embeds: all resolutions in one go."""
        every = sorted({*resolutions, FULL})
        which = np.tile(np.arange(len(benchmark.images)), len(every))
        sizes = np.repeat(every, len(benchmark.images))
        for _ in embed_work(embed, benchmark.images, which, sizes, mesh=mesh, batch=batch):
            pass

    def theirs() -> None:
        for low in resolutions:
            for a, b in ((low, FULL), (FULL, low), (low, low)):
                peers.insightface(slots(first, a), slots(second, b), benchmark.same)

    def ours(swept: list[int]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            out, settings = Path(folder), {"mesh": mesh, "batch": batch, "embed": embed}
            return seconds_of(lambda: sweep(encoder, [benchmark], swept, out, **settings))

    ours(resolutions[:1])  # compiles all that is needed
    swept, embedded = zip(
        *((ours(resolutions), seconds_of(embedding)) for _ in range(repeats)), strict=True
    )
    (seconds, around), (alone, around_alone) = spread(list(swept)), spread(list(embedded))
    print(f"end to end: {seconds:.1f} +- {around:.1f} s; ", end="")
    print(f"embedding alone {alone:.1f} +- {around_alone:.1f} s")
    figures = {
        "end_to_end_encoder": f"{model}, {precision}",
        "end_to_end_benchmark": spec,
        "end_to_end_images": len(benchmark.images),
        "end_to_end_slots": 2 * len(benchmark.pairs),
        "end_to_end_resolutions": resolutions,
        "end_to_end_batch": batch,
        "end_to_end_repeats": repeats,
        "end_to_end_seconds": round(seconds, 2),
        "end_to_end_seconds_spread": round(around, 2),
        "end_to_end_embedding_seconds": round(alone, 2),
        "end_to_end_embedding_seconds_spread": round(around_alone, 2),
    }
    if scripts:
        spent = seconds_of(theirs)
        print(f"the scripts' way {spent:.1f} s: {spent / seconds:.1f} times")
        figures["end_to_end_scripts_seconds"] = round(spent, 2)
        figures["end_to_end_ratio"] = round(spent / seconds, 2)
    return figures


def bench_sweep(
    *,
    images: int,
    pairs: int,
    width: int,
    resolutions: list[int],
    matrix: bool,
    repeats: int,
    benchmark: str,
    swept: list[int],
    network: str,
    precision: str,
    batch: int,
    scripts: bool,
    out: Path | None,
) -> dict[str, Any]:
    """Time both; prints as it goes, writes JSON where asked."""
    check_resolutions(np.array([*resolutions, *swept]))
    if network not in resnet.ARCHITECTURES:
        raise unknown("--network", network, resnet.ARCHITECTURES)
    if precision not in PRECISIONS:
        raise unknown("--precision", precision, PRECISIONS)
    resolutions = sorted({*resolutions, FULL}, reverse=True)
    figures: dict[str, Any] = {"images": images, "pairs": pairs}
    figures |= {"embedding": width, "resolutions": resolutions}
    figures |= after_embedding(images, pairs, width, resolutions, matrix, repeats)
    if benchmark:
        figures |= end_to_end(benchmark, network, precision, swept, batch, repeats, scripts)
    figures["devices"] = {"count": jax.device_count(), "kind": jax.devices()[0].device_kind}
    return keep("sweep", figures, out)
