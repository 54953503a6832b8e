"""The flags of `crfr bench step`, `embed`, `memory`, `input`, `sweep` and `kills`."""

from pathlib import Path

from absl import flags

from crfr.arguments import (
    Flags,
    folder,
    integers,
    need,
    number,
    parse,
    parse_config,
    ranges,
    string,
)
from crfr.errors import InputError, unknown


def _repeated(values: Flags) -> None:
    flags.DEFINE_integer("repeats", 10, "Of each timing.", lower_bound=2, flag_values=values)
    text = "In a row, for each repeat; 0: so many as last a third of a second."
    flags.DEFINE_integer("steps", 0, text, lower_bound=0, flag_values=values)


def bench_step(arguments: list[str]) -> None:
    """Time the training step of a config."""

    def define(values: Flags) -> None:
        flags.DEFINE_integer("classes", 85742, "Identities.", lower_bound=2, flag_values=values)
        text = "The first so many; all without it."
        flags.DEFINE_integer("devices", None, text, lower_bound=1, flag_values=values)
        _repeated(values)
        text = "Also time programs that leave parts out: what each part costs."
        flags.DEFINE_boolean("parts", True, text, flag_values=values)
        text = "TFLOP/s of a device, for the share of them (MFU); known ones need none."
        number(values, "peak", None, text)
        text = "Measure a large product and a large copy too."
        flags.DEFINE_boolean("ceilings", False, text, flag_values=values)
        string(values, "profile", "", "Folder for a profile of five steps.")
        string(values, "out", "", "Also write the figures to this JSON file.")

    values = parse_config("bench step", arguments, define)
    need("bench step", values, "config")
    from crfr.bench.step import bench_step

    bench_step(
        values.config,
        values.classes,
        devices=values.devices,
        repeats=values.repeats,
        steps=values.steps,
        parts=values.parts,
        peak=values.peak,
        ceilings=values.ceilings,
        profile_to=Path(values.profile) if values.profile else None,
        out=Path(values.out) if values.out else None,
    )


def bench_embed(arguments: list[str]) -> None:
    """Time the embedding of images at any resolution."""

    def define(values: Flags) -> None:
        string(values, "model", "", "WORKDIR[@STEP]; or else --config, with random weights.")
        flags.DEFINE_list("batches", ["256"], "Images a batch.", flag_values=values)
        flags.DEFINE_list("precisions", ["float32"], "Of float32, bfloat16.", flag_values=values)
        _repeated(values)
        string(values, "out", "", "Also write the figures to this JSON file.")

    values = parse_config("bench embed", arguments, define)
    if (values.config is None) == (not values.model):
        raise InputError("bench embed: give --config or --model, one of them")
    batches = integers("batches", values.batches)
    need("bench embed", values, "batches", "precisions")
    if 0 in batches:
        raise InputError("bench embed: --batches are 1 or more")
    from crfr.bench.embed import bench_embed

    bench_embed(
        values.config,
        model=values.model,
        batches=batches,
        precisions=values.precisions,
        repeats=values.repeats,
        steps=values.steps,
        out=Path(values.out) if values.out else None,
    )


def bench_memory(arguments: list[str]) -> None:
    """Tell the memory of a config's training step without running it."""

    def define(values: Flags) -> None:
        flags.DEFINE_integer("classes", 85742, "Identities.", lower_bound=2, flag_values=values)
        flags.DEFINE_integer(
            "devices", 0, "Of the mesh; 0: those that are there.", lower_bound=0, flag_values=values
        )
        string(values, "topology", "", "Of TPUs that need not be there, as v5e:2x4.")
        string(values, "out", "", "Also write the figures to this JSON file.")

    values = parse_config("bench memory", arguments, define)
    need("bench memory", values, "config")
    if values.devices and values.topology:
        raise InputError("bench memory: --topology tells the devices; leave --devices out")
    from crfr.bench.memory import bench_memory, on_virtual_devices

    if not on_virtual_devices(values.devices, arguments):
        out = Path(values.out) if values.out else None
        bench_memory(
            values.config,
            values.classes,
            devices=values.devices,
            topology=values.topology,
            out=out,
        )


def bench_input(arguments: list[str]) -> None:
    """Time the reading of training data."""

    def define(values: Flags) -> None:
        flags.DEFINE_multi_string("data", [], "Source specs, one a flag.", flag_values=values)
        flags.DEFINE_integer("batch", 128, "Images a batch.", lower_bound=1, flag_values=values)
        flags.DEFINE_list("threads", ["1", "2", "4"], "Numbers of threads.", flag_values=values)
        flags.DEFINE_list("workers", [], "Numbers of processes, besides none.", flag_values=values)
        number(values, "seconds", 5.0, "For each row.", low=0.1)
        number(values, "need", 30000.0, "Images/s of the device.")
        string(values, "step", "", "Take --need from this file of crfr bench step --out.")
        flags.DEFINE_boolean("torch", False, "Time torch's DataLoader too.", flag_values=values)
        string(values, "out", "", "Also write the figures to this JSON file.")

    values = parse("bench input", arguments, define)
    need("bench input", values, "data", "threads")
    threads = integers("threads", values.threads)
    workers = integers("workers", values.workers)
    if 0 in (*threads, *workers):
        raise InputError("bench input: --threads and --workers are 1 or more")
    if values.step and values["need"].present:
        raise InputError("bench input: --step tells what --need says; give one of them")
    from crfr.bench.input import bench_input

    bench_input(
        values.data,
        batch=values.batch,
        threads=threads,
        workers=workers,
        seconds=values.seconds,
        need=values.need,
        step=Path(values.step) if values.step else None,
        torch=values.torch,
        out=Path(values.out) if values.out else None,
    )


def bench_sweep(arguments: list[str]) -> None:
    """Time the sweep, beside the loops of the peers' scripts."""

    def define(values: Flags) -> None:
        for name, default, text in (
            ("images", 7701, "Distinct images of the made-up embeddings: LFW's."),
            ("pairs", 6000, "Pairs of them."),
            ("embedding", 512, "Numbers an embedding."),
            ("repeats", 3, "Of each timing."),
            ("batch", 256, "Images a batch, of the sweep end to end."),
        ):
            low = {"images": 4, "pairs": 20}.get(name, 1)
            flags.DEFINE_integer(name, default, text, lower_bound=low, flag_values=values)
        flags.DEFINE_list("resolutions", ["5-112"], "In px.", flag_values=values)
        flags.DEFINE_boolean("matrix", False, "Time the matrix as well.", flag_values=values)
        string(values, "benchmark", "", "Also sweep this one, end to end.")
        five = ["7", "14", "28", "56", "112"]
        flags.DEFINE_list("swept", five, "The resolutions of this sweep.", flag_values=values)
        string(values, "network", "tiny", "Its network, with random weights.")
        string(values, "precision", "float32", "The network's: float32 or bfloat16.")
        text = "Also embed as the peers' scripts do, for each evaluation anew."
        flags.DEFINE_boolean("scripts", True, text, flag_values=values)
        string(values, "out", "", "Also write the figures to this JSON file.")

    values = parse("bench sweep", arguments, define)
    resolutions = ranges("resolutions", values.resolutions)
    from crfr.bench.sweep import bench_sweep

    bench_sweep(
        images=values.images,
        pairs=values.pairs,
        width=values.embedding,
        resolutions=resolutions,
        matrix=values.matrix,
        repeats=values.repeats,
        benchmark=values.benchmark,
        swept=ranges("swept", values.swept),
        network=values.network,
        precision=values.precision,
        batch=values.batch,
        scripts=values.scripts,
        out=Path(values.out) if values.out else None,
    )


def bench_kills(arguments: list[str]) -> None:
    """Kill trainings, conversions and sweeps at random moments, and see that nothing is lost."""

    def define(values: Flags) -> None:
        flags.DEFINE_integer("kills", 100, "How many.", lower_bound=1, flag_values=values)
        flags.DEFINE_integer("seed", 0, "Of the moments.", lower_bound=0, flag_values=values)
        flags.DEFINE_list("what", ["train", "convert", "sweep"], "Of these.", flag_values=values)
        string(values, "out", None, "A new folder for the runs and kills.json.")

    values = parse("bench kills", arguments, define)
    need("bench kills", values, "out", "what")
    from crfr.bench.kills import bench_kills

    bench_kills(values.kills, values.what, folder("out", values.out), values.seed)


BENCHES = {
    "step": bench_step,
    "embed": bench_embed,
    "memory": bench_memory,
    "input": bench_input,
    "sweep": bench_sweep,
    "kills": bench_kills,
}


def bench(arguments: list[str]) -> None:
    """Measure speed, memory, and what kills do: step, embed, memory, input, sweep, kills."""
    if arguments[:1] in (["--help"], ["-h"]):
        print("\n".join(f"crfr bench {name}: {f.__doc__}" for name, f in BENCHES.items()))
        return
    if not arguments or arguments[0] not in BENCHES:
        raise unknown("bench command", arguments[0] if arguments else "", BENCHES)
    BENCHES[arguments[0]](arguments[1:])
