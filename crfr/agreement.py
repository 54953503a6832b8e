"""What several processes have to agree on; a process by itself agrees with itself.

Process 0 alone writes files and talks.  What all depend on is done by `on_leader`, `together` and
`require_same`, which fail in all processes alike, so that all end in good order.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from crfr.errors import InputError

Result = TypeVar("Result")


class SharedError(InputError):
    """Bad input that every process has learnt of; all end in good order, and process 0 says why."""


def leader() -> bool:
    """Whether this is process 0, which alone writes files and talks; so is a process by itself."""
    return jax.process_index() == 0


def gather(text: str) -> list[str]:
    """The text of every process, in their order."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    longest = int(multihost_utils.process_allgather(np.int32(len(data))).max())
    padded = np.zeros((longest // 1024 + 1) * 1024, np.uint8)  # one program for most texts
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row).rstrip(b"\0").decode() for row in rows]


def together(function: Callable[[], Result]) -> Result:
    """What a function returns, in each process; where it raises InputError in one, all raise it.

    The function itself must not exchange anything with other processes.
    """
    if jax.process_count() == 1:
        return function()
    result, refusal = None, ""
    try:
        result = function()
    except InputError as error:
        refusal = str(error)
    refusals = gather(refusal)
    if any(refusals):
        first = next(number for number, text in enumerate(refusals) if text)
        where = "" if all(refusals) else f"process {first} of {len(refusals)}: "
        raise SharedError(where + refusals[first])
    return result  # pyright: ignore[reportReturnType]


def on_leader(function: Callable[[], object]) -> None:
    """Have process 0 do something while the others wait; its InputError is raised in all."""

    def act() -> None:
        if leader():
            function()

    together(act)


def require_same(facts: Mapping[str, object]) -> None:
    """Refuse processes whose facts differ from those of process 0, naming them.

    `facts`: what it is -> its value, of which the repr is compared; InputError in all processes.
    """
    lines = "\n".join(f"{name}\t{value!r}" for name, value in facts.items())
    every = [dict(line.split("\t", 1) for line in text.splitlines()) for text in gather(lines)]
    for number, here in enumerate(every):
        first = every[0]
        differing = [
            f"{name} ({here.get(name, 'absent')}, not {first.get(name, 'absent')})"
            for name in {**first, **here}
            if first.get(name) != here.get(name)
        ]
        if differing:
            raise SharedError(
                f"process {number} of {len(every)} differs from process 0 in "
                f"{', '.join(differing)}; give all processes the same command, data and crfr"
            )
