"""`crfr bench step`: speed of a config's training step, on random images already on the device."""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.stages import Traced
from jaxtyping import Array

from crfr.bench import device
from crfr.bench.parts import part_times, shares
from crfr.bench.program import by_part, kernels, part
from crfr.bench.timing import dispatched, in_a_row, keep, milliseconds, publish, timed
from crfr.bench.trace import profile
from crfr.commands import compile_training, plan_training
from crfr.errors import InputError
from crfr.recipe import Config, check_config
from crfr.train import sharding
from crfr.train.step import jit_update
from crfr.views.augment import view_bank
from crfr.views.degrade import SIDE
from crfr.views.methods import parse_method

TRACED = 5  # steps of a profile


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


def trace_step(config: Config, classes: int, mesh: Mesh) -> Traced:
    """The update, traced from shapes alone: the mesh may be of devices that are not there."""
    _, state, settings, key = plan_training(config, classes, lambda _: 0.01, mesh)
    matrices = view_bank(settings.method.resolutions, settings.augmentation.crop)
    images = jax.ShapeDtypeStruct((config.batch, SIDE, SIDE, 3), np.uint8)
    label = jax.ShapeDtypeStruct((config.batch,), np.int32)
    constants = jax.eval_shape(lambda: (key, matrices))
    return jit_update(state, settings).trace(state, images, label, *constants)


def count_flops(config: Config, classes: int) -> float:
    """FLOPs of a step as it is written, by the compiler's count: those of all devices together,
    before the compiler leaves out or repeats any.

    With the softmax in chunks they are those of the plain one, the same mathematics: the count has
    a loop's body once, and what is computed again to save memory is no use.
    """
    config = copy.deepcopy(config)
    config.softmax.chunk = 0
    return device.counted_flops(trace_step(config, classes, device.counting_mesh()))


def count_program(step: Step) -> dict[str, Any]:
    """What the compiler says of the compiled update, of one device's share.

    All count a loop's body once, whatever its turns: where the head has `loops`, as the softmax in
    chunks has, what depends on them is None.  (A CPU's random numbers are loops, too, and small.)
    """
    memory = step.compiled.memory_analysis()
    cost = step.compiled.cost_analysis() or {}
    program = kernels(step.compiled.as_text())
    loops = sum(k.kind == "while" and part(k.operation) == "head" for k in program)
    figures: dict[str, Any] = {
        "compile_seconds": round(step.compile_seconds, 2),
        "state_mib": round(step.state_bytes / 2**20, 1),
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20, 1) if memory else None,
        "loops": loops,
    }
    if loops:
        names = ("gflop_per_device", "gb_accessed", "kernels", "kernels_gb", "parts_gb")
        return figures | dict.fromkeys(names)
    return figures | {
        "gflop_per_device": round(cost["flops"] / 1e9, 3) if "flops" in cost else None,
        "gb_accessed": round(cost.get("bytes accessed", 0) / 1e9, 3) or None,
        "kernels": len(program),
        "kernels_gb": round(sum(k.bytes for k in program) / 1e9, 3),
        "parts_gb": {p: v["gb"] for p, v in by_part(program).items()},
    }


def bench_step(
    config: Config,
    classes: int,
    *,
    devices: int | None,
    repeats: int,
    steps: int,
    parts: bool,
    peak: float | None,
    ceilings: bool,
    profile_to: Path | None,
    out: Path | None,
) -> dict[str, Any]:
    """Time the compiled update of a config, in a row as the loop trains and alone; print a table.

    `devices`: the first so many, None all.  `steps` in a row make a repeat, 0: as many as last a
    third of a second.  `parts`: also time programs that leave parts out.  `peak`: TFLOP/s of one
    device, instead of the data sheet's; `ceilings`: measure what it reaches.
    """
    check_config(config)
    if devices is not None and devices > jax.device_count():
        raise InputError(f"--devices={devices}: there are {jax.device_count()}")
    mesh = sharding.make_mesh(devices)
    method, kind = parse_method(config.method), jax.devices()[0].device_kind
    flops = count_flops(config, classes)
    step = prepare_step(config, classes, mesh)
    row = in_a_row(step.call, steps, repeats)
    alone = timed(step.call, repeats)
    seconds = row[0]
    peak = peak or device.peak_tflops(kind, config.model.dtype, highest=False)
    used = device.peak_bytes()
    figures: dict[str, Any] = {
        "config": {
            "method": config.method,
            "model": config.model.name,
            "dtype": config.model.dtype,
            "batch": config.batch,
        },
        "classes": classes,
        "devices": {"count": mesh.size, "kind": kind},
        "repeats": repeats,
        "images_per_second": round(config.batch / seconds, 2),
        "views_per_second": round(config.batch * len(method.views) / seconds, 2),
        **milliseconds("step", row),
        **milliseconds("alone", alone),
        "dispatch_ms": round(1e3 * dispatched(step.call, repeats), 4),
        "gflop": round(flops / 1e9, 3),
        "gflop_per_image": round(flops / 1e9 / config.batch, 4),
        "tflops": round(flops / seconds / 1e12, 4),
        "peak_tflops": peak,
        "mfu": device.utilisation(flops, seconds, mesh.size, peak),
        "peak_mib": round(used / 2**20, 1) if used else None,
        **count_program(step),
        "loss": round(float(step.call()["loss"]), 4),
    }
    if profile_to is not None or parts or ceilings:  # of which some may fail, or take too long
        keep("step", figures, out)
        print(f"step_ms {figures['step_ms']}; the rest follows", flush=True)
    if profile_to is not None:
        found = kernels(step.compiled.as_text())
        figures |= profile(step.call, TRACED, found, profile_to)
    images, matrices = step.images, step.constants[1]
    del step  # its state, and room for the next ones
    if ceilings:  # first: they take seconds, the parts four compilations
        figures |= device.ceilings(config.model.dtype, repeats)
        keep("step", figures, out)
    if parts:
        times = part_times(config, classes, mesh, images, matrices, steps, repeats)
        for name, time_ in times.items():
            figures |= milliseconds(name, time_)
        figures["shares"] = shares(seconds, times)
    return publish("step", figures, out)
