"""The command line: `crfr COMMAND --flag=value ...`.  Parses, calls one function, nothing else.

Bad input ends with one line on stderr and exit code 2.  Modules that start JAX are imported by the
command that needs them, so that errors in the arguments come at once.
"""

import sys
from logging import CRITICAL, getLogger
from pathlib import Path

from absl import flags, logging

from crfr.analysis import dataset, protocols, report, reproduce, sweep
from crfr.arguments import (
    Flags,
    folder,
    joined,
    need,
    number,
    parse,
    parse_config,
    process_flags,
    string,
)
from crfr.bench.main import bench
from crfr.errors import InputError, actionable, unknown
from crfr.sharing import card, export
from crfr.usage import calibrate, embed, search, verify


def train(arguments: list[str]) -> None:
    """Train a model, or go on with its training."""

    def define(values: Flags) -> None:
        string(
            values, "workdir", None, "Folder of the run; the same command again goes on with it."
        )
        text = "Profile so many steps, from the sixth of this start on, into WORKDIR/traces."
        flags.DEFINE_integer("trace", 0, text, lower_bound=0, flag_values=values)
        process_flags(values)

    values = parse_config("train", arguments, define)
    need("train", values, "config", "workdir")
    workdir = folder("workdir", values.workdir)
    with joined("train", values):
        from crfr import commands

        commands.train(values.config, workdir, trace=values.trace)


def config(arguments: list[str]) -> None:
    """Show every key of a config, its value and what it means."""

    def define(values: Flags) -> None:
        text = "Print the table of docs/configs.md instead."
        flags.DEFINE_boolean("markdown", False, text, flag_values=values)

    values = parse_config("config", arguments, define)
    from crfr.keys import key_lines, key_table
    from crfr.recipe import check_config, recipe
    from crfr.workdir import flat

    defaults = flat(recipe().to_dict())
    shown = defaults
    if values.config is not None:
        check_config(values.config)
        shown = flat(values.config.to_dict())
    print(key_table(shown) if values.markdown else "\n".join(key_lines(shown, defaults)))


def quickstart(arguments: list[str]) -> None:
    """Train three methods on procedural faces, sweep and report: minutes on a CPU."""

    def define(values: Flags) -> None:
        string(values, "out", "quickstart", "Folder for everything it makes.")
        number(values, "epochs", None, "Shorter or longer training.")

    values = parse("quickstart", arguments, define)
    from crfr.quickstart import quickstart

    quickstart(folder("out", values.out), values.epochs)


def convert(arguments: list[str]) -> None:
    """Write any source as TFDS or raw shards, once for all trainings."""

    def define(values: Flags) -> None:
        string(values, "data", None, "Source spec.")
        string(values, "out", None, "Folder for the shards; the same command again goes on.")
        flags.DEFINE_enum("format", "raw", ["raw", "tfds"], "Of the shards.", flag_values=values)
        flags.DEFINE_integer(
            "shard-images", 4096, "Images a shard.", lower_bound=1, flag_values=values
        )
        flags.DEFINE_integer("workers", None, "Threads.", lower_bound=1, flag_values=values)
        string(values, "drop-identities", "", "File of identities to leave out, one a line.")
        string(values, "dedupe-against", "", "Leave out what shows images of this benchmark.")
        flags.DEFINE_integer(
            "skip-unreadable", 0, "Images to tolerate.", lower_bound=0, flag_values=values
        )

    values = parse("convert", arguments, define)
    need("convert", values, "data", "out")
    from crfr import prepare

    prepare.convert(
        values.data,
        folder("out", values.out),
        format=values.format,
        shard_images=values["shard-images"].value or 1,
        workers=values.workers,
        drop_identities=Path(names) if (names := values["drop-identities"].value) else None,
        dedupe_against=values["dedupe-against"].value or "",
        skip_unreadable=values["skip-unreadable"].value or 0,
    )


def doctor(arguments: list[str]) -> None:
    """Examine data before training; exit code 1 if something would spoil it."""

    def define(values: Flags) -> None:
        string(values, "data", None, "Source spec.")
        string(values, "benchmark", "", "Benchmark spec, whose images should not be in the data.")
        string(values, "out", "doctor", "Folder for doctor.json and the pictures.")
        flags.DEFINE_integer("sample", None, "Images to draw at random.", flag_values=values)
        flags.DEFINE_integer("workers", None, "Threads.", lower_bound=1, flag_values=values)

    values = parse("doctor", arguments, define)
    need("doctor", values, "data", "out")
    from crfr import prepare

    spoilt = prepare.doctor(
        values.data,
        values.benchmark,
        folder("out", values.out),
        values.sample,
        workers=values.workers,
    )
    if spoilt:
        sys.exit(1)


def holdout(arguments: list[str]) -> None:
    """Hold identities out of a training set and make a benchmark of pairs of them."""

    def define(values: Flags) -> None:
        string(values, "data", None, "Source spec.")
        string(values, "out", None, "The benchmark, NAME.bin; the names go to NAME.identities.")
        for name, default, text in (
            ("identities", 10, "How many to hold out."),
            ("pairs", 6000, "Half of one person, half of two."),
            ("seed", 0, "Of the draw."),
        ):
            flags.DEFINE_integer(name, default, text, lower_bound=0, flag_values=values)
        string(values, "drop-identities", "", "File of identities that are not drawn, one a line.")

    values = parse("holdout", arguments, define)
    need("holdout", values, "data", "out")
    from crfr import prepare

    names = values["drop-identities"].value
    prepare.holdout(
        values.data,
        folder("out", values.out),
        identities=values.identities,
        pairs=values.pairs,
        seed=values.seed,
        drop_identities=Path(names) if names else None,
    )


COMMANDS = {
    f.__name__: f
    for f in (
        *(train, sweep, report, reproduce, quickstart, config),
        *(calibrate, verify, embed, search, export, card),
        *(convert, holdout, doctor, protocols, dataset, bench),
    )
}


def usage() -> str:
    lines = [f"  {name:<11} {(f.__doc__ or '').splitlines()[0]}" for name, f in COMMANDS.items()]
    return "\n".join(
        ["usage: crfr COMMAND --flag=value ...", *lines, "crfr COMMAND --help: its flags"]
    )


def run(arguments: list[str]) -> None:
    """Run one command; raises InputError for bad input."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage())
        return
    if arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], COMMANDS)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["crfr"])  # Grain reads absl's global flags
    # Orbax warns of what is asked for, such as reading only, and of a failed save it and asyncio
    # print a traceback an array, besides raising the error that is reported here
    logging.set_verbosity(logging.FATAL)
    getLogger("asyncio").setLevel(CRITICAL)
    COMMANDS[arguments[0]](arguments[1:])


def main() -> None:
    # names of files need not be UTF-8
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        run(sys.argv[1:])
    except (InputError, OSError) as error:
        text = actionable(error)
        if text is None:
            raise
        print(f"crfr: {text}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
