"""Errors a person can act on.

`InputError` is the one exception for bad input: a wrong flag, key, spec, file or value.  Its
message is one line that names what is wrong (file, record, value) and the remedy.  The command line
prints it and exits with code 2; any other exception is a defect in crfr and keeps its traceback.
"""

import difflib
import re
from collections.abc import Iterable
from errno import EACCES, EDQUOT, ENOSPC, EPERM, EROFS

from crfr.urls import public

# line breaks (Unicode's own too), colours of a terminal, what turns the direction of a text ...
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text in one line, with the control characters that a file's name may hold as \\xNN or
    \\uNNNN.

    >>> printable("a\\nb.png"), printable("a\\u2028b.png")
    ('a\\\\x0ab.png', 'a\\\\u2028b.png')
    """
    return CONTROL.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class InputError(ValueError):
    """Bad input; the message names the file, record or key, the value, and the remedy.

    It is one line.  What a URL in it may hold of signatures and passwords is left out.
    """

    def __init__(self, message: str):
        super().__init__(printable(public(message)))


class BusyError(InputError):
    """Another process works in a folder."""


class SpecError(InputError):
    """A spec that names nothing in data that are there, and may be sound."""


def first_line(error: object) -> str:
    """The first line of what an error says, or its type where it says nothing; 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def one_line(error: object) -> str:
    """What an error says, without its line breaks."""
    return " ".join(str(error).split())


def actionable(error: BaseException) -> str | None:
    """The line for an error that a person can act on: an InputError, or that of a disk that is
    full or may not be written; None for a defect of crfr.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EACCES, EPERM, EROFS):
        return f"{one_line(error)}; make room or choose another place"
    return None


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not among `known`, with the nearest known name.

    >>> str(unknown("command", "trian", ["train", "sweep"]))
    "unknown command 'trian': did you mean 'train'? Known: sweep, train"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(known)}")
