"""Training images and labels by index, whatever holds them."""

import sys
import threading
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, UInt8

from crfr.data import faces
from crfr.data.images import decode
from crfr.data.packs import Pack
from crfr.errors import InputError, unknown


@runtime_checkable
class Source(Protocol):
    classes: int  # labels are 0..classes-1

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict:
        """{"image": encoded bytes or uint8 [h w 3], "label": int}; the image is not decoded."""
        ...

    def where(self, index: int) -> str:
        """Names the item, by file and key, in error messages."""
        ...

    def identity(self, label: int) -> str:
        """The name of a label's identity: its folder's, or else the label."""
        ...


def open_source(spec: str) -> Source:
    """The source named by `spec`: a path to a `.rec`, or `faces[:identities=N,images=N,seed=S]`.

    InputError for a spec or path that names nothing, and for a pack whose files contradict each
    other.  Labels and images are checked when they are read: a pack may hold 5.8 million.
    """
    kind = spec.partition(":")[0]
    if kind == "faces":
        settings = faces.parse_faces(spec, identities=150, images=16, seed=0)
        return faces.Faces(split="train", **settings)
    if spec.endswith(".rec") or Path(spec).is_dir():
        return Pack(spec)
    if Path(spec).exists():
        raise InputError(f"{spec}: is not a pack; name its .rec file, or 'faces'")
    raise unknown("source", kind, ["faces", "a path ending in .rec"])


@runtime_checkable
class Gatherer(Source, Protocol):
    """A source that reads a whole batch at once, decoded, faster than one by one."""

    def gather(
        self, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int32[np.ndarray, " b"]]: ...


class Unreadable:
    """The images that could not be read so far, of which `limit` are tolerated; thread-safe.

    Each is named on stderr.  The next one after the limit raises its own error.
    """

    def __init__(self, limit: int = 0):
        self.limit = limit
        self.found: dict[int, str] = {}  # index -> what was wrong
        self._lock = threading.Lock()

    def add(self, index: int, error: InputError) -> None:
        with self._lock:
            if index in self.found:
                return
            if len(self.found) >= self.limit:
                allowed = f" ({self.limit} tolerated before it)" if self.limit else ""
                raise InputError(
                    f"{error}{allowed}; or tolerate some: --skip-unreadable=N, in training "
                    "--config.run.skip_unreadable=N"
                ) from error
            self.found[index] = str(error)
            print(f"skipped {len(self.found)}/{self.limit}: {error}", file=sys.stderr)


def read_batch(
    source: Source, indices: Int[np.ndarray, " b"], unreadable: Unreadable, size: int = 112
) -> tuple[UInt8[np.ndarray, "b h w c"], Int32[np.ndarray, " b"]]:
    """Images [b size size 3] RGB and labels [b] of a batch of indices.

    In the place of an image that is tolerated as unreadable stands the next one of the source that
    can be read, so that a batch depends on the indices and the data alone.  Raises InputError as
    `read_example` does.
    """
    if isinstance(source, Gatherer):
        return source.gather(indices)
    images = np.empty((len(indices), size, size, 3), np.uint8)
    labels = np.empty(len(indices), np.int32)
    for row, first in enumerate(indices.tolist()):
        for offset in range(len(source)):
            index = (first + offset) % len(source)
            try:
                example = read_example(source, index, size)
            except InputError as error:
                unreadable.add(index, error)
                continue
            images[row], labels[row] = example["image"], example["label"]
            break
    return images, labels


def read_example(source: Source, index: int, size: int = 112) -> dict:
    """{"image": uint8 [size size 3] RGB, "label": int}; InputError for any other image."""
    where, example = source.where(index), source[index]
    image = decode(example["image"], where)
    if image.shape != (size, size, 3):
        height, width = image.shape[:2]
        raise InputError(
            f"{where}: the image is {width}x{height} px (width x height), not {size}x{size}; "
            f"align the faces and crop them to {size} px before packing"
        )
    return {"image": image, "label": example["label"]}
