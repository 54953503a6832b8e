"""Which images of a source are kept, and the labels they get: without some identities, without
duplicates.
"""

import contextlib
import difflib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from crfr.data.records import Source
from crfr.errors import InputError


class Selection(NamedTuple):
    indices: Int64[np.ndarray, " n"]  # of the source, ascending
    labels: Int64[np.ndarray, " classes"]  # of the source's label: the new one; -1: dropped
    identities: list[str]  # of the new labels
    dropped: dict[str, Any]


def check_names(source: Source, spec: str, drop: frozenset[str]) -> list[str]:
    """The names of all identities; InputError for one to `drop` that is not among them."""
    names = [source.identity(label) for label in range(source.classes)]
    for name in sorted(drop.difference(names)):
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "check the name"
        raise InputError(f"drop: no identity {name!r} in {spec}; {hint}")
    return names


def select(
    source: Source, spec: str, drop: frozenset[str], duplicates: set[int] | frozenset[int]
) -> Selection:
    """The images that stay and their labels; reads all labels where something is dropped."""
    count, classes = len(source), source.classes
    names = check_names(source, spec, drop)
    outside = [index for index in duplicates if not 0 <= index < count]
    if outside:
        raise InputError(
            f"duplicates: index {min(outside)} is outside 0..{count - 1} of {spec}; find them again"
        )
    dropped = {"identities": sorted(drop), "of_dropped_identities": 0, "duplicates": 0}
    if not drop and not duplicates:
        return Selection(np.arange(count), np.arange(classes), names, dropped)

    labels = np.full(count, -1)
    for index in tqdm(range(count), desc="reading labels", unit=" images", disable=None):
        # one that cannot be read stays, to be reported when it is written
        with contextlib.suppress(InputError):
            labels[index] = source[index]["label"]
    gone = np.array([name in drop for name in names])
    twice = np.zeros(count, bool)
    twice[list(duplicates)] = True
    unwanted = (labels >= 0) & gone[labels]
    indices = np.flatnonzero(~unwanted & ~twice)
    left = np.unique(labels[indices])
    left = left[left >= 0]
    if len(left) == 0:
        raise InputError(f"{spec}: no image is left of {count}; drop fewer identities")
    renumbered = np.full(classes, -1)
    renumbered[left] = np.arange(len(left))
    dropped["of_dropped_identities"] = int(unwanted.sum())
    dropped["duplicates"] = int((twice & ~unwanted).sum())
    return Selection(indices, renumbered, [names[label] for label in left], dropped)
