"""`crfr quickstart`: procedural faces, the tiny network, three methods, their sweeps, one page."""

import time
from pathlib import Path

from crfr import commands, measure
from crfr.data.benchmarks import load_benchmark
from crfr.data.records import open_source
from crfr.recipe import Config, recipe, shrink
from crfr.report.page import write_report
from crfr.report.tables import summary_table
from crfr.train.log import duration

METHODS = ("baseline", "bt-m", "st-m1")
RESOLUTIONS = [112, 56, 28, 14, 7]  # px, the paper's five


def quick_config(method: str, epochs: float | None) -> Config:
    """The quick recipe of a method; of other `epochs`, with a warm-up of a quarter at most."""
    config = recipe()
    config.method = method
    config = shrink(config)
    if epochs is not None:
        config.epochs = epochs
        config.schedule.warmup_epochs = min(config.schedule.warmup_epochs, epochs / 4)
    return config


def quickstart(out: Path, epochs: float | None = None) -> None:
    """Train, sweep and report into `out`; prints a table and the path of the page.

    Faces and benchmark are drawn once for all methods.  The same call again goes on where it
    stopped.
    """
    started = time.monotonic()
    configs = {method: quick_config(method, epochs) for method in METHODS}
    source = open_source(configs["baseline"].data)
    benchmark = load_benchmark(configs["baseline"].run.benchmark)
    sweeps = []
    for number, (method, config) in enumerate(configs.items(), 1):
        print(f"\n[{number}/{len(METHODS)}] {method}", flush=True)
        workdir = out / "train" / method
        commands.train(config, workdir, source=source, benchmark=benchmark)
        sweeps.append(out / "sweep" / method)
        measure.sweep(str(workdir), [benchmark], RESOLUTIONS, sweeps[-1])
    page = out / "report.html"
    write_report(sweeps, page)
    print(
        f"\n{summary_table(sweeps)}\n\n"
        f"{duration(time.monotonic() - started)}; open {page.resolve()}"
    )
