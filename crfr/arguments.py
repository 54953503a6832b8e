"""Parsing of `--flag=value ...`, for the commands in main: absl's flags, ml_collections' configs.

Everything that cannot be parsed is an InputError of one line, with the nearest known name.
"""

import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from crfr.errors import InputError, unknown

Flags = flags.FlagValues
# what the code of a config file may raise
FAULTS = (
    *(ArithmeticError, AttributeError, ImportError, LookupError, NameError, SyntaxError),
    *(TypeError, ValueError),
)


def parse(command: str, arguments: list[str], define: Callable[[Flags], None]) -> Flags:
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


def string(values: Flags, name: str, default: str | None, text: str) -> None:
    flags.DEFINE_string(name, default, text, flag_values=values)


def need(command: str, values: Flags, *names: str) -> None:
    for name in names:
        if values[name].value in (None, "", []):
            raise InputError(f"{command}: --{name} is missing; see crfr {command} --help")


def integers(name: str, texts: list[str]) -> list[int]:
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


def parse_config(command: str, arguments: list[str], define: Callable[[Flags], None]) -> Flags:
    """As `parse`, for commands that take --config; names the nearest key for one that is not
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
        return parse(command, resolved, define_all)
    except (InputError, *FAULTS) as error:
        fault = _fault_in_config(error, resolved)
        if fault is None and isinstance(error, InputError):
            raise
        # ml_collections reports an unknown key by the error of the access that failed
        fault = fault or f"{command}: unknown key {_one_line(error)}"
        if "no attribute 'get_config'" in fault:
            fault = f"{command}: the config file defines no get_config(argument=None)"
        raise InputError(fault) from error


def _fault_in_config(error: BaseException, arguments: list[str]) -> str | None:
    """ "FILE:LINE: what" where the code of the reader's own config file failed; else None."""
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    if isinstance(chain[-1], InputError):  # no failure: it refuses its argument
        return None
    if isinstance(chain[-1], SyntaxError):
        return f"{chain[-1].filename}:{chain[-1].lineno}: {chain[-1].msg}"
    for link in reversed(chain):
        for frame in reversed(traceback.extract_tb(link.__traceback__)):
            if frame.filename.endswith(".py") and f"={frame.filename}" in " ".join(arguments):
                what = f"{type(link).__name__}: {_one_line(link)}"
                return f"{frame.filename}:{frame.lineno}: {what}"
    return None


def _one_line(error: BaseException) -> str:
    """The message, without ml_collections' dump of all keys."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = re.sub(r'Other fields present: ".*"\n', "", str(error.args[0]), flags=re.S)
    return " ".join(text.split())
