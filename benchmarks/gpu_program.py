"""The training step compiled for an H200 that is not there: its kernels and the bytes they move.

    JAX_PLATFORMS=cpu python benchmarks/gpu_program.py --method=st-m1 --batch=128
    JAX_PLATFORMS=cpu python benchmarks/gpu_program.py --embed --batch=1024

With --embed it is the embedding of a batch at random resolutions, as sweeps embed.

JAX's CUDA plugin (`pip install "jax[cuda13]"`, Linux, no GPU) compiles for a device that is
described to it.  Without the device nothing is tried out: which of cuDNN's and cuBLAS's algorithms
a GPU would choose, and their workspace, stay open; fusions, layouts and what is kept do not.  Bytes
are counted as crfr/bench/program.py says, and a kernel is taken to need the time its bytes take at
`--bandwidth`, plus `--launch`.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from jax.experimental.topologies import get_topology_desc
from jax.sharding import AxisType, Mesh

from crfr.bench.program import PARTS, by_part, kernels, part
from crfr.bench.step import trace_step
from crfr.evaluate.embed import compile_embed
from crfr.model import resnet
from crfr.model.fold import fold
from crfr.model.norm import AXIS
from crfr.recipe import recipe
from crfr.views.degrade import SIDE

H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 62914560 device_memory_size: 150000000000
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
runtime_version { major: 13 minor: 0 patch: 0 }
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embed", action="store_true", help="embedding, not training")
    parser.add_argument("--method", default="baseline")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--classes", type=int, default=85742)
    parser.add_argument("--name", default="resnet50")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--bandwidth", type=float, default=4.3, help="TB/s that copies reach")
    parser.add_argument("--launch", type=float, default=1.5, help="microseconds a kernel")
    parser.add_argument("--largest", type=int, default=20, help="kernels to list")
    parser.add_argument("--hlo", type=Path, help="write the program here")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    return parser


def trace_training(flags, mesh):
    config = recipe()
    config.method, config.batch = flags.method, flags.batch
    config.model.name, config.model.dtype = flags.name, flags.dtype
    config.model.bn_group = min(flags.batch, config.model.bn_group)
    return trace_step(config, flags.classes, mesh)


def trace_embedding(flags, mesh):
    """Of the folded network, whose weights are zeros here: only their shapes and types count."""
    network = resnet.build(flags.name, dtype=flags.dtype)
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    network, weights = fold(network, jax.tree.map(lambda v: np.zeros(v.shape, v.dtype), variables))
    images = jax.ShapeDtypeStruct((flags.batch, SIDE, SIDE, 3), np.uint8)
    sizes = jax.ShapeDtypeStruct((flags.batch,), np.int32)
    shapes = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), weights)
    return compile_embed(network, mesh).trace(shapes, images, sizes)


def main():
    flags = make_parser().parse_args()
    topology = get_topology_desc("h200", "cuda", target_config=H200, topology="1x1x1")
    mesh = Mesh(np.array(topology.devices), (AXIS,), axis_types=(AxisType.Auto,))
    trace = trace_embedding if flags.embed else trace_training
    options = {"xla_gpu_autotune_level": 0}  # tuning needs the device
    compiled = trace(flags, mesh).lower().compile(options)
    if flags.hlo:
        flags.hlo.write_text(compiled.as_text())
    found = kernels(compiled.as_text())
    moved = sum(kernel.bytes for kernel in found)
    parts = by_part(found)
    memory = compiled.memory_analysis()
    seconds = moved / (flags.bandwidth * 1e12)
    for name in () if flags.embed else PARTS:
        if name in parts:
            print(f"{name:<10}{parts[name]['kernels']:>6} kernels{parts[name]['gb']:>9.3f} GB")
    print(f"{'all':<10}{len(found):>6} kernels{moved / 1e9:>9.3f} GB")
    print(f"bytes at {flags.bandwidth} TB/s: {1e3 * seconds:.2f} ms", end="")
    with_launches = seconds + len(found) * flags.launch * 1e-6
    print(f"; with {flags.launch} us a kernel: {1e3 * with_launches:.2f} ms")
    held = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
    }
    print("MiB:", ", ".join(f"{name} {size / 2**20:.0f}" for name, size in held.items()))
    for kernel in sorted(found, key=lambda k: -k.bytes)[: flags.largest]:
        place = "" if flags.embed else part(kernel.operation)
        print(f"{kernel.bytes / 1e6:9.1f} MB  {place:<10}{kernel.name:<36}{kernel.operation[-80:]}")
    if flags.out:
        training = {"method": flags.method, "classes": flags.classes, "parts": parts}
        figures = {
            "what": "embedding" if flags.embed else "training",
            **({} if flags.embed else training),
            "batch": flags.batch,
            "kernels": len(found),
            "gb": round(moved / 1e9, 4),
            **{f"{name}_mib": round(size / 2**20, 1) for name, size in held.items()},
            "jax": jax.__version__,
        }
        flags.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
