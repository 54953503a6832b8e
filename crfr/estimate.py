"""How long `crfr reproduce` will take: a short measurement of what its runs still have to do."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from crfr.bench.input import measure
from crfr.bench.step import prepare_step
from crfr.bench.timing import timed
from crfr.data.batches import train_batches
from crfr.data.benchmarks import Benchmark
from crfr.data.records import Source
from crfr.evaluate.embed import compile_embed
from crfr.evaluate.protocols import FULL, Protocol, needed
from crfr.networks import build_for_evaluation
from crfr.planning import SPECIFIC, Run
from crfr.recipe import Config
from crfr.train import sharding
from crfr.views.degrade import SIDE
from crfr.views.methods import parse_method
from crfr.workdir import latest_step

READ_SECONDS = 2.0  # of reading training images


class Kind(NamedTuple):
    """What was measured of the trainings that cost the same."""

    methods: list[str]
    views: int  # an image
    step_seconds: float
    read_seconds: float  # a batch
    compile_seconds: float
    checkpoint_bytes: int


class Embedding(NamedTuple):
    """What was measured of a network in a sweep."""

    image_seconds: float
    compile_seconds: float


class Work(NamedTuple):
    """The seconds and bytes that a run still takes."""

    training: float
    sweep: float
    epoch: float  # seconds; with verification
    room: float  # bytes, of checkpoints and embeddings


def views_of(config: Config) -> int:
    return len(parse_method(config.method).views)


def cost_key(config: Config) -> str:
    """Configs with the same key take the same time for a step."""
    values = json.loads(config.to_json())
    parts = ("batch", "model", "margin", "softmax", "augment", "optimizer")
    return json.dumps([views_of(config), *(values[name] for name in parts)])


def embedding_key(config: Config) -> str:
    """Configs with the same key take the same time for an embedding."""
    return f"{config.run.eval_batch} {config.model.to_json()}"


def repeated(call: Callable[[], Any]) -> float:
    """Seconds of a call: the median of five, or where it takes a second and more, of one."""
    first, _ = timed(call, 1)
    return first if first > 1 else timed(call, 5)[0]


def measure_kind(config: Config, methods: list[str], source: Source, mesh: Mesh) -> Kind:
    """Time the compiled update of a config, and the reading of its batches."""
    run = config.run
    stream = train_batches(
        source,
        batch=config.batch,
        seed=config.seed,
        threads=run.threads,
        workers=run.workers,
        skip_unreadable=run.skip_unreadable,
    )
    images_per_second, *_ = measure(stream, config.batch, READ_SECONDS)
    del stream
    step = prepare_step(config, source.classes, mesh)
    return Kind(
        methods,
        views_of(config),
        repeated(step.call),
        config.batch / images_per_second,
        step.compile_seconds,
        step.state_bytes,
    )


def measure_embedding(config: Config, mesh: Mesh) -> Embedding:
    """Time the network of a config, its BatchNorms folded as in a sweep, with random weights."""
    network = build_for_evaluation(config.to_dict()).clone(folded=True)
    batch = -(-config.run.eval_batch // mesh.size) * mesh.size
    init = jax.jit(network.init, out_shardings=sharding.replicated(mesh))
    variables = init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    pixels = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8)
    work = jax.device_put((pixels, np.full(batch, FULL, np.int32)), sharding.by_example(mesh))
    embed = compile_embed(network, mesh)
    started = time.perf_counter()
    jax.block_until_ready(embed(variables, *work))
    compile_seconds = time.perf_counter() - started
    return Embedding(repeated(lambda: embed(variables, *work)) / batch, compile_seconds)


def measure_all(
    runs: Sequence[Run],
    untrained: Sequence[Run],
    source: Source,
    verified: int,
    sweep: tuple[int, int],
) -> tuple[dict[str, Kind], dict[str, Embedding], dict[Run, Work]]:
    """(what is measured of each kind of training, of each network, by the keys of their configs;
    what each of the `runs` still takes).

    `untrained`: those of the runs that are to be trained.  `verified`: images of the benchmark that
    they are verified on.  `sweep`: of `sweep_work`.
    """
    mesh = sharding.make_mesh()
    kinds, embeddings = {}, {}
    for run in untrained:
        key = cost_key(run.config)
        if key not in kinds:
            alike = dict.fromkeys(r.method for r in untrained if cost_key(r.config) == key)
            print(f"measuring {run.method}", flush=True)
            kinds[key] = measure_kind(run.config, list(alike), source, mesh)
    for run in runs:
        key = embedding_key(run.config)
        if key not in embeddings:
            print("measuring embeddings", flush=True)
            embeddings[key] = measure_embedding(run.config, mesh)
    works = {}
    for run in runs:
        kind = kinds[cost_key(run.config)] if run in untrained else None
        embedding = embeddings[embedding_key(run.config)]
        works[run] = work_of(run, kind, embedding, len(source), verified, sweep)
    return kinds, embeddings, works


def sweep_work(
    benchmarks: Sequence[Benchmark],
    scenarios: Sequence[str],
    resolutions: Sequence[int],
    protocols: dict[str, list[Protocol]],
) -> tuple[int, int]:
    """(embeddings that a sweep makes, embeddings that its files have room for)."""
    made = room = 0
    for benchmark in benchmarks:
        masks = needed(benchmark, scenarios, resolutions, protocols.get(benchmark.name, []))
        made += sum(int(mask.sum()) for mask in masks.values())
        room += len(masks) * len(benchmark.images)
    return made, room


def work_of(
    run: Run,
    kind: Kind | None,
    embedding: Embedding,
    images: int,
    verified: int,
    sweep: tuple[int, int],
) -> Work:
    """What a run still takes: `kind` is None for one that is trained, `images` are the training
    set's, `verified` and `sweep` as in `measure_all`.
    """
    config, (made, room) = run.config, sweep
    swept = made * embedding.image_seconds + embedding.compile_seconds
    space = 4.0 * room * config.model.embedding
    if kind is None:
        return Work(0.0, swept, 0.0, space)
    epoch = max(kind.step_seconds, kind.read_seconds) * images / config.batch
    if config.run.verify_every and config.run.benchmark:
        epoch += verified * embedding.image_seconds / config.run.verify_every
    left = (run.steps - latest_step(run.workdir)) * config.batch / images  # epochs
    for_ever = config.epochs / config.run.keep_every if config.run.keep_every else 0
    kept = config.run.keep + config.run.keep_best + int(for_ever)
    space += kept * kind.checkpoint_bytes
    return Work(left * epoch + kind.compile_seconds, swept, epoch, space)


def short(methods: Sequence[str]) -> str:
    """Methods in a few words.

    >>> short(["baseline", "bt-5", "bt-6", "bt-m", "st-7"])
    'baseline, bt-r (2), bt-m, st-7'
    """
    groups: dict[str, list[str]] = {}
    for method in methods:
        name = f"{method[:2]}-r" if SPECIFIC.fullmatch(method) else method
        groups.setdefault(name, []).append(method)
    return ", ".join(f"{name} ({len(g)})" if len(g) > 1 else g[0] for name, g in groups.items())


def table(kinds: dict[str, Kind], works: dict[Run, Work]) -> str:
    """The measurement and what follows from it, a line a kind of training."""
    heads = ("views", "runs left", "ms a step", "ms to read", "hours an epoch", "hours in all")
    names = [short(kind.methods) for kind in kinds.values()]
    wide = max(map(len, [*names, "in all"]))
    lines = [f"{'':{wide}}  {'  '.join(heads)}"]

    def add(name: str, *values: float | str) -> None:
        cells = [v if isinstance(v, str) else f"{v:.3g}" for v in values]
        padded = (f"{cell:>{len(head)}}" for cell, head in zip(cells, heads, strict=True))
        lines.append(f"{name:{wide}}  {'  '.join(padded)}")

    for (key, kind), name in zip(kinds.items(), names, strict=True):
        mine = [w for run, w in works.items() if w.training and cost_key(run.config) == key]
        step, read = 1e3 * kind.step_seconds, 1e3 * kind.read_seconds
        hours = mine[0].epoch / 3600, sum(work.training for work in mine) / 3600
        add(name, str(kind.views), str(len(mine)), step, read, *hours)
    swept = sum(work.sweep for work in works.values())
    add("sweeps", "", str(len(works)), "", "", "", swept / 3600)
    add("in all", "", "", "", "", "", (swept + sum(w.training for w in works.values())) / 3600)
    return "\n".join(lines)
