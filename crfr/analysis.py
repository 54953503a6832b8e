"""The flags of the commands that measure: sweep, protocols, dataset, report, reproduce."""

from pathlib import Path

from absl import flags

from crfr.arguments import (
    Flags,
    folder,
    joined,
    need,
    parse,
    process_flags,
    ranges,
    split_overrides,
    string,
)
from crfr.errors import InputError

PAPER = ["7", "14", "28", "56", "112"]  # px
EVERY = "5-112"  # px, the paper's whole sweep


def _resolutions(values: Flags) -> list[int]:
    texts = [EVERY if text == "all" else text for text in values.resolutions]
    return ranges("resolutions", texts)


def _common(values: Flags, resolutions: list[str]) -> None:
    string(values, "benchmark", None, "Benchmark specs with commas between them (docs/data.md).")
    text = f"In px, as 7,14,40-56; all: {EVERY}."
    flags.DEFINE_list("resolutions", resolutions, text, flag_values=values)
    string(values, "degradation", "bicubic", "bicubic, bilinear, area, quantize or noclip.")
    flags.DEFINE_integer("batch", 256, "Images a batch.", lower_bound=1, flag_values=values)


def sweep(arguments: list[str]) -> None:
    """Measure a model on benchmarks at every resolution."""

    def define(values: Flags) -> None:
        string(
            values,
            "model",
            None,
            "WORKDIR[@STEP|best], FILE.onnx[:KEY=VALUE,...] or module:function.",
        )
        string(values, "out", None, "Folder for the results; the same command again goes on.")
        _common(values, PAPER)
        flags.DEFINE_list(
            "scenarios", ["CR", "ER"], "Of CR, ER, protocols and matrix.", flag_values=values
        )
        text = "Folder of the authors' CSV files, or of crfr protocols; measures them."
        string(values, "protocols", "", text)
        text = "Of the protocols, where there are no CSV files."
        flags.DEFINE_integer("draws", 5, text, lower_bound=1, flag_values=values)
        flags.DEFINE_integer("seed", 0, "Of these draws.", lower_bound=0, flag_values=values)
        flags.DEFINE_list(
            "thresholds", ["exact"], "Of exact, insightface and knoche.", flag_values=values
        )
        flags.DEFINE_boolean("flip", False, "Add the mirror image's embedding.", flag_values=values)
        string(values, "precision", "float32", "Or bfloat16, of a crfr model's products.")
        process_flags(values)

    values = parse("sweep", arguments, define)
    need("sweep", values, "model", "benchmark", "out", "resolutions", "scenarios", "thresholds")
    resolutions = _resolutions(values)
    seeded = "protocols" in values.scenarios and not values.protocols
    for name in ("draws", "seed"):
        if values[name].present and not seeded:
            raise InputError(
                f"sweep: --{name} is for protocols that are drawn; give --scenarios=...,protocols "
                "and no --protocols, or leave it out"
            )
    out = folder("out", values.out)
    with joined("sweep", values):
        from crfr import measure

        measure.sweep(
            values.model,
            values.benchmark,
            resolutions,
            out,
            scenarios=values.scenarios,
            protocols=Path(values.protocols) if values.protocols else None,
            draws=values.draws,
            seed=values.seed,
            thresholds=values.thresholds,
            degradation=values.degradation,
            flip=values.flip,
            batch=values.batch,
            precision=values.precision,
        )


def protocols(arguments: list[str]) -> None:
    """Draw the paper's low_res, mid_res, high_res and all_res protocols, as CSV files."""

    def define(values: Flags) -> None:
        string(
            values, "benchmark", None, "Benchmark specs with commas between them (docs/data.md)."
        )
        string(values, "out", None, "Folder, with a folder for each benchmark.")
        flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0, flag_values=values)

    values = parse("protocols", arguments, define)
    need("protocols", values, "benchmark", "out")
    from crfr import measure

    measure.protocols(values.benchmark, folder("out", values.out), values.seed)


def dataset(arguments: list[str]) -> None:
    """Show what reducing the resolution does to the images of benchmarks."""

    def define(values: Flags) -> None:
        string(values, "out", None, "Folder for dataset.json and the pictures.")
        _common(values, PAPER[:-1])

    values = parse("dataset", arguments, define)
    need("dataset", values, "benchmark", "out", "resolutions")
    resolutions = _resolutions(values)
    from crfr import measure

    measure.dataset(
        values.benchmark,
        resolutions,
        folder("out", values.out),
        degradation=values.degradation,
        batch=values.batch,
    )


def report(arguments: list[str]) -> None:
    """Write one HTML page from sweeps."""

    def define(values: Flags) -> None:
        flags.DEFINE_multi_string("sweep", [], "Folders, DIR[,DIR...].", flag_values=values)
        string(values, "out", "report.html", "The page; figures and tables go beside it.")
        string(values, "dataset", "", "Folder of crfr dataset, to show it as well.")
        string(values, "thresholds", "", "The mode to show, where sweeps have several.")

    values = parse("report", arguments, define)
    need("report", values, "sweep")
    from crfr.report.page import write_report

    write_report(
        [Path(d) for d in ",".join(values.sweep).split(",")],
        folder("out", values.out),
        dataset=Path(values.dataset) if values.dataset else None,
        thresholds=values.thresholds or None,
    )
    print(values.out)


def reproduce(arguments: list[str]) -> None:
    """Train and sweep the paper's models, and show its figures and tables beside theirs."""

    def define(values: Flags) -> None:
        string(values, "data", None, "Source spec (docs/data.md), such as MS1M's train.rec.")
        string(values, "benchmarks", None, "A folder of .bin files, or specs with commas.")
        string(values, "out", "reproduce", "Folder; the same command again goes on.")
        text = "FILE.py[:ARGUMENTS] that takes method=M; --config.KEY=VALUE holds for all methods."
        string(values, "config", "configs/paper.py", text)
        text = "Of the methods (bt-7), bt-r, st-r, table-1 and table-2."
        flags.DEFINE_list("methods", ["all"], text, flag_values=values)
        flags.DEFINE_list("seeds", ["0"], "As 0,1,2 or 0-2.", flag_values=values)
        text = f"In px, as 7,14,40-56; all: {EVERY}."
        flags.DEFINE_list("resolutions", [EVERY], text, flag_values=values)
        text = "Of CR, ER, protocols and matrix."
        flags.DEFINE_list("scenarios", ["CR", "ER", "protocols"], text, flag_values=values)
        string(values, "protocols", "", "Folder of the authors' CSV files; drawn without it.")
        string(values, "weights", "", "Start from these: a file or WORKDIR[@STEP].")
        flags.DEFINE_boolean("plan", False, "Print the plan and stop.", flag_values=values)

    words, overrides = split_overrides(arguments)
    values = parse("reproduce", words, define)
    names = ("data", "benchmarks", "out", "config", "methods", "seeds", "resolutions", "scenarios")
    need("reproduce", values, *names)
    seeds, resolutions = ranges("seeds", values.seeds), _resolutions(values)
    scenarios = values.scenarios
    if values.protocols and "protocols" not in scenarios:  # the folder asks for them, as in a sweep
        scenarios = [*scenarios, "protocols"]
    from crfr.reproduce import reproduce

    reproduce(
        data=values.data,
        benchmarks=values.benchmarks,
        out=folder("out", values.out),
        config=values.config,
        overrides=overrides,
        methods=values.methods,
        seeds=seeds,
        resolutions=resolutions,
        scenarios=scenarios,
        protocols=Path(values.protocols) if values.protocols else None,
        weights=values.weights,
        plan=values.plan,
    )
