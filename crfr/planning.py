"""What `crfr reproduce` is asked for: methods and seeds -> runs, each with its config.

Everything that can be refused is refused here, before anything is measured or trained.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crfr.arguments import parse_config
from crfr.commands import find_start, make_rate
from crfr.data.benchmarks import Benchmark
from crfr.data.records import Source
from crfr.errors import InputError, unknown
from crfr.evaluate.protocols import Protocol, draw_protocols, folder_name, read_protocols
from crfr.measure import SCENARIOS
from crfr.model.branches import group_span
from crfr.model.margin import check_margin
from crfr.model.weights import weight_settings
from crfr.networks import build
from crfr.recipe import Config, check_config, defaults
from crfr.report import paper
from crfr.starting import is_file
from crfr.train import sharding
from crfr.views.methods import METHODS, parse_method
from crfr.workdir import check_same_config, check_same_data, latest_step

SPECIFIC = re.compile(r"(bt|st)-\d+")  # methods of one low resolution
# Methods by the names of their groups (paper sections 5.1, 5.2; its tables).
GROUPS = {
    "bt-r": [f"bt-{r}" for r in (*range(5, 23), 28, 56)],
    "st-r": [f"st-{r}" for r in (5, 6, 7, 8, 12, 14, 20, 28, 56)],
    "table-1": [model for _, model, _ in paper.TABLE_1 if SPECIFIC.fullmatch(model)],
    "table-2": list(paper.TABLE_2),
}
ALL = sorted({name for group in GROUPS.values() for name in group}, key=paper.order)
DRAWS, DRAW_SEED = 5, 0  # of protocols without CSV files, as crfr sweep has them


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One training and its sweep."""

    method: str
    seed: int
    config: Config
    workdir: Path
    sweep: Path
    steps: int  # of the whole training

    def __str__(self) -> str:
        return f"{self.method}, seed {self.seed}"


def of_flag(flag: str, load: Callable[[str], Any], spec: str) -> Any:
    """`load(spec)`; its InputError names the flag."""
    try:
        return load(spec)
    except InputError as error:
        raise InputError(f"--{flag}: {error}") from error


def parse_methods(names: Sequence[str]) -> list[str]:
    """The methods of names and groups, each once, in the paper's order.

    >>> parse_methods(["st-7", "table-2"])
    ['baseline', 'bt-5', 'bt-m', 'st-5', 'st-7', 'st-m1', 'st-m2']
    """
    singles = [method.name for method in METHODS]
    found: set[str] = set()
    for name in map(str.strip, names):
        if name == "all":
            found.update(ALL)
        elif name in GROUPS:
            found.update(GROUPS[name])
        elif name in singles or SPECIFIC.fullmatch(name):
            found.add(parse_method(name).name)
        else:
            raise unknown("--methods", name, ["all", *GROUPS, *singles, "bt-7", "st-7"])
    return sorted(found, key=paper.order)


def method_config(file: str, method: str, overrides: list[str]) -> Config:
    """The config that `file`, FILE.py[:ARGUMENTS], gives for a method, with the overrides."""
    path, _, rest = file.partition(":")
    spec = f"{path}:method={method}{',' if rest else ''}{rest}"
    remedy = f"--config={file}: reproduce needs a config of every method, as configs/paper.py"
    try:
        config = parse_config("reproduce", [f"--config={spec}", *overrides], lambda _: None).config
    except InputError as error:
        if "unknown argument" in str(error) and "'method'" in str(error):
            raise InputError(f"{remedy} ({error})") from error
        raise
    check_config(config)
    if config.method != method:
        raise InputError(f"{remedy}; for method={method} it gives {config.method!r}")
    check_margin(config.margin.name, config.margin.gradient)
    return config


def override_names(overrides: Sequence[str]) -> set[str]:
    """The keys of --config.KEY=VALUE.  InputError for those that reproduce sets itself."""
    names = {word.lstrip("-").removeprefix("config.").partition("=")[0] for word in overrides}
    instead = {"data": "--data", "seed": "--seeds", "method": "--methods"}
    for name in sorted(names & set(instead)):
        raise InputError(f"--config.{name}: is for crfr train; give {instead[name]}")
    return names


def make_configs(
    file: str,
    methods: Sequence[str],
    overrides: list[str],
    *,
    data: str,
    weights: str,
) -> dict[str, Config]:
    """The config of each method.

    `weights` brings the keys of `model` that belong to it.  An override of a key has the last word.
    """
    given = override_names(overrides)
    if weights and "init.weights" in given:
        raise InputError("--config.init.weights: is given twice; leave it or --weights out")
    if weights:
        overrides = [f"--config.init.weights={weights}", *overrides]
    configs = {}
    for method in methods:
        config = method_config(file, method, overrides)
        config.data = data
        if weights and is_file(weights):
            for key, value in weight_settings(Path(weights), config.model.name).items():
                if f"model.{key}" not in given:
                    config.model[key] = value
        configs[method] = config
    return configs


def make_runs(
    configs: dict[str, Config], seeds: Sequence[int], out: Path, source: Source
) -> list[Run]:
    """The runs in the order of work, seed by seed.

    InputError for a config that does not go with the data or the devices, and for a folder that
    holds a run of another config or of other data.
    """
    if source.classes < 2:
        raise InputError(f"--data: {source.classes} identities; training needs 2 or more")
    mesh, runs = sharding.make_mesh(), []
    for seed in seeds:
        for method, first in configs.items():
            config = first.copy_and_resolve_references()
            config.seed = seed
            check_config(config)
            _, steps = make_rate(config, len(source))
            build(config, group_span(config.batch, config.model.bn_group, mesh.size), lambda _: 0.0)
            name = f"{method}-seed-{seed}"
            if config.run.checkpoints:
                config.run.checkpoints = f"{config.run.checkpoints.rstrip('/')}/{name}"
            run = Run(method, seed, config, out / "train" / name, out / "sweep" / name, steps)
            check_same_config(run.workdir, json.loads(config.to_json()), defaults())
            if latest_step(run.workdir):
                check_same_data(run.workdir, classes=source.classes, images=len(source))
            runs.append(run)
    return runs


def check_weights(runs: Sequence[Run]) -> None:
    """Read the weights that runs without a checkpoint start from, once for each network."""
    seen = []
    for run in runs:
        start = (run.config.init.weights, run.config.model.to_json())
        if start[0] and not latest_step(run.workdir) and start not in seen:
            find_start(run.config)
            seen.append(start)


def check_scenarios(scenarios: Sequence[str]) -> None:
    """InputError for one that is unknown, and where there would be no page."""
    for name in scenarios:
        if name not in SCENARIOS:
            raise unknown("--scenarios", name, SCENARIOS)
    if set(scenarios) == {"matrix"}:
        raise InputError("--scenarios=matrix: the page needs rows too; add CR, ER or protocols")


def find_protocols(
    benchmarks: Sequence[Benchmark], scenarios: Sequence[str], folder: Path | None
) -> dict[str, list[Protocol]]:
    """The protocols of each benchmark by its name: its CSV files, or drawn where it has no folder
    in `folder`, which a line says.
    """
    found: dict[str, Any] = {}
    if "protocols" not in scenarios:
        return found
    if folder is not None and not folder.is_dir():
        raise InputError(f"--protocols={folder}: no such folder; give that of the authors' CSVs")
    for benchmark in benchmarks:
        name = benchmark.name
        if folder is not None and (folder / folder_name(name)).is_dir():
            found[name] = read_protocols(folder, benchmark)
            continue
        if folder is not None:
            print(f"{name}: no {folder_name(name)} in {folder}; its protocols are drawn")
        found[name] = draw_protocols(benchmark, DRAWS, DRAW_SEED)
    return found
