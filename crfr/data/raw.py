"""Uncompressed images that need no decoding: the source for devices that outrun JPEG decoders.

    images-00000-of-00012.raw   uint8 [n 112 112 3] RGB, C order, no header
    labels-00000-of-00012.raw   int32 [n], little-endian
    manifest.json               counts, names, sizes, checksums (crfr.data.shards)

An image is fetched by one `pread` of its 37,632 bytes.  A memory map is a third faster where all
pages are in memory, but each of its faults reads ahead: where they are not, random images cost 24
times their bytes and came 7 times slower; and a file that shrinks while it is mapped kills the
process.
"""

import functools
import math
import operator
import os
import resource
import weakref
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int, Int32, UInt8

from crfr.data.shards import AGAIN, check_files, file_digest, folder_format, read_manifest
from crfr.errors import InputError


def is_raw(path: str | os.PathLike) -> bool:
    """Whether the folder holds raw shards, whole or not."""
    return folder_format(Path(path)) == "raw"


class Descriptor:
    """A file open for reading until nothing refers to it."""

    def __init__(self, path: str | os.PathLike):
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)


class Raw:
    """The images of a raw folder, a Source; safe to share among threads and processes.

    Opening reads the manifest and the labels (4 bytes an image) and checks the sizes of all files
    and the checksums of the labels; `crfr.data.shards.verify` compares the images too.

    Raises:
      InputError: files that are missing, cut short, mixed with others' or do not fit together; a
        conversion that was interrupted.
    """

    classes: int
    labels: Int32[np.ndarray, " n"]

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        folder = Path(path)
        manifest = read_manifest(folder)
        if manifest["format"] != "raw":
            raise InputError(f"{folder}: format {manifest['format']!r}, not raw; give a raw folder")
        if manifest["images"] == 0:
            raise InputError(f"{folder}: holds no images; convert a source that has some")
        check_files(folder, manifest)
        self.classes = manifest["classes"]
        self.shape = (manifest["height"], manifest["width"], 3)
        self._identities = manifest["identities"]
        self._names = names = [shard["files"]["images"]["name"] for shard in manifest["shards"]]
        counts = [shard["count"] for shard in manifest["shards"]]
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self.labels = _read_labels(folder, manifest)
        # 5.8 million images are 1,400 files, often more than a process may have open; several
        # folders may be joined.
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        limit = soft // 8 if soft > 0 else 4096
        self._open = functools.lru_cache(limit)(lambda shard: Descriptor(folder / names[shard]))

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> dict:
        """{"image": uint8 [112 112 3], "label": int}; IndexError outside 0..len - 1."""
        images, labels = self.gather(np.array([operator.index(index)]))
        return {"image": images[0], "label": int(labels[0])}

    def gather(
        self, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w 3"], Int32[np.ndarray, " b"]]:
        """The images and labels of a batch, in the order of `indices`, in arrays of their own.

        Raises:
          IndexError: an index outside 0..len - 1.
          InputError: a file that has been cut short since it was opened.
        """
        wrong = (indices < 0) | (indices >= len(self))
        if wrong.any():
            raise IndexError(f"image {indices[np.argmax(wrong)]} is outside 0..{len(self) - 1}")
        row = math.prod(self.shape)  # bytes
        rows = np.empty((len(indices), row), np.uint8)
        shards = np.searchsorted(self._ends, indices, side="right")
        offsets = (indices - self._starts[shards]) * row
        places = list(zip(shards.tolist(), offsets.tolist(), strict=True))
        shard = 0
        try:
            if hasattr(os, "posix_fadvise"):
                # The disk fetches a whole batch at once, not image after image: 3 times faster.
                for shard, offset in places:
                    file = self._open(shard)
                    os.posix_fadvise(file.number, offset, row, os.POSIX_FADV_WILLNEED)
            for target, (shard, offset) in zip(rows, places, strict=True):
                self._fill(target, shard, offset)
        except OSError as error:
            raise InputError(
                f"{self.path}/{self._names[shard]}: {error.strerror}, though it was there when the "
                f"folder was opened; {AGAIN}"
            ) from error
        return rows.reshape(-1, *self.shape), self.labels[indices]

    def _fill(self, target: UInt8[np.ndarray, " bytes"], shard: int, offset: int) -> None:
        """Read one image."""
        # One file at a time, and held by its name here while the cache may let go of it.
        file = self._open(shard)
        count = os.preadv(file.number, [target.data], offset)
        while count < len(target):
            more = os.preadv(file.number, [target[count:].data], offset + count)
            if more == 0:
                raise InputError(
                    f"{self.path}/{self._names[shard]}: ends inside the image at byte {offset}: "
                    f"cut short since it was opened; {AGAIN}"
                )
            count += more

    def where(self, index: SupportsIndex) -> str:
        number = operator.index(index)
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return f"{self.path}/{self._names[shard]}, image {number - int(self._starts[shard])}"

    def identity(self, label: int) -> str:
        return self._identities[label]


def _read_labels(folder: Path, manifest: dict) -> Int32[np.ndarray, " n"]:
    """The labels of all shards; InputError for others than those that were written."""
    parts = []
    for shard in manifest["shards"]:
        file = shard["files"]["labels"]
        path = folder / file["name"]
        part = np.fromfile(path, "<i4").astype(np.int32, copy=False)
        wrong = (part < 0) | (part >= manifest["classes"])
        if wrong.any() or file_digest(path) != file["sha256"]:
            found = (
                f"label {part[np.argmax(wrong)]} is outside" if wrong.any() else "not the labels"
            )
            raise InputError(
                f"{path}: {found} of this conversion ({manifest['classes']} classes): damaged or "
                f"another conversion's; {AGAIN}"
            )
        parts.append(part)
    return np.concatenate(parts)
