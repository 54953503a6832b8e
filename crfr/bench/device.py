"""What a device could do: its peaks by the makers' data sheets, and measured ceilings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from jax.stages import Traced

from crfr.bench.timing import in_a_row
from crfr.errors import InputError
from crfr.model.norm import AXIS

# device_kind -> dense TFLOP/s of bfloat16 with float32 sums; of float32 as products are made unless
# asked otherwise (TF32 on these GPUs, rounded to bfloat16 on TPUs); of true float32 (None: it has
# none); from the makers' data sheets
PEAKS: dict[str, tuple[float, float, float | None]] = {
    "NVIDIA H200": (989.0, 494.0, 67.0),
    "NVIDIA H100 80GB HBM3": (989.0, 494.0, 67.0),
    "NVIDIA A100-SXM4-80GB": (312.0, 156.0, 19.5),
    "NVIDIA A100-SXM4-40GB": (312.0, 156.0, 19.5),
    "NVIDIA L4": (121.0, 60.0, 30.3),
    "NVIDIA GeForce RTX 4090": (165.2, 82.6, 82.6),
    "TPU v4": (275.0, 275.0, None),
    "TPU v5 lite": (197.0, 197.0, None),
    "TPU v5": (459.0, 459.0, None),
    "TPU v6 lite": (918.0, 918.0, None),
}


def peak_tflops(kind: str, dtype: str, *, highest: bool) -> float | None:
    """Dense TFLOP/s of one device by its data sheet, for products of a type; None: not known.

    `highest`: float32 as JAX's precision "highest" makes it, as embedding asks for; else as
    training has it, which leaves the precision of convolutions to the device.
    """
    bfloat16, usual, true = PEAKS.get(kind, (None, None, None))
    return {"bfloat16": bfloat16, "float32": true if highest else usual}.get(dtype)


def counting_mesh() -> Mesh:
    """A mesh of one CPU, for what is lowered to have its FLOPs counted: on a GPU's or a TPU's
    devices JAX counts none before it has compiled, and afterwards those of its own kernels.
    """
    try:
        cpu = jax.devices("cpu")[:1]
    except RuntimeError as error:
        raise InputError(
            "JAX_PLATFORMS leaves out the CPU, on which FLOPs are counted: add it, as in cuda,cpu"
        ) from error
    return Mesh(np.array(cpu), (AXIS,), axis_types=(AxisType.Auto,))


def counted_flops(traced: Traced) -> float:
    """FLOPs of what was traced for `counting_mesh`, as it is written, by the compiler's count.

    Lowered as for a TPU, where nothing is written otherwise: a CPU's convolutions are products of
    their own (model/conv_cpu.py), and on a GPU calls that are not counted make random numbers.
    """
    lowered: Any = traced.lower(lowering_platforms=("tpu",))
    return lowered.cost_analysis()["flops"]


def peak_bytes() -> int | None:
    """The most device memory in use at once since the process began; None where no device says."""
    stats = jax.devices()[0].memory_stats()
    return stats.get("peak_bytes_in_use") if stats else None


def utilisation(flops: float, seconds: float, devices: int, peak: float | None) -> float | None:
    """The share (MFU) of the devices' peak TFLOP/s that `flops` in `seconds` are."""
    return round(flops / seconds / (devices * peak * 1e12), 5) if peak else None


def ceilings(dtype: str, repeats: int) -> dict[str, Any]:
    """What one device reaches here: a large product of random matrices, a large copy.

    8192 square and 1 GiB, on a CPU 1024 and 64 MiB; the product as training has it (`peak_tflops`).
    Of the copy the bytes read and written count.
    """
    small = jax.devices()[0].platform == "cpu"
    side, count = (1024, 2**24) if small else (8192, 2**28)
    a, b = jax.random.normal(jax.random.key(0), (2, side, side), jnp.dtype(dtype))
    product = jax.jit(lambda a, b: a @ b)
    values = jax.random.normal(jax.random.key(1), (count,), jnp.float32)
    copy = jax.jit(lambda x: -x)  # a plain copy could be left out
    jax.block_until_ready((product(a, b), copy(values)))
    multiplied, _ = in_a_row(lambda: product(a, b), 0, repeats)
    copied, _ = in_a_row(lambda: copy(values), 0, repeats)
    return {
        f"ceiling_{dtype}_tflops": round(2 * side**3 / multiplied / 1e12, 3),
        "ceiling_copy_gb_per_second": round(2 * values.nbytes / copied / 1e9, 1),
    }
