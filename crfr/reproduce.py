"""`crfr reproduce`: the paper's trainings and sweeps, one after another, and one page of them all.

The order: check the whole request, see what is done, measure what the rest will take, say so; then
seed by seed each method is trained and swept and the page written anew, so that a kill leaves
results.  The same command again goes on.  A run that diverges, in its losses, states or
embeddings, stops no other.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crfr import commands, environment, measure
from crfr.data.benchmarks import load_benchmark, load_benchmarks, split_specs
from crfr.data.records import Source, open_source
from crfr.errors import BusyError, InputError
from crfr.estimate import Work, measure_all, sweep_work, table
from crfr.evaluate import results
from crfr.evaluate.embed import BrokenEmbeddingsError
from crfr.planning import (
    Run,
    check_scenarios,
    check_weights,
    find_protocols,
    make_configs,
    make_runs,
    of_flag,
    override_names,
    parse_methods,
)
from crfr.report import paper
from crfr.report.page import write_report
from crfr.train import sharding
from crfr.train.finite import DivergedError
from crfr.train.log import duration
from crfr.urls import public
from crfr.views.degrade import check_resolutions
from crfr.workdir import latest_step

PLAN, PAGE = "plan.json", "report.html"


def reproduce(
    *,
    data: str,
    benchmarks: str,
    out: Path,
    config: str,
    overrides: list[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    resolutions: Sequence[int],
    scenarios: Sequence[str],
    protocols: Path | None,
    weights: str,
    plan: bool,
) -> None:
    """Train and sweep every method with every seed into `out`, and write its page.

    `config` is FILE.py[:ARGUMENTS], `overrides` are --config.KEY=VALUE for all methods.  `plan`:
    measure and print the plan, and stop.  Raises InputError for anything the user can mend, before
    the first training where it can be seen before, and after the last one where runs diverged.
    """
    environment.keep_programs()  # those that are measured are those that train
    check_scenarios(scenarios)
    check_resolutions(np.asarray(resolutions))
    names = parse_methods(methods)
    configs = make_configs(config, names, overrides, data=data, weights=weights)
    source = of_flag("data", open_source, data)
    loaded = of_flag("benchmarks", load_benchmarks, benchmarks)
    if "run.benchmark" in override_names(overrides):
        spec = configs[names[0]].run.benchmark  # the same for all
        verified = of_flag("config.run.benchmark", load_benchmark, spec) if spec else None
    else:
        place = next((i for i, b in enumerate(loaded) if b.name.lower() == paper.BENCHMARK), 0)
        verified, spec = loaded[place], split_specs(benchmarks)[place]
        for each in configs.values():
            each.run.benchmark = spec
    runs = make_runs(configs, seeds, out, source)
    check_weights(runs)
    drawn = find_protocols(loaded, scenarios, protocols)
    about = {benchmark.name: results.describe(benchmark) for benchmark in loaded}

    def trained(run: Run) -> bool:
        return latest_step(run.workdir) >= run.steps

    def finished(run: Run) -> bool:
        asked = {"scenarios": scenarios, "protocols": drawn}
        swept = measure.finished(run.sweep, run.steps, about, resolutions, **asked)
        return swept and trained(run)

    left = [run for run in runs if not finished(run)]
    print(
        f"{len(runs)} runs: {', '.join(names)}; seeds {', '.join(map(str, seeds))}\n"
        f"{len(runs) - len(left)} of them are done in {out}, {len(left)} are left",
        flush=True,
    )
    works: dict[Run, Work] = {}
    if left:
        asked = {
            "data": public(data),
            "benchmarks": public(benchmarks),
            "config": config,
            "overrides": [public(word) for word in overrides],
            "methods": names,
            "seeds": list(seeds),
            "resolutions": list(resolutions),
            "scenarios": list(scenarios),
            "protocols": str(protocols) if protocols else None,
            "weights": public(weights) or None,
        }
        untrained = [run for run in left if not trained(run)]
        size = sweep_work(loaded, scenarios, resolutions, drawn)
        images = len(verified.images) if verified else 0
        works = _plan(left, untrained, source, images, size, asked, about, out)
    if plan:
        return

    def carry_out(run: Run) -> bool:
        """Train and sweep; False where another process does."""
        try:
            commands.train(run.config, run.workdir, source=source, benchmark=verified)
            measure.sweep(
                str(run.workdir),
                loaded,
                resolutions,
                run.sweep,
                scenarios=scenarios,
                protocols=drawn,
                batch=run.config.run.eval_batch,
            )
        except BusyError:
            return False
        return True

    def write_page() -> bool:
        sweeps = [run.sweep for run in runs if finished(run)]
        if sweeps:
            with environment.locked(out, "", wait=True):  # of processes that share it
                write_report(sweeps, out / PAGE)
        return bool(sweeps)

    def try_to_write_page() -> bool:
        """Write the page; False where that fails, which stops nothing: its sources are kept."""
        try:
            write_page()
        except Exception as error:
            print(f"{out / PAGE}: not written now ({type(error).__name__}: {error})")
            return False
        return True

    held, diverged = _work_through(runs, left, works, finished, carry_out, try_to_write_page)
    written = write_page()
    done = len(runs) - len(held) - len(diverged)
    shown = f"; open {(out / PAGE).resolve()}" if written else "; no page was written"
    print(f"\n{done} of {len(runs)} runs are done{shown}", flush=True)
    swept = {path.parent for path in out.glob(f"sweep/*/{results.SUMMARY}")}
    others = ", ".join(sorted(path.name for path in swept - {run.sweep for run in runs}))
    if written and others:
        print(f"the page has nothing of {others}, beside them: name their methods and seeds too")
    if diverged:
        raise InputError(
            f"{len(diverged)} of {len(runs)} runs diverged: {'; '.join(map(str, diverged))}; the "
            "line of each stands above"
        )


def _plan(
    left: Sequence[Run],
    untrained: Sequence[Run],
    source: Source,
    verified: int,
    size: tuple[int, int],
    asked: dict[str, Any],
    benchmarks: dict[str, Any],
    out: Path,
) -> dict[Run, Work]:
    """Measure what the runs `left` will take (`measure_all`), print it, and keep it in `out`."""
    kinds, embeddings, works = measure_all(left, untrained, source, verified, size)
    mesh = sharding.make_mesh()
    kind = mesh.devices.flat[0].device_kind
    about = {
        "asked": asked,
        "images": len(source),
        "classes": source.classes,
        "benchmarks": benchmarks,
        "devices": {"count": mesh.size, "kind": kind},
        "trainings": [training._asdict() for training in kinds.values()],
        "embeddings": [embedding._asdict() for embedding in embeddings.values()],
        "left": [{"run": str(run), **work._asdict()} for run, work in works.items()],
        "time": environment.now(),
        **environment.made_with(),
    }
    environment.make_folder(out, f"--out={out}", "choose a writable folder")
    environment.write_json(out / PLAN, about)
    free, room = shutil.disk_usage(out).free, sum(work.room for work in works.values())
    short = ", which is too little" if room > free else ""
    print(
        f"\n{len(source):,} images of {source.classes:,} identities, on {mesh.size} x {kind}\n"
        f"{table(kinds, works)}\n\nup to {room / 1e9:.3g} GB of checkpoints and embeddings; {out} "
        f"has {free / 1e9:.3g} GB free{short}",
        flush=True,
    )
    return works


def _work_through(
    runs: list[Run],
    left: list[Run],
    works: dict[Run, Work],
    finished: Callable[[Run], bool],
    carry_out: Callable[[Run], bool],
    try_to_write_page: Callable[[], bool],
) -> tuple[list[Run], list[Run]]:
    """Carry out the runs `left`; (those that another process kept, those that diverged)."""
    stale = False  # whether the page lacks something
    diverged: list[Run] = []
    began = time.monotonic()
    worked = counted = 0.0  # of the runs that are done: seconds, and those of the plan
    seconds = {run: work.training + work.sweep for run, work in works.items()}
    for remedy in ("later again", "left to it: the same command again goes on"):
        held = []
        for place, run in enumerate(left):
            if finished(run):
                continue  # by another process
            stale = stale and not try_to_write_page()
            started = time.monotonic()
            spent, pace = started - began, worked / counted if counted else 1.0
            rest = pace * sum(seconds[later] for later in [*held, *left[place:]])
            print(
                f"\n[{runs.index(run) + 1}/{len(runs)}] {run}: about {duration(rest)} left of "
                f"{duration(spent + rest)}",
                flush=True,
            )
            try:
                if carry_out(run):
                    worked += time.monotonic() - started
                    counted, stale = counted + seconds[run], True
                else:
                    print(f"{run}: another process works on it; {remedy}")
                    held.append(run)
            except (DivergedError, BrokenEmbeddingsError) as error:
                print(f"{run}: {error}", flush=True)
                diverged.append(run)
        left = held
    return left, diverged
