"""`crfr bench sweep`: the sweep against the way of the peers' scripts, in one run.

After embedding: the functions of the sweep on made-up embeddings of LFW's size, against the grid
loops of the peers on the same embeddings.  End to end: a sweep of a network with random weights
against embedding both images of every pair anew for each evaluation, as the scripts do.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crfr import environment
from crfr.bench import peers
from crfr.data.benchmarks import Benchmark, load_benchmark
from crfr.evaluate import store
from crfr.evaluate.embed import embed_work, make_embed
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.protocols import FULL, draw_protocols
from crfr.evaluate.sweep import measure_benchmark, sweep
from crfr.model import resnet
from crfr.train import sharding


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


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
    images: int, pairs: int, width: int, resolutions: list[int], matrix: bool, evaluations: int
) -> dict[str, Any]:
    """Seconds for everything after the embedding pass, ours and the peers'.

    The peers' loops are timed on `evaluations` of the 3 a resolution (CR_A, CR_B, ER), spread over
    the resolutions, and scaled to all of them.
    """
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        benchmark, kept = made_up(Path(folder) / "kept", images, pairs, width, resolutions)
        protocols = draw_protocols(benchmark, 1, 0)
        common = {"benchmark": benchmark.name, "average_of": None}

        def ours(name: str, scenarios: list[str], modes: list[str], drawn: list) -> None:
            seconds, _ = timed(
                lambda: measure_benchmark(
                    benchmark,
                    common,
                    kept,
                    resolutions,
                    Path(folder) / "out",
                    scenarios=scenarios,
                    protocols=drawn,
                    thresholds=modes,
                )
            )
            figures[f"{name}_seconds"] = round(seconds, 2)
            print(f"{name:<44} {seconds:>9.2f} s", flush=True)

        if set(range(5, FULL + 1)) <= set(resolutions):  # all that the protocols draw from
            ours("cr_er_protocols", ["CR", "ER"], ["exact"], protocols)
        ours("cr_er_alone", ["CR", "ER"], ["exact"], [])
        ours("cr_er_alone_insightface_grid", ["CR", "ER"], ["insightface"], [])
        if matrix:
            ours("matrix", ["matrix"], ["exact"], [])

        # ru_maxrss is in KiB on Linux, in bytes on macOS
        unit = 2**20 if sys.platform == "darwin" else 2**10
        figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
        figures["evaluations"] = 3 * len(resolutions)
        figures["peer_evaluations"] = evaluations
        places = np.linspace(0, len(resolutions) - 1, evaluations).astype(int)
        for peer in (peers.insightface, peers.knoche):
            seconds = 0.0
            for number, place in enumerate(places):
                low, full = kept[resolutions[place]], kept[FULL]
                a = (low, full, low)[number % 3]
                b = (full, low, low)[number % 3]
                first, second = a[benchmark.pairs[:, 0]], b[benchmark.pairs[:, 1]]
                seconds += timed(partial(peer, first, second, benchmark.same))[0]
            each = seconds / evaluations
            ratio = each * 3 * len(resolutions) / figures["cr_er_alone_seconds"]
            figures |= {
                f"{peer.__name__}_seconds_an_evaluation": round(each, 4),
                f"{peer.__name__}_ratio": round(ratio, 1),
            }
            print(f"{peer.__name__:<32} {each:.3f} s an evaluation: {ratio:.0f} times ours")
    return figures


def end_to_end(spec: str, model: str, width: int, resolutions: list[int], batch: int) -> dict:
    """Seconds of a whole sweep (CR, ER) and of the scripts' way, with one network."""
    benchmark, mesh = load_benchmark(spec), sharding.make_mesh()
    network = resnet.build(model, width=width)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    encoder = Encoder(model, None, "random", network, variables, "random")
    embed = make_embed(encoder, mesh)

    def slots(side: np.ndarray, resolution: int) -> np.ndarray:
        sizes = np.full(len(side), resolution)
        parts = embed_work(embed, benchmark.images, side, sizes, mesh=mesh, batch=batch)
        return np.concatenate([found for _, found in parts])

    slots(benchmark.pairs[:1, 0], FULL)  # compiled before either is timed
    first, second = benchmark.pairs[:, 0], benchmark.pairs[:, 1]

    def scripts() -> None:
        for low in resolutions:
            for a, b in ((low, FULL), (FULL, low), (low, low)):
                peers.insightface(slots(first, a), slots(second, b), benchmark.same)

    with tempfile.TemporaryDirectory() as folder:
        ours, _ = timed(
            lambda: sweep(encoder, [benchmark], resolutions, Path(folder), mesh=mesh, batch=batch)
        )
    theirs, _ = timed(scripts)
    print(f"end to end: {ours:.1f} s, the scripts' way {theirs:.1f} s: {theirs / ours:.1f} times")
    return {
        "end_to_end_encoder": f"{model}, width {width}",
        "end_to_end_benchmark": spec,
        "end_to_end_images": len(benchmark.images),
        "end_to_end_slots": 2 * len(benchmark.pairs),
        "end_to_end_resolutions": resolutions,
        "end_to_end_seconds": round(ours, 2),
        "end_to_end_scripts_seconds": round(theirs, 2),
        "end_to_end_ratio": round(theirs / ours, 2),
    }


def bench_sweep(
    *,
    images: int,
    pairs: int,
    width: int,
    resolutions: list[int],
    matrix: bool,
    evaluations: int,
    benchmark: str,
    swept: list[int],
    out: Path | None,
) -> dict[str, Any]:
    """Time both; prints as it goes, writes JSON where asked."""
    resolutions = sorted({*resolutions, FULL}, reverse=True)
    figures = {"images": images, "pairs": pairs, "embedding": width, "resolutions": resolutions}
    figures |= after_embedding(images, pairs, width, resolutions, matrix, evaluations)
    if benchmark:
        figures |= end_to_end(benchmark, "tiny", 8, swept, 256)
    figures |= {
        "devices": {"count": jax.device_count(), "kind": jax.devices()[0].device_kind},
        "versions": environment.versions(),
        "commit": environment.commit(),
        "command": environment.command(),
    }
    if out is not None:
        environment.write_json(out, figures)
    return figures
