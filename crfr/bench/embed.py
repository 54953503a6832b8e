"""`crfr bench embed`: images/s of the function that sweeps use, by batch, precision and way in."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from crfr.bench import device
from crfr.bench.program import kernels
from crfr.bench.timing import in_a_row, keep, milliseconds, publish, spread
from crfr.errors import InputError, unknown
from crfr.evaluate.embed import PRECISIONS, compile_embed, embed_work
from crfr.evaluate.encoders import load_encoder
from crfr.model.fold import fold
from crfr.model.resnet import ResNet
from crfr.networks import build_for_evaluation
from crfr.recipe import Config, check_config
from crfr.train import sharding
from crfr.views.degrade import SIDE

LOWEST = 5  # px, of the resolutions drawn: the sweep's 5..112
HOST_BATCHES = 4  # of a repeat that begins and ends in the host's memory


def network_of(config: Config | None, model: str, mesh: Mesh) -> tuple[ResNet, Any, str]:
    """(network, its variables, what to call it): of a MODEL, or of a config with random weights."""
    if model:
        encoder = load_encoder(model, build_for_evaluation)
        if encoder.network is None:
            raise InputError(f"--model={model}: is none of crfr's; give WORKDIR[@STEP]")
        return encoder.network, encoder.variables, model
    check_config(config)
    assert config is not None
    network = build_for_evaluation(config.to_dict())
    init = jax.jit(network.init, out_shardings=sharding.replicated(mesh))
    return network, init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3))), config.model.name


def count_flops(network: ResNet, variables: Any, batch: int) -> float:
    """FLOPs of embedding a batch as it is written, by the compiler's count."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    images = jax.ShapeDtypeStruct((batch, SIDE, SIDE, 3), np.uint8)
    sizes = jax.ShapeDtypeStruct((batch,), np.int32)
    embed = compile_embed(network, device.counting_mesh())
    return device.counted_flops(embed.trace(shapes, images, sizes))


def time_embed(
    network: ResNet, variables: Any, mesh: Mesh, batch: int, repeats: int, steps: int
) -> dict[str, Any]:
    """Figures of one network and batch: of batches on the device, and from the host and back."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (HOST_BATCHES * batch, SIDE, SIDE, 3), np.uint8)
    sizes = rng.integers(LOWEST, SIDE + 1, len(images)).astype(np.int32)
    work = jax.device_put((images[:batch], sizes[:batch]), sharding.by_example(mesh))
    embed = compile_embed(network, mesh)
    started = time.perf_counter()
    compiled = embed.lower(variables, *work).compile()
    compile_seconds = time.perf_counter() - started
    jax.block_until_ready(compiled(variables, *work))
    row = in_a_row(partial(compiled, variables, *work), steps, repeats)
    every, seconds = np.arange(len(images)), []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in embed_work(
            partial(compiled, variables), images, every, sizes, mesh=mesh, batch=batch
        ):
            pass
        seconds.append((time.perf_counter() - started) / HOST_BATCHES)
    host = spread(seconds)
    flops = count_flops(network, variables, batch)
    kind, dtype = jax.devices()[0].device_kind, np.dtype(network.dtype).name
    peak = device.peak_tflops(kind, dtype, highest=True)
    memory, program = compiled.memory_analysis(), kernels(compiled.as_text())
    return {
        "dtype": dtype,
        "batch": batch,
        "images_per_second": round(batch / row[0], 1),
        "images_per_second_from_host": round(batch / host[0], 1),
        **milliseconds("batch", row),
        **milliseconds("batch_from_host", host),
        "gflop_per_image": round(flops / batch / 1e9, 4),
        "mfu": device.utilisation(flops, row[0], mesh.size, peak),
        "compile_seconds": round(compile_seconds, 2),
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20, 1) if memory else None,
        "kernels": len(program),
        "kernels_gb": round(sum(k.bytes for k in program) / 1e9, 3),
    }


def bench_embed(
    config: Config | None,
    *,
    model: str,
    batches: Sequence[int],
    precisions: Sequence[str],
    repeats: int,
    steps: int,
    out: Path | None,
) -> dict[str, Any]:
    """Time embedding with the degradation at random resolutions; print a table."""
    for precision in precisions:
        if precision not in PRECISIONS:
            raise unknown("--precisions", precision, PRECISIONS)
    mesh = sharding.make_mesh()
    for batch in batches:
        if batch % mesh.size:
            raise InputError(f"--batches: {batch} does not divide by {mesh.size} devices")
    network, variables, name = network_of(config, model, mesh)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {
        "model": name,
        "devices": {"count": mesh.size, "kind": jax.devices()[0].device_kind},
        "repeats": repeats,
        "rows": rows,
    }
    for precision in precisions:
        # as make_embed does
        folded, weights = fold(network.clone(dtype=jnp.dtype(precision)), variables)
        weights = jax.device_put(weights, sharding.replicated(mesh))
        for batch in batches:
            rows.append(time_embed(folded, weights, mesh, batch, repeats, steps))
            found = (f"{key} {rows[-1][key]}" for key in list(rows[-1])[:5])
            print("  ".join(found), flush=True)
            keep("embed", figures, out)  # a call that is cut off leaves its rows
    figures["images_per_second"] = max(row["images_per_second"] for row in rows)
    used = device.peak_bytes()
    figures["peak_mib"] = round(used / 2**20, 1) if used else None
    return publish("embed", figures, out)
