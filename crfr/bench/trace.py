"""A profile of some steps: where the time goes, by part of the step and by kernel."""

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from crfr.bench.program import PARTS, Kernel, part
from crfr.errors import InputError


def record(call: Callable[[], Any], steps: int, folder: Path) -> Path:
    """Profile `steps` calls; returns the file, which TensorBoard's and Perfetto's viewers show."""
    before = set(folder.rglob("*.xplane.pb"))
    with jax.profiler.trace(str(folder)):
        for _ in range(steps):
            result = call()
        jax.block_until_ready(result)
    new = sorted(set(folder.rglob("*.xplane.pb")) - before)
    if not new:
        raise InputError(f"--profile={folder}: the profiler wrote nothing")
    return new[0]


def device_lines(plane: Any) -> list[Any]:
    """The lines of a profile's plane that have a device's own work, if any.

    A GPU's work is in lines called Stream, a TPU's in XLA Ops; others say the same again, by module
    and by operation.  A CPU's is among all that the host's threads do.
    """
    lines = list(plane.lines)
    if plane.name == "/host:CPU":
        return lines
    if not plane.name.startswith("/device:"):
        return []
    streams = [line for line in lines if line.name.startswith("Stream")]
    return streams or [line for line in lines if line.name == "XLA Ops"]


def kernel_seconds(file: Path, names: set[str]) -> dict[str, float]:
    """Seconds of each kernel of a program in a profile, by its name in the program.

    A TPU's events may be called by the whole instruction, `%name = type ...`.
    """
    seconds: dict[str, float] = collections.defaultdict(float)
    for plane in ProfileData.from_file(str(file)).planes:
        for line in device_lines(plane):
            for event in line.events:
                stats = dict(event.stats)
                name = str(stats.get("hlo_op", event.name)).partition(" = ")[0].lstrip("%")
                if name in names:
                    seconds[name] += event.duration_ns / 1e9
    return dict(seconds)


def profile(
    call: Callable[[], Any], steps: int, found: list[Kernel], folder: Path
) -> dict[str, Any]:
    """Seconds of device work a step by part, and the ten dearest kernels.

    Says so where the profile has none of the program's kernels.  On a GPU whose kernels run as
    graphs the profiler may see graphs alone: then `seen` is small, and
    --xla_gpu_enable_command_buffer= in XLA_FLAGS shows the kernels.
    """
    by_name = {kernel.name: kernel for kernel in found}
    seconds = kernel_seconds(record(call, steps, folder), set(by_name))
    if not seconds:
        print(
            f"--profile={folder}: has none of the program's {len(found)} kernels; on a GPU try "
            "XLA_FLAGS=--xla_gpu_enable_command_buffer="
        )
    parts: dict[str, float] = collections.defaultdict(float)
    for name, spent in seconds.items():
        parts[part(by_name[name].operation)] += spent / steps
    dearest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:10]
    return {
        "profile_kernels": len(found),
        "profile_kernels_seen": len(seconds),
        "profile_ms": {p: round(1e3 * parts[p], 4) for p in PARTS if p in parts},
        "profile_dearest": [
            {
                "kernel": name,
                "operation": by_name[name].operation,
                "ms": round(1e3 * seconds[name] / steps, 4),
                "mb": round(by_name[name].bytes / 1e6, 2),
            }
            for name in dearest
        ],
    }
