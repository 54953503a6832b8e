"""Training images and labels by index, whatever holds them."""

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, UInt8

from crfr.data import faces
from crfr.data.examples import open_array_records
from crfr.data.folders import Folder
from crfr.data.images import SIZE, decode_into, decode_sized
from crfr.data.packs import Pack
from crfr.data.prepared import find_prepared, is_prepared, open_folder, open_prepared
from crfr.data.raw import Raw, is_raw
from crfr.data.recordio import require_file
from crfr.data.remote import localize
from crfr.data.shards import require_finished
from crfr.data.specs import split_spec
from crfr.errors import InputError, SpecError, unknown
from crfr.urls import public


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
    """The source named by `spec`, docs/data.md has the forms; several are joined with "+".

        faces[:identities=N,images=N,seed=S]    procedural faces
        PATH.rec                                a RecordIO pack (InsightFace, im2rec)
        PATH                                    a folder of identity folders; raw shards of crfr
                                                convert; a TFDS-prepared folder; .array_record files
        tfds:NAME[:SPLIT]                       a prepared dataset of TFDS
        gs://..., s3://..., https://...         any of these paths, copied once to a local cache

    InputError for a spec or path that names nothing, and for data whose files contradict each
    other.  Labels and images are checked when they are read: a pack may hold 5.8 million.
    """
    parts = split_spec(spec)
    found = [find_source(part) for part in parts]
    sources = [place.open() for place in found]
    if len(parts) == 1:
        return sources[0]
    if all(isinstance(source, Gatherer) for source in sources):
        return JoinedGatherers(parts, sources)
    return Joined(parts, sources)


class Found(NamedTuple):
    path: Path | None  # on this host
    open: Callable[[], Source]


def find_source(spec: str) -> Found:
    """Find the data of one spec without opening them; InputError if it names none.

    What is wrong with the data themselves is raised by `open`.
    """
    kind = spec.partition(":")[0]
    if kind == "faces":
        settings = faces.parse_faces(spec, identities=150, images=16, seed=0)
        source = faces.Faces(split="train", **settings)
        return Found(None, lambda: source)
    if kind == "tfds":
        folder, split = find_prepared(spec)
        return Found(folder, partial(open_folder, folder, split))
    path = Path(localize(spec))
    if path.suffix == ".rec" and path.is_file():
        return Found(path, partial(Pack, str(path)))
    if ".array_record" in path.name and path.exists():
        return Found(path, partial(open_array_records, str(path)))
    if path.is_dir():
        return Found(path, partial(_open_folder, spec, path))
    if path.exists():
        raise InputError(f"{spec}: is none of the forms of docs/data.md, such as a .rec file")
    if path.suffix == ".rec":
        require_file(path)  # names the nearest
    if "/" in spec or path.suffix:
        raise InputError(f"{spec}: no such file or folder; check the path")
    raise unknown("source", kind, ["faces", "tfds:NAME", "a path ending in .rec", "a folder"])


def _open_folder(spec: str, path: Path) -> Source:
    require_finished(path)
    if is_raw(path):
        return Raw(path)
    if is_prepared(path):
        return open_prepared(str(path))
    if any(path.glob("*.array_record*")):
        return open_array_records(str(path))
    packs = [str(name) for name in path.glob("*.rec")]
    if packs:
        raise SpecError(f"{spec}: name the pack in it: {', '.join(sorted(packs))}")
    return Folder(path)


class Joined:
    """Several sources behind one another, a Source; the labels of each follow the last ones."""

    def __init__(self, specs: list[str], sources: list[Source]):
        self.sources = sources
        self.starts = np.cumsum([0, *(len(source) for source in sources)])
        self.labels = np.cumsum([0, *(source.classes for source in sources)])
        self.classes = int(self.labels[-1])
        for spec, source, start, label in zip(
            specs, sources, self.starts, self.labels, strict=False
        ):
            print(
                f"{public(spec)}: images {start}..{start + len(source) - 1}, labels {label}.."
                f"{label + source.classes - 1}",
                file=sys.stderr,
            )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _part(self, index: int) -> tuple[int, int]:
        """(number of the source, index in it)"""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside 0..{len(self) - 1}")
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return part, index - int(self.starts[part])

    def __getitem__(self, index: int) -> dict:
        part, inner = self._part(index)
        example = self.sources[part][inner]
        return {**example, "label": example["label"] + int(self.labels[part])}

    def where(self, index: int) -> str:
        part, inner = self._part(index)
        return self.sources[part].where(inner)

    def identity(self, label: int) -> str:
        """As the source names it, with the source's number before it: two may use one name."""
        part = int(np.searchsorted(self.labels, label, side="right")) - 1
        return f"{part}/{self.sources[part].identity(label - int(self.labels[part]))}"


@runtime_checkable
class Gatherer(Source, Protocol):
    """A source that reads a whole batch at once, decoded, faster than one by one."""

    def gather(
        self, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int32[np.ndarray, " b"]]: ...


class JoinedGatherers(Joined):
    """Joined sources that all read whole batches, a Gatherer."""

    def gather(
        self, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int32[np.ndarray, " b"]]:
        wrong = (indices < 0) | (indices >= len(self))
        if wrong.any():
            raise IndexError(f"image {indices[np.argmax(wrong)]} is outside 0..{len(self) - 1}")
        parts = np.searchsorted(self.starts, indices, side="right") - 1
        images = np.empty((len(indices), SIZE, SIZE, 3), np.uint8)
        labels = np.empty(len(indices), np.int32)
        for part, source in enumerate(self.sources):
            rows = np.flatnonzero(parts == part)
            if len(rows) and isinstance(source, Gatherer):
                images[rows], found = source.gather(indices[rows] - self.starts[part])
                labels[rows] = found + self.labels[part]
        return images, labels


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
                    f"{error}{allowed}; or tolerate some: crfr convert --skip-unreadable=N, crfr "
                    "train or reproduce --config.run.skip_unreadable=N"
                ) from error
            self.found[index] = str(error)
            print(f"skipped {len(self.found)}/{self.limit}: {error}", file=sys.stderr)


def read_batch(
    source: Source, indices: Int[np.ndarray, " b"], unreadable: Unreadable
) -> tuple[UInt8[np.ndarray, "b h w c"], Int32[np.ndarray, " b"]]:
    """Images [b 112 112 3] RGB and labels [b] of a batch of indices.

    In the place of an image that is tolerated as unreadable stands the next one of the source that
    can be read, so that a batch depends on the indices and the data alone.  Raises InputError as
    `read_example` does.
    """
    if isinstance(source, Gatherer):
        return source.gather(indices)
    images = np.empty((len(indices), SIZE, SIZE, 3), np.uint8)
    labels = np.empty(len(indices), np.int32)
    for row, first in enumerate(indices.tolist()):
        for offset in range(len(source)):
            index = (first + offset) % len(source)
            try:
                example = source[index]
                if not decode_into(example["image"], images[row]):
                    images[row] = decode_sized(example["image"], source.where(index))
            except InputError as error:
                unreadable.add(index, error)
                continue
            labels[row] = example["label"]
            break
        else:
            raise InputError(f"{source.where(first)}: no image of the source can be read")
    return images, labels


def read_example(source: Source, index: int) -> dict:
    """{"image": uint8 [112 112 3] RGB, "label": int}; InputError for any other image."""
    where, example = source.where(index), source[index]
    return {"image": decode_sized(example["image"], where), "label": example["label"]}
