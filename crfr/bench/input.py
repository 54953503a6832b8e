"""`crfr bench input`: speed of the stream of training batches, beside what the device asks for."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crfr import environment
from crfr.bench.timing import spread
from crfr.data.batches import train_batches
from crfr.data.records import Source, open_source, read_example
from crfr.errors import InputError
from crfr.urls import public

PARTS = 5  # of the seconds of a row, each with a rate of its own
SPEED = "images_per_second"
COLUMNS = ("reader", "threads", "workers", SPEED, f"{SPEED}_spread", f"{SPEED}_per_core")


def cpu_seconds() -> dict[int, float]:
    """CPU time so far of this process and of those it has started (these on Linux only), by id."""
    times = {os.getpid(): time.process_time()}
    tick = os.sysconf("SC_CLK_TCK")
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(stat.parent.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / tick
    for pid, (parent, used) in sorted(parents.items()):  # children after their parents
        if parent in times:
            times[pid] = used
    return times


def used_since(before: dict[int, float]) -> float:
    """CPU time since then of the processes that run now.

    One that has ended meanwhile belonged to the row before, and its time would be missing from a
    difference of sums, which could then be negative.
    """
    now = cpu_seconds()
    return sum(max(seconds - before.get(pid, 0.0), 0.0) for pid, seconds in now.items())


def measure(stream: Iterator[Any], batch: int, seconds: float) -> tuple[float, float, float]:
    """(images/s, largest less smallest, images per second of one core) of a stream over some
    seconds, after its first batches have filled the read-ahead; the first is the median of `PARTS`.
    """
    for _ in itertools.islice(stream, 3):
        pass
    before, count, rates = cpu_seconds(), 0, []
    for _ in range(PARTS):
        started, read = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds / PARTS:
            next(stream)
            read += batch
        rates.append(read / elapsed)
        count += read
    used = used_since(before)
    return *spread(rates), count / max(used, 1e-9)


def torch_batches(source: Source, batch: int, seed: int, workers: int) -> Iterator[Any]:
    """The same images through torch's DataLoader: the peers' way, an example at a time."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
        from torch.utils.data import DataLoader  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "--torch needs torch, for this benchmark only: pip install torch"
        ) from error

    class Examples:
        def __len__(self) -> int:
            return len(source)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            example = read_example(source, index)
            return np.require(example["image"], requirements="W"), example["label"]

    torch.set_num_threads(1)  # as in its own workers; more threads only get in each other's way
    loader = DataLoader(
        Examples(),  # pyright: ignore[reportArgumentType]
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),
    )
    while True:
        yield from loader


def bench_input(
    specs: list[str],
    *,
    batch: int,
    threads: list[int],
    workers: list[int],
    seconds: float,
    need: float,
    step: Path | None,
    torch: bool,
    out: Path | None,
) -> dict[str, Any]:
    """Time the stream of each spec by number of threads and of worker processes.

    `need` is the images/s that the device asks for; `step`, a file of `crfr bench step --out`, says
    it instead.  A rate per core is that per second of CPU time, of all processes together.
    """
    if step is not None:
        try:
            need = float(json.loads(step.read_text())["images_per_second"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"--step={step}: not a file of crfr bench step --out") from error
    rows = []
    for spec in specs:
        source, spec = open_source(spec), public(spec)
        ways = [(f"crfr {spec}", t, w) for w in (0, *workers) for t in threads]
        ways += [(f"torch DataLoader {spec}", 1, w) for w in (0, *workers) if torch]
        for name, thread, worker in ways:
            if name.startswith("torch"):
                stream = torch_batches(source, batch, 0, worker)
            else:
                stream = train_batches(source, batch=batch, seed=0, threads=thread, workers=worker)
            speeds = map(round, measure(stream, batch, seconds))
            row = (name, thread, worker, *speeds)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
            print("  ".join(f"{column} {value}" for column, value in rows[-1].items()), flush=True)
            del stream
    for spec in map(public, specs):
        best = max((r for r in rows if r["reader"] == f"crfr {spec}"), key=lambda r: r[SPEED])
        rate = best[SPEED]
        verdict = "the device is the bottleneck" if rate >= need else "the input is the bottleneck"
        print(f"{spec}: {rate:,} images/s against the {need:,.0f} the device needs: {verdict}")
    figures = {
        "bench": "input",
        "rows": rows,
        "batch": batch,
        "need": need,
        "cores": environment.cores(),
        "time": environment.now(),
        **environment.made_with(),
    }
    if out is not None:
        environment.write_json(out, figures)
    return figures
