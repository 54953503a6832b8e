"""Parsing of `--flag=value ...`, for the commands in main: absl's flags, ml_collections' configs.

Everything that cannot be parsed is an InputError of one line, with the nearest known name.
"""

import math
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from crfr.errors import InputError, one_line, unknown

Flags = flags.FlagValues


def parse(
    command: str,
    arguments: list[str],
    define: Callable[[Flags], None],
    positional: Sequence[str] = (),
    notes: str = "",
) -> Flags:
    """Parse a command's arguments into flags of its own; raises InputError for what it does not
    know.

    `positional` names what is given without --, before, between or after the flags (after a `--`
    whatever it begins with); each becomes a flag's value.  `notes` end the help.
    """
    values = Flags()
    if positional:
        values.set_gnu_getopt(True)
    flags.DEFINE_boolean("help", False, "Show the flags of this command.", flag_values=values)
    define(values)
    try:
        rest = values([f"crfr {command}", *arguments])[1:]
    except flags.Error as error:
        raise InputError(f"{command}: {one_line(error)}") from error
    if len(rest) > len(positional):
        wanted = f"; it takes {' '.join(positional)} and flags" if positional else "; flags are"
        raise InputError(
            f"{command}: unexpected argument {rest[len(positional)]!r}{wanted} --name=value"
        )
    if values.help:
        words = ["--flag=value ...", *positional] if positional else []
        line = " ".join([f"crfr {command}", *words])
        print(f"{line}\n{values.get_help()}" + (f"\n{notes}" if notes else ""))
        sys.exit(0)
    if len(rest) < len(positional):
        raise InputError(
            f"{command}: {positional[len(rest)]} is missing: crfr {command} --flag=value ... "
            f"{' '.join(positional)}; see crfr {command} --help"
        )
    for name, value in zip(positional, rest, strict=True):
        flags.DEFINE_string(name, value, "", flag_values=values)
    return values


def string(values: Flags, name: str, default: str | None, text: str) -> None:
    flags.DEFINE_string(name, default, text, flag_values=values)


def number(values: Flags, name: str, default: float | None, text: str, low: float = 0.0) -> None:
    """A flag for a finite number above 0, of `low` or more."""
    flags.DEFINE_float(name, default, text, flag_values=values)
    flags.register_validator(
        name,
        lambda given: given is None or (0 < given < math.inf and given >= low),
        f"give a number {f'of {low:g} or more' if low else 'above 0'}",
        flag_values=values,
    )


def process_flags(values: Flags) -> None:
    """The flags of a command that runs in several processes at once (docs/distributed.md)."""
    text = "This is one of several processes that run this command (docs/distributed.md)."
    flags.DEFINE_boolean("distributed", False, text, flag_values=values)
    string(values, "coordinator", None, "HOST:PORT of process 0, where nothing tells it.")
    for name, default, text in (
        ("processes", None, "How many there are, where nothing tells it."),
        ("process", None, "Which of them this is, from 0, where nothing tells it."),
        ("connect-timeout", 300, "Seconds until all have to be there."),
        ("lost-after", 60, "Seconds until one that is not heard of any more is given up."),
    ):
        low = 0 if name == "process" else 1
        flags.DEFINE_integer(name, default, text, lower_bound=low, flag_values=values)


def joined(command: str, values: Flags) -> AbstractContextManager[None]:
    """Join the other processes, for a `with` around a command, before JAX is asked for devices.

    Without --distributed it does nothing.
    """
    if not values.distributed:
        for name in ("coordinator", "processes", "process", "connect-timeout", "lost-after"):
            if values[name].present:
                raise InputError(f"{command}: --{name} is for several processes; add --distributed")
        return nullcontext()
    from crfr import distributed

    return distributed.joined(
        values.coordinator,
        values.processes,
        values.process,
        connect_timeout=values["connect-timeout"].value or 0,
        lost_after=values["lost-after"].value or 0,
    )


def need(command: str, values: Flags, *names: str) -> None:
    """InputError for the first of the flags that is not given, or empty."""
    for name in names:
        if values[name].value in (None, "", []):
            raise InputError(f"{command}: --{name} is missing; see crfr {command} --help")


def folder(name: str, text: str) -> Path:
    """A place to write to, on this host."""
    if "://" in text:
        raise InputError(f"--{name}={text}: is a URL; write to a local folder and copy it there")
    return Path(text)


def integers(name: str, texts: list[str]) -> list[int]:
    """Whole numbers in the order given; InputError for anything else."""
    for text in texts:
        if not (text.strip().isascii() and text.strip().isdecimal()):
            raise InputError(f"--{name}: {text!r} is not a whole number; give them as 7,14,28")
    return [int(text) for text in texts]


def ranges(name: str, texts: list[str]) -> list[int]:
    """Whole numbers and ranges of them, both ends included: ["7", "10-12"] -> [7, 10, 11, 12]."""
    found = []
    for text in texts:
        first, dash, last = (part.strip() for part in text.partition("-"))
        if not all(n.isascii() and n.isdecimal() for n in (first, last if dash else first)):
            raise InputError(
                f"--{name}: {text!r} is not a whole number, nor a range; give them as 7,14,40-56"
            )
        low, high = int(first), int(last if dash else first)
        if not low <= high < 10**6:
            raise InputError(f"--{name}: {text!r} is an empty or endless range")
        found += range(low, high + 1)
    return sorted(set(found))


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(the other arguments, those of the form --config.KEY=VALUE)"""
    rest, overrides, words = [], [], iter(arguments)
    for word in words:
        if not re.match(r"--?config\.", word):
            rest.append(word)
        else:
            overrides.append(word if "=" in word else f"{word}={next(words, '')}")
    return rest, overrides


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
            named = Path(file).parent in (Path("."), Path("configs"))
            if named and (folder / Path(file).name).is_file():
                return f"{folder / Path(file).name}{colon}{argument}"
            raise unknown("config", file, [f"configs/{p.name}" for p in folder.glob("*.py")])
    raise InputError(f"config {file!r}: no such file")


def parse_config(command: str, arguments: list[str], define: Callable[[Flags], None]) -> Flags:
    """As `parse`, for commands that take --config; names the nearest key for one that is not
    there, and the line of a config file whose code fails.
    """
    resolved, file, words = [], "", iter(arguments)
    for argument in words:
        name, equals, value = argument.partition("=")
        if name in ("-config", "--config"):
            found = find_config(value if equals else next(words, ""))
            argument, file = f"--config={found}", found.partition(":")[0]
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
        values = parse(command, resolved, define_all)
        if values.config is not None:
            values.config.get("seed")  # raises what ml_collections kept for later, an OSError
        return values
    except Exception as error:  # a config file is a program: it may raise anything
        chain: list[BaseException] = [error]
        while chain[-1].__context__ is not None:
            chain.append(chain[-1].__context__)
        if chain[-1] is error and isinstance(error, InputError):
            raise
        # no failure: a config file refuses its argument; ml_collections made another error of it
        if isinstance(chain[-1], InputError):
            raise InputError(f"{command}: {chain[-1]}") from error
        fault = next(filter(None, (_place(link, file) for link in reversed(chain))), None)
        if "'get_config'" in str(chain[-1]):
            fault = f"{file}: defines no get_config(argument=None)"
        # ml_collections reports an unknown key by the error of the access that failed
        elif fault is None and isinstance(error, AttributeError | KeyError):
            fault = f"{command}: unknown key {_one_line(error)}"
        elif fault is None and isinstance(error, OSError):
            fault = f"{file}: {_one_line(error)}"
        if fault is None:
            raise
        raise InputError(fault) from error


def _place(error: BaseException, file: str) -> str | None:
    """ "FILE:LINE: what" where the error arose in the code of the config file; else None."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if file and frame.filename == file:
            return f"{file}:{frame.lineno}: {type(error).__name__}: {_one_line(error)}"
    return None


def _one_line(error: BaseException) -> str:
    """The message, without ml_collections' dump of all keys."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    message = str(error.args[0] if error.args else error)
    return one_line(re.sub(r'Other fields present: ".*"\n', "", message, flags=re.S))
