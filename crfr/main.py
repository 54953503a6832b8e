"""The command line: `crfr COMMAND --flag=value ...`.  Parses, calls one function, nothing else.

Bad input ends with one line on stderr and exit code 2.  Modules that start JAX are imported by the
command that needs them, so that errors in the arguments come at once.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from crfr.errors import InputError, unknown

RESOLUTIONS = ["7", "14", "28", "56", "112"]
Flags = flags.FlagValues


def _parse(command: str, arguments: list[str], define: Callable[[Flags], None]) -> Flags:
    """Parse a command's arguments into flags of its own; raises InputError for what it does not
    know.
    """
    values = Flags()
    flags.DEFINE_boolean("help", False, "Show the flags of this command.", flag_values=values)
    define(values)
    try:
        rest = values([f"crfr {command}", *arguments])[1:]
    except flags.Error as error:
        # ml_collections quotes the whole traceback of a config file; its last line is the message
        message = str(error).rpartition("InputError: ")[2]
        raise InputError(f"{command}: {' '.join(message.split())}") from error
    if rest:
        raise InputError(f"{command}: unexpected argument {rest[0]!r}; flags are --name=value")
    if values.help:
        print(f"crfr {command}\n{values.get_help()}")
        sys.exit(0)
    return values


def _string(values: Flags, name: str, default: str | None, text: str) -> None:
    flags.DEFINE_string(name, default, text, flag_values=values)


def _need(command: str, values: Flags, *names: str) -> None:
    for name in names:
        if values[name].value in (None, "", []):
            raise InputError(f"{command}: --{name} is missing; see crfr {command} --help")


def _integers(name: str, texts: list[str]) -> list[int]:
    for text in texts:
        if not (text.strip().isascii() and text.strip().isdecimal()):
            raise InputError(f"--{name}: {text!r} is not a whole number; give them as 7,14,28")
    return [int(text) for text in texts]


def find_config(path: str) -> str:
    """The path of a config file: as given, or else among the configs that crfr brings.

    Raises InputError with the nearest name where there is none.
    """
    file, colon, argument = path.partition(":")
    if not file.endswith(".py"):
        raise InputError(f"config {file!r}: a config is a Python file, as configs/bt_m.py")
    if Path(file).is_file():
        return path
    here = Path(__file__).parent
    for folder in (here / "configs", here.parent / "configs"):  # in a wheel; in a checkout
        if folder.is_dir():
            if (folder / Path(file).name).is_file() and Path(file).parent.name in ("", "configs"):
                return f"{folder / Path(file).name}{colon}{argument}"
            raise unknown("config", file, [f"configs/{p.name}" for p in folder.glob("*.py")])
    raise InputError(f"config {file!r}: no such file")


def _parse_config(command: str, arguments: list[str], define: Callable[[Flags], None]) -> Flags:
    """As `_parse`, for commands that take --config; names the nearest key for one that is not
    there.
    """
    resolved = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        name = "-" + name if name == "-config" else name
        if name == "--config" and equals:
            argument = f"{name}={find_config(value)}"
        elif position and arguments[position - 1] in ("-config", "--config"):
            argument = find_config(argument)
        resolved.append(argument)

    def define_all(values: Flags) -> None:
        config_flags.DEFINE_config_file(
            "config",
            None,
            "FILE.py[:ARGUMENTS]; --config.KEY=VALUE.",
            flag_values=values,
            sys_argv=["crfr", *resolved],  # where it looks for the --config.KEY=VALUE
        )
        define(values)

    try:
        return _parse(command, resolved, define_all)
    # ml_collections reports an unknown key by the error of the access that failed
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{command}: unknown key {' '.join(str(error.args[0]).split())}"
        ) from error


def train(arguments: list[str]) -> None:
    """Train a model, or go on with its training."""

    def define(values: Flags) -> None:
        _string(
            values, "workdir", None, "Folder of the run; the same command again goes on with it."
        )

    values = _parse_config("train", arguments, define)
    _need("train", values, "config", "workdir")
    from crfr import commands

    commands.train(values.config, Path(values.workdir))


def sweep(arguments: list[str]) -> None:
    """Measure a model on a benchmark at every resolution."""

    def define(values: Flags) -> None:
        _string(values, "model", None, "WORKDIR[@STEP] of a training run.")
        _string(
            values, "benchmark", None, "Benchmark: a path to .bin, or faces[:identities=N,...]."
        )
        _string(
            values, "out", None, "Folder for rows.jsonl; the same command again goes on with it."
        )
        flags.DEFINE_list("resolutions", RESOLUTIONS, "Resolutions in px.", flag_values=values)
        _string(values, "thresholds", "exact", "exact, insightface or knoche.")
        _string(values, "degradation", "bicubic", "bicubic, bilinear, area, quantize or noclip.")
        flags.DEFINE_boolean("flip", False, "Add the mirror image's embedding.", flag_values=values)
        flags.DEFINE_integer("batch", 256, "Images a batch.", lower_bound=1, flag_values=values)

    values = _parse("sweep", arguments, define)
    _need("sweep", values, "model", "benchmark", "out", "resolutions")
    resolutions = _integers("resolutions", values.resolutions)
    from crfr import commands
    from crfr.evaluate.verification import MODES
    from crfr.views.degrade import VARIANTS

    if values.thresholds not in MODES:
        raise unknown("--thresholds", values.thresholds, MODES)
    if values.degradation not in VARIANTS:
        raise unknown("--degradation", values.degradation, VARIANTS)
    commands.sweep(
        values.model,
        values.benchmark,
        resolutions,
        Path(values.out),
        thresholds=values.thresholds,
        degradation=values.degradation,
        flip=values.flip,
        batch=values.batch,
    )


def report(arguments: list[str]) -> None:
    """Write one HTML page from sweeps."""

    def define(values: Flags) -> None:
        flags.DEFINE_list("sweep", [], "Sweep folders, DIR[,DIR...].", flag_values=values)
        _string(values, "out", "report.html", "The page to write.")

    values = _parse("report", arguments, define)
    _need("report", values, "sweep")
    from crfr.report.page import write_report

    write_report([Path(folder) for folder in values.sweep], Path(values.out))
    print(values.out)


def quickstart(arguments: list[str]) -> None:
    """Train three methods on procedural faces, sweep and report: minutes on a CPU."""

    def define(values: Flags) -> None:
        _string(values, "out", "quickstart", "Folder for everything it makes.")
        flags.DEFINE_float("epochs", None, "Shorter or longer training.", flag_values=values)

    values = _parse("quickstart", arguments, define)
    from crfr.quickstart import quickstart

    quickstart(Path(values.out), values.epochs)


def bench(arguments: list[str]) -> None:
    """Measure speed: crfr bench step."""
    if not arguments or arguments[0] not in ("step",):
        raise unknown("bench command", arguments[0] if arguments else "", ["step"])

    def define(values: Flags) -> None:
        flags.DEFINE_integer("classes", 85742, "Identities.", lower_bound=2, flag_values=values)
        flags.DEFINE_integer("repeats", 10, "Timed steps.", lower_bound=2, flag_values=values)
        _string(values, "out", "", "Also write the figures to this JSON file.")

    values = _parse_config("bench step", arguments[1:], define)
    _need("bench step", values, "config")
    from crfr.bench.step import bench_step

    bench_step(
        values.config, values.classes, values.repeats, Path(values.out) if values.out else None
    )


COMMANDS = {f.__name__: f for f in (train, sweep, report, quickstart, bench)}


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
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what is asked for, such as reading only
    COMMANDS[arguments[0]](arguments[1:])


def main() -> None:
    try:
        run(sys.argv[1:])
    except InputError as error:
        print(f"crfr: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder without rights: it names the file
        print(f"crfr: {error}; make room or choose another place", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
