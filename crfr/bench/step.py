"""`crfr bench step`: speed of a config's training step, on random images already on the device."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

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


def bench_step(config: Config, classes: int, repeats: int, out: Path | None) -> dict[str, Any]:
    """Time the compiled update of a config, and its views (degradation and augmentation) alone.

    Images are random, as noise costs what faces cost.  Prints a table; writes JSON where asked.
    """
    check_config(config)
    mesh = sharding.make_mesh()
    init, _, update, constants = compile_training(
        config, classes, lambda _: config.schedule.learning_rate, mesh
    )
    state = init()
    rng = np.random.default_rng(config.seed)
    images = rng.integers(0, 256, (config.batch, SIDE, SIDE, 3), np.uint8)
    label = rng.integers(0, classes, config.batch).astype(np.int32)
    images, label = jax.device_put((images, label), sharding.by_example(mesh))

    started = time.perf_counter()
    compiled = update.lower(state, images, label, *constants).compile()
    compile_seconds = time.perf_counter() - started

    def step() -> Any:
        nonlocal state
        state, scalars = compiled(state, images, label, *constants)
        return scalars

    step()  # the first call also loads the program
    median, spread = timed(step, repeats)

    method, augmentation = parse_method(config.method), Augmentation(**config.augment)

    @jax.jit
    def views(images: Any, key: Any, matrices: Any) -> Any:
        which = draw_resolutions(method, key, config.batch)
        return make_views(images, which, draw(augmentation, key, config.batch), matrices)

    jax.block_until_ready(views(images, *constants))
    views_median, views_spread = timed(lambda: views(images, *constants), repeats)
    memory = compiled.memory_analysis()
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
        "compile_seconds": round(compile_seconds, 2),
        "gflop_per_device": round(compiled.cost_analysis()["flops"] / 1e9, 3),
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20, 1) if memory else None,
        "devices": {"count": mesh.size, "kind": jax.devices()[0].device_kind},
        **environment.made_with(),
    }
    for name, value in figures.items():
        print(f"{name:<18} {value}")
    if out is not None:
        environment.write_json(out, figures)
    return json.loads(json.dumps(figures))
