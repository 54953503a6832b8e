"""`crfr bench step`: speed of a config's training step, on random images already on the device."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from crfr import environment
from crfr.commands import compile_training
from crfr.recipe import Config, check_config
from crfr.train import sharding
from crfr.views.augment import Augmentation, draw, make_views
from crfr.views.degrade import SIDE
from crfr.views.methods import draw_resolutions, parse_method


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """(median, max - min) in seconds of `repeats` calls that return device arrays."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), max(seconds) - min(seconds)


class Step(NamedTuple):
    """A compiled update and what it works on, all on the devices."""

    call: Callable[[], Any]  # does one update, and returns its scalars
    compiled: Any
    compile_seconds: float
    state_bytes: int  # of parameters, statistics and the optimizer's state
    images: Array
    constants: tuple[Array, Array]


def prepare_step(config: Config, classes: int, mesh: Mesh) -> Step:
    """The compiled update of a config, on a batch of random images (noise costs what faces cost);
    it has been called once, which also loads the program.
    """
    init, _, update, constants = compile_training(
        config, classes, lambda _: config.schedule.learning_rate, mesh
    )
    state = init()
    rng = np.random.default_rng(config.seed)
    images = rng.integers(0, 256, (config.batch, SIDE, SIDE, 3), np.uint8)
    label = rng.integers(0, classes, config.batch).astype(np.int32)
    images, label = jax.device_put((images, label), sharding.by_example(mesh))
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    started = time.perf_counter()
    compiled = update.lower(state, images, label, *constants).compile()
    compile_seconds = time.perf_counter() - started

    def call() -> Any:
        nonlocal state
        state, scalars = compiled(state, images, label, *constants)
        return scalars

    jax.block_until_ready(call())
    return Step(call, compiled, compile_seconds, state_bytes, images, constants)


def bench_step(config: Config, classes: int, repeats: int, out: Path | None) -> dict[str, Any]:
    """Time the compiled update of a config, and its views (degradation and augmentation) alone.

    Prints a table; writes JSON where asked.
    """
    check_config(config)
    mesh = sharding.make_mesh()
    step = prepare_step(config, classes, mesh)
    median, spread = timed(step.call, repeats)

    method, augmentation = parse_method(config.method), Augmentation(**config.augment)

    @jax.jit
    def views(images: Any, key: Any, matrices: Any) -> Any:
        which = draw_resolutions(method, key, config.batch)
        return make_views(images, which, draw(augmentation, key, config.batch), matrices)

    jax.block_until_ready(views(step.images, *step.constants))
    views_median, views_spread = timed(lambda: views(step.images, *step.constants), repeats)
    memory = step.compiled.memory_analysis()
    figures = {
        "config": {"method": config.method, "model": config.model.name, "batch": config.batch},
        "classes": classes,
        "repeats": repeats,
        "images_per_second": round(config.batch / median, 2),
        "step_ms": round(1e3 * median, 3),
        "step_ms_spread": round(1e3 * spread, 3),
        "views_ms": round(1e3 * views_median, 3),
        "views_ms_spread": round(1e3 * views_spread, 3),
        "views_share": round(views_median / median, 5),
        "compile_seconds": round(step.compile_seconds, 2),
        "gflop_per_device": round(step.compiled.cost_analysis()["flops"] / 1e9, 3),
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20, 1) if memory else None,
        "devices": {"count": mesh.size, "kind": jax.devices()[0].device_kind},
        **environment.made_with(),
    }
    for name, value in figures.items():
        print(f"{name:<18} {value}")
    if out is not None:
        environment.write_json(out, figures)
    return json.loads(json.dumps(figures))
