"""How calls are timed, and how figures are shown and kept: alike in every `crfr bench`."""

import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from crfr import environment

FILL = 0.3  # seconds that a repeat of several calls should last


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """(median, max - min) in seconds of `repeats` calls that return device arrays, each waited
    for.
    """
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return spread(seconds)


def spread(seconds: list[float]) -> tuple[float, float]:
    """(median, max - min)."""
    return statistics.median(seconds), max(seconds) - min(seconds)


def dispatched(call: Callable[[], Any], repeats: int) -> float:
    """Median seconds until a call returns, its work still under way: the host's share of it."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - started)
        jax.block_until_ready(result)
    return statistics.median(seconds)


def row(call: Callable[[], Any], count: int) -> float:
    """Seconds a call of `count` in a row, as the loop trains: one call ahead of the device."""
    before = None
    started = time.perf_counter()
    for _ in range(count):
        result = call()
        jax.block_until_ready(before)
        before = result
    jax.block_until_ready(before)
    return (time.perf_counter() - started) / count


def in_a_row(call: Callable[[], Any], count: int, repeats: int) -> tuple[float, float]:
    """(median, max - min) of `repeats` times `row`; `count` 0: so many as last `FILL` seconds."""
    if not count:
        single, _ = timed(call, 1)
        count = min(max(math.ceil(FILL / single), 1), 100)
    return spread([row(call, count) for _ in range(repeats)])


def milliseconds(name: str, median_and_spread: tuple[float, float]) -> dict[str, float]:
    """{NAME_ms, NAME_ms_spread}, as in every file of figures."""
    median, width = median_and_spread
    return {f"{name}_ms": round(1e3 * median, 4), f"{name}_ms_spread": round(1e3 * width, 4)}


def keep(bench: str, figures: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """The figures with what they were made with, as JSON where asked."""
    everything = {
        "bench": bench,
        **figures,
        "cores": environment.cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "time": environment.now(),
        **environment.made_with(),
    }
    if out is not None:
        environment.write_json(out, everything)
    return everything


def publish(bench: str, figures: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """`keep`, and the figures printed."""
    everything = keep(bench, figures, out)
    for name, value in figures.items():
        if name != "rows":  # which are printed as they come
            print(f"{name:<28} {value}")
    return everything
