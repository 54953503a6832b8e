"""What a killed `crfr embed` leaves for the next call: the faces embedded so far, a part a minute.

A part is an index (index.py) in OUT.partial/.  Its record says of which model, detector and folder
it is, and for every face the size and time of its file: what is not the same is embedded anew.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from crfr.errors import InputError
from crfr.use.faces import Faces, pick
from crfr.use.index import read_index, write_index

SECONDS = 60  # of work between two parts

Stamp = list[int]  # bytes and time of change, ns


def stamp(path: str) -> Stamp | None:
    """Of a file as it is now; None where there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def write_part(work: Path, faces: Faces, stamps: list[Stamp | None], made: dict[str, Any]) -> None:
    """Keep faces of files as they were at `stamps`, and what they are `made` of and by."""
    number = len([*work.glob("*.npz")])
    about = {"made": made, "stamps": stamps, "found": faces.found.tolist(), "notes": faces.notes}
    model = {key: made[key] for key in ("model", "step", "model_fingerprint")}
    write_index(work / f"{number:06}.npz", faces, model | about)


def read_parts(work: Path, made: dict[str, Any]) -> list[Faces]:
    """The faces kept that are `made` so, of files that are still as they were."""
    parts = []
    for path in sorted(work.glob("*.npz")):
        try:
            index = read_index(path)
        except InputError:  # damaged: its images are embedded anew
            continue
        about = index.about
        if about.get("made") != made:
            continue
        names = tuple(os.fsdecode(name) for name in index.paths)
        notes = tuple(tuple(lines) for lines in about["notes"])
        found = np.array(about["found"], np.int32)
        held = zip(names, about["stamps"], strict=True)
        same = [row for row, (name, then) in enumerate(held) if then and stamp(name) == then]
        parts.append(pick(Faces(index.embedding, index.resolution, found, names, notes), same))
    return parts
