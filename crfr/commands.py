"""One function a command.  Only these read a config; what they call gets plain arguments."""

import contextlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array

from crfr import agreement, environment
from crfr.data.batches import sample_digest, train_batches
from crfr.data.benchmarks import Benchmark, load_benchmark
from crfr.data.records import Source, open_source
from crfr.errors import InputError
from crfr.measure import make_verify
from crfr.model.branches import group_span
from crfr.model.margin import check_margin
from crfr.networks import build, build_for_evaluation
from crfr.recipe import Config, check_config, defaults
from crfr.starting import find_weights, start_from
from crfr.train import loop, schedule, sharding
from crfr.train.checkpoint import Checkpoints
from crfr.train.finite import FiniteCheck
from crfr.train.log import Log
from crfr.train.retention import kept
from crfr.train.state import State, init_state
from crfr.train.step import Settings, Update, compile_update
from crfr.train.tracing import Trace, steps_to_trace
from crfr.train.watchdog import Watchdog
from crfr.views.augment import Augmentation
from crfr.views.methods import parse_method
from crfr.workdir import (
    check_own_checkpoints,
    check_same_data,
    checkpoint_folder,
    flat,
    latest_step,
    open_workdir,
    record_start,
    see_config,
)


def make_rate(config: Config, images: int) -> tuple[optax.Schedule, int]:
    """(the learning rate of each update, the number of updates) for a training set of `images`."""
    steps = partial(schedule.steps_of, images=images, batch=config.batch)
    total = steps(config.epochs)
    s = config.schedule
    drops = tuple(steps(epoch) for epoch in s.drops)
    warmup = steps(s.warmup_epochs) if s.warmup_epochs else 0
    return schedule.learning_rate(s.kind, s.learning_rate, drops, s.factor, warmup, total), total


def plan_training(
    config: Config, classes: int, rate: optax.Schedule, mesh: Mesh | AbstractMesh, tx: Any = None
) -> tuple[Callable[[], State], State, Settings, Array]:
    """(makes the first state, its shapes, the settings of the update, the run's key) of a config;
    the mesh may be of devices that are not there.

    `tx`: an optax transformation instead of the config's optimizer.
    """
    method = parse_method(config.method)
    span = group_span(config.batch, config.model.bn_group, mesh.size)
    network, configured = build(config, span, rate)
    tx = configured if tx is None else tx
    first_key, run_key = jax.random.split(jax.random.key(config.seed))
    weight = config.distance_weight
    init = partial(init_state, network, classes, tx, first_key, mesh.size)
    settings = Settings(
        mesh=mesh,
        method=method,
        augmentation=Augmentation(**config.augment),
        network=network,
        margin=dict(config.margin),
        distance_weight=method.distance_weight if weight is None else weight,
        classes=classes,
        sample=config.softmax.sample,
        chunk=config.softmax.chunk,
        bn_group=config.model.bn_group,
        bn_frozen=config.model.bn_frozen,
        rates=config.optimizer.rates.to_dict(),
        rate=rate,
        tx=tx,
        on_nan=config.run.on_nan,
    )
    return init, jax.eval_shape(init), settings, run_key


def compile_training(
    config: Config, classes: int, rate: optax.Schedule, mesh: Mesh, tx: Any = None
) -> tuple[Callable[[], State], State, Update, tuple[Array, Array]]:
    """(makes the first state, its shapes, compiled update, the update's constants) of a config;
    `tx` as in `plan_training`.
    """
    init, shapes, settings, key = plan_training(config, classes, rate, mesh, tx)
    update, constants = compile_update(shapes, settings, key)
    place = sharding.state_sharding(shapes, mesh)
    return jax.jit(init, out_shardings=place), shapes, update, constants


def find_start(config: Config) -> tuple[Any, list[str]]:
    """The weights that a config starts from, as `find_weights` gives them."""
    network = build_for_evaluation(config.to_dict())
    return find_weights(config.init.weights, network, bn_frozen=config.model.bn_frozen)


def train(
    config: Config,
    workdir: Path,
    *,
    source: Source | None = None,
    benchmark: Benchmark | None = None,
    trace: int = 0,
) -> int:
    """Train, or go on with, the run of a config in a work directory; returns its last step.

    The order: check the config, open the data, open the work directory, restore its latest
    checkpoint or start afresh, train, save.  `source` and `benchmark` are used instead of the
    config's specs where they are open already; `trace` steps are profiled, into WORKDIR/traces.
    Raises InputError for anything the user can mend.
    """
    mesh = sharding.make_mesh()
    environment.keep_programs()

    def prepare() -> tuple[Source, Benchmark | None]:
        check_config(config)
        check_margin(config.margin.name, config.margin.gradient)
        Augmentation(**config.augment)
        build(config, group_span(config.batch, config.model.bn_group, mesh.size), lambda _: 0.0)
        data = source or open_source(config.data)
        if data.classes < 2:
            raise InputError(f"{config.data}: {data.classes} identities; training needs 2 or more")
        make_rate(config, len(data))
        spec = config.run.benchmark
        if config.run.keep_best and not (benchmark or spec):
            raise InputError(
                f"--config.run.keep_best={config.run.keep_best}: nothing tells which are the best; "
                "give --config.run.benchmark"
            )
        if config.init.weights and not latest_step(workdir):
            find_start(config)  # what is refused leaves no folder behind
        return data, benchmark or (load_benchmark(spec) if spec else None)

    source, benchmark = agreement.together(prepare)
    values = json.loads(config.to_json())
    if jax.process_count() > 1:
        data = sample_digest(source, config.run.skip_unreadable)
        made = environment.versions() | {"commit": environment.commit(), "data": data}
        agreement.require_same(flat(values, "config.") | made | {"--trace": str(trace)})
    with contextlib.ExitStack() as opened:
        agreement.on_leader(lambda: opened.enter_context(open_workdir(workdir, values, defaults())))
        agreement.together(lambda: see_config(workdir, values))
        return _train(config, workdir, source, benchmark, mesh, trace)


def _train(
    config: Config,
    workdir: Path,
    source: Source,
    benchmark: Benchmark | None,
    mesh: Mesh,
    trace: int,
) -> int:
    """`train` in a work directory that is open."""
    run, (rate, total) = config.run, make_rate(config, len(source))
    init, shapes, update, constants = compile_training(config, source.classes, rate, mesh)
    folder, epoch = checkpoint_folder(workdir, {"run": run}), len(source) / config.batch  # in steps
    keep = partial(kept, latest=run.keep, every=run.keep_every * epoch, best=run.keep_best)
    with Checkpoints(folder, keep) as checkpoints:
        agreement.on_leader(lambda: check_own_checkpoints(workdir, folder, checkpoints.steps()))
        start, weights = checkpoints.choose(), None
        trace = agreement.together(lambda: steps_to_trace(trace, start, total))
        if start >= total:
            print(f"{workdir}: finished at step {start}")
            return start
        size = {"classes": source.classes, "images": len(source)}
        if start:
            agreement.on_leader(lambda: check_same_data(workdir, **size))
            place = sharding.state_sharding(shapes, mesh)
            state = checkpoints.restore(start, shapes, place, source.classes)
            print(f"{workdir}: goes on from step {start} of {total}")
        else:
            state = init()
            if config.init.weights:
                state, weights = start_from(config.init.weights, find_start(config), state)
        kind = jax.devices()[0].device_kind
        facts = {
            "step": start,
            "weights": weights,
            "devices": {"count": mesh.size, "kind": kind},
            "processes": jax.process_count(),
            **size,
        }
        agreement.on_leader(lambda: record_start(workdir, **facts))
        print(
            f"{config.method}: {config.model.name}, {len(source):,} images of {source.classes:,} "
            f"identities, {total} steps of {config.batch} on {mesh.size} x {kind}"
            + (f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""),
            flush=True,
        )
        stream = train_batches(
            source,
            batch=config.batch,
            seed=config.seed,
            start=start,
            process=jax.process_index(),
            processes=jax.process_count(),
            threads=run.threads,
            workers=run.workers,
            skip_unreadable=run.skip_unreadable,
        )
        verify = None
        if benchmark is not None:
            network = build_for_evaluation(config.to_dict())
            verify = make_verify(network, benchmark, mesh, run.eval_batch)
        log = Log(workdir, start, tensorboard=run.tensorboard, writes=agreement.leader())
        with log, Watchdog(run.hang_after) as watchdog:
            loop.train(
                state,
                update,
                constants,
                stream,
                mesh=mesh,
                start=start,
                total=total,
                batch=config.batch,
                images=len(source),
                log_every=run.log_every,
                save_every=run.save_every * epoch,
                verify_every=run.verify_every * epoch,
                checkpoints=checkpoints,
                log=log,
                verify=verify,
                check=FiniteCheck(run.on_nan, start, log.skipped),
                watchdog=watchdog,
                trace=Trace(trace, workdir / "traces", start),
            )
    return total
