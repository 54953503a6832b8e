"""`crfr bench memory`: what a config's compiled training step holds and sends, without running it.

The step is compiled ahead of time from shapes alone, for the devices that are there, for any number
of virtual CPU devices, or for a topology of TPUs that is not attached.  All figures are of one
device, in bytes.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from crfr import environment
from crfr.bench.program import elements, size
from crfr.commands import plan_training
from crfr.errors import InputError, first_line
from crfr.model.norm import AXIS
from crfr.model.sampling import sample_size
from crfr.recipe import Config, check_config
from crfr.train import sharding
from crfr.train.state import State
from crfr.train.step import Settings, jit_update
from crfr.views.augment import view_bank
from crfr.views.degrade import SIDE

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
PAIRED = ("all-gather-start", "collective-permute-start")  # of type (operands, results, ...)


def on_virtual_devices(devices: int, arguments: list[str]) -> bool:
    """Where more devices are asked for than there are: run the command again in a process that has
    as many virtual CPU devices, and say that this was done.

    Raises SystemExit with that process's code where it fails.
    """
    if devices <= jax.device_count():
        return False
    flag = f"--xla_force_host_platform_device_count={devices}"
    before = os.environ.get("XLA_FLAGS", "")
    if flag in before.split():
        raise InputError(
            f"--devices={devices}: this JAX gives {jax.device_count()} devices in spite of {flag}"
        )
    print(f"{jax.device_count()} devices are here: compiles for {devices} virtual CPU devices")
    sys.stdout.flush()
    virtual = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{before} {flag}".strip()}
    command = [sys.executable, "-m", "crfr.main", "bench", "memory", *arguments]
    code = subprocess.run(command, env=virtual).returncode
    if code:
        raise SystemExit(code)
    return True


def mesh_of(devices: int, topology: str) -> Mesh:
    """A mesh of `devices` devices (0: all), or of all chips of a topology of TPUs."""
    if not topology:
        return sharding.make_mesh(devices or None)
    try:
        found = topologies.get_topology_desc(topology, "tpu").devices
    # RuntimeError without libtpu; its own errors for a name that it does not know
    except (RuntimeError, ValueError, NotImplementedError) as error:
        first = first_line(error)
        raise InputError(
            f"--topology={topology}: JAX has no such topology here ({first}); pip install "
            "'crfr[tpu]' brings TPUs', as v5e:2x4; or give --devices=N for virtual CPU devices"
        ) from error
    return Mesh(np.asarray(found), (AXIS,), axis_types=(AxisType.Auto,))


def communicated(text: str) -> dict[str, int]:
    """Kind of collective -> bytes of what those of a compiled program give a device.

    Those inside a loop count once, whatever its turns.
    """
    found = dict.fromkeys(COLLECTIVES, 0)
    for shape, kind, start in re.findall(rf" = (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(", text):
        found[kind] += size(elements(shape)[1] if kind + start in PAIRED else shape)
    return {kind: given for kind, given in found.items() if given}


def activation_bytes(network: Any, state: State) -> int:
    """Bytes of the outputs of all layers and blocks for one image."""
    variables = {"params": state.params["backbone"], "batch_stats": state.batch_stats}

    def forward(variables: Any, image: Any) -> Any:
        return network.clone(bn_span=1).apply(
            variables, image, train=True, capture_intermediates=True,
            mutable=["intermediates", "batch_stats"],
        )[1]["intermediates"]  # fmt: skip

    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return bytes_of(jax.eval_shape(forward, variables, image))


def bytes_of(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def formula(
    config: Config, state: State, settings: Settings, bank: Any, devices: int
) -> dict[str, int]:
    """What a step needs on each device by the sizes of its parts (docs/scaling.md)."""
    images = config.batch // devices
    branches, width = len(settings.method.views), config.model.embedding
    rows = state.params["classes"].shape[0] // devices
    part = rows
    if config.softmax.sample < 1:
        part = sample_size(rows, config.softmax.sample, config.batch)
    chunk = min(config.softmax.chunk or part, part)  # whose logits are held at a time
    backbone, classes = state.params["backbone"], bytes_of(state.params["classes"])
    kept = bytes_of(state.opt_state)
    of_classes = sum(
        bytes_of(leaf)
        for leaf in jax.tree.leaves(state.opt_state)
        if leaf.shape == state.params["classes"].shape
    )
    moments = of_classes // classes  # that the optimizer keeps of a row
    pixels = SIDE * SIDE * 3
    return {
        "parameters": bytes_of(backbone),
        "class matrix": classes // devices,
        "statistics": bytes_of(state.batch_stats),
        "optimizer": kept - of_classes + of_classes // devices,
        "gradients": bytes_of(backbone) + 4 * part * width,
        "sampled rows": 4 * part * width * (1 + moments) if config.softmax.sample < 1 else 0,
        # and their gradient
        "rows of a chunk": 2 * 4 * chunk * width if chunk < part else 0,
        "view matrices": bytes_of(bank),
        "images and views": images * pixels * (1 + 4 * branches),
        "embeddings": 2 * 4 * branches * config.batch * width,  # gathered, and their gradient
        "logits": 2 * 4 * branches * config.batch * chunk,  # cosines, and the softmax
        "activations": branches * images * activation_bytes(settings.network, state),
    }


def bench_memory(
    config: Config, classes: int, *, devices: int, topology: str, out: Path | None
) -> dict[str, Any]:
    """Compile the update of a config for a mesh and tell its memory and communication.

    Prints a table; writes JSON where asked.  Raises InputError for a config that does not fit the
    devices and for a topology that JAX does not know here.
    """
    check_config(config)
    mesh = mesh_of(devices, topology)
    _, state, settings, key = plan_training(
        config, classes, lambda _: config.schedule.learning_rate, mesh
    )
    matrices = view_bank(settings.method.resolutions, settings.augmentation.crop)
    images = jax.ShapeDtypeStruct((config.batch, SIDE, SIDE, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct((config.batch,), jnp.int32)
    constants = jax.eval_shape(lambda: (key, matrices))
    compiled = jit_update(state, settings).lower(state, images, label, *constants).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        raise InputError(f"{mesh.devices.flat[0].device_kind}: its compiler tells no memory")
    # What is donated is an argument and a result, but there once.  XLA has a figure of its own for
    # the peak, but on CPUs that one leaves the temporaries out.
    held = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
    }
    peak = held["arguments"] + held["outputs"] - held["aliased"] + held["temporaries"]
    parts = formula(config, state, settings, matrices, mesh.size)
    first = mesh.devices.flat[0]
    figures = {
        "config": {
            "method": config.method,
            "model": config.model.name,
            "dtype": config.model.dtype,
            "embedding": config.model.embedding,
            "batch": config.batch,
            "optimizer": config.optimizer.name,
            "sample": config.softmax.sample,
            "chunk": config.softmax.chunk,
        },
        "classes": classes,
        "devices": {"count": mesh.size, "kind": first.device_kind, "platform": first.platform},
        "compiled": {**held, "peak": peak},
        "formula": {**parts, "total": sum(parts.values())},
        "communication": communicated(compiled.as_text()),
        **environment.made_with(),
    }
    print(table(figures))
    if out is not None:
        environment.write_json(out, figures)
    return json.loads(json.dumps(figures))


def table(figures: dict[str, Any]) -> str:
    """The figures of a device in MiB."""
    devices = figures["devices"]
    lines = [
        f"{figures['classes']:,} identities on {devices['count']} x {devices['kind']}, MiB each"
    ]
    for name in ("compiled", "formula", "communication"):
        lines.append(name)
        lines += [f"  {key:<18} {size / 2**20:>12,.2f}" for key, size in figures[name].items()]
    return "\n".join(lines)
