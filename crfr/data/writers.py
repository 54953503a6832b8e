"""The shards of `crfr convert`: raw arrays, or ArrayRecord files as TFDS writes and reads them.

A shard is written under names that begin with ".partial-" and renamed once all of it is on the
disk, so that a file under its own name is whole.
"""

import contextlib
import errno
import hashlib
import io
import os
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from crfr.data.shards import file_digest
from crfr.errors import InputError

DATASET, SPLIT = "crfr_faces", "train"
PLAIN = ("Gray", "YCbCr", "RGB")  # colour spaces of JPEG that every decoder turns into RGB
EXTRA = "pip install 'crfr[tfds]'"


class Writer(Protocol):
    """One shard; `number` of `total`."""

    encodings: Counter[str]  # how many images are stored how

    def __init__(self, folder: Path, number: int, total: int): ...

    def add(
        self, stored: bytes | np.ndarray, image: UInt8[np.ndarray, "h w 3"], label: int
    ) -> None:
        """An image: as the source stores it, and decoded."""
        ...

    def finish(self) -> dict[str, dict[str, Any]]:
        """{role: {"name", "bytes", "sha256"}} of the shard's files, which have their names now."""
        ...

    def discard(self) -> None:
        """Delete what is unfinished."""
        ...


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A full disk is reported without the file's name; ArrayRecord reports it as RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        full = os.strerror(errno.ENOSPC) in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _partial(path: Path) -> Path:
    return path.with_name(f".partial-{path.name}")


def _rename(paths: list[Path]) -> None:
    """Give finished files their names, lastingly."""
    for path in paths:
        os.replace(_partial(path), path)
    folder = os.open(paths[0].parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class RawShard:
    """`images-NUMBER-of-TOTAL.raw` and `labels-NUMBER-of-TOTAL.raw` (crfr.data.raw)."""

    def __init__(self, folder: Path, number: int, total: int):
        suffix = f"{number:05d}-of-{total:05d}.raw"
        self._paths = {role: folder / f"{role}-{suffix}" for role in ("images", "labels")}
        self._labels: list[int] = []
        self._digest = hashlib.sha256()
        self.encodings = Counter()
        path = self._paths["images"]
        with _naming(path):
            self._file = _partial(path).open("wb")

    def add(
        self, stored: bytes | np.ndarray, image: UInt8[np.ndarray, "h w 3"], label: int
    ) -> None:
        pixels = np.ascontiguousarray(image).data
        with _naming(self._paths["images"]):
            self._file.write(pixels)
        self._digest.update(pixels)
        self._labels.append(label)
        self.encodings["raw"] += 1

    def finish(self) -> dict[str, dict[str, Any]]:
        images, labels = self._paths["images"], self._paths["labels"]
        with _naming(images):
            self._file.flush()
            size = self._file.tell()
            os.fsync(self._file.fileno())
            self._file.close()
        content = np.array(self._labels, "<i4").tobytes()
        with _naming(labels), _partial(labels).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _rename([images, labels])
        return {
            "images": {"name": images.name, "bytes": size, "sha256": self._digest.hexdigest()},
            "labels": {
                "name": labels.name,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            },
        }

    def discard(self) -> None:
        for path in self._paths.values():
            _partial(path).unlink(missing_ok=True)
        # Closing flushes, which fails again on a full disk.
        with contextlib.suppress(OSError):
            self._file.close()


class RecordShard:
    """`crfr_faces-train.array_record-NUMBER-of-TOTAL`: TFDS's examples of "image" and "label"."""

    def __init__(self, folder: Path, number: int, total: int):
        import array_record.python.array_record_module as array_record

        self._tfds = import_tfds()
        self._path = folder / f"{DATASET}-{SPLIT}.array_record-{number:05d}-of-{total:05d}"
        self.encodings = Counter()
        # the number of classes is no part of what is serialised
        features = _features(self._tfds, None, (None, None, 3), ["0"])
        self._serializer = self._tfds.core.example_serializer.ExampleSerializer(
            features.get_serialized_info()
        )
        with _naming(self._path):
            self._writer = array_record.ArrayRecordWriter(str(_partial(self._path)), "group_size:1")

    def add(
        self, stored: bytes | np.ndarray, image: UInt8[np.ndarray, "h w 3"], label: int
    ) -> None:
        encoding = _readable(stored)
        if encoding is None:
            stored, encoding = encode_png(image), "png"
        record = self._serializer.serialize_example({"image": stored, "label": label})
        with _naming(self._path):
            self._writer.write(record)
        self.encodings[encoding] += 1

    def finish(self) -> dict[str, dict[str, Any]]:
        partial = _partial(self._path)
        with _naming(self._path):
            self._writer.close()
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        size, digest = partial.stat().st_size, file_digest(partial)
        _rename([self._path])
        return {"records": {"name": self._path.name, "bytes": size, "sha256": digest}}

    def discard(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._writer.close()
        _partial(self._path).unlink(missing_ok=True)


WRITERS: dict[str, type[Writer]] = {"raw": RawShard, "tfds": RecordShard}


def _readable(stored: bytes | np.ndarray) -> str | None:
    """The encoding of an image that TFDS decodes as crfr does, 8 bits grey or RGB; else None."""
    if isinstance(stored, np.ndarray):
        return None
    if stored[:2] == b"\xff\xd8":
        return "jpeg" if simplejpeg.decode_jpeg_header(stored)[2] in PLAIN else None
    # bit depth and colour type; a transparent colour would become a fourth channel
    plain = stored[:4] == b"\x89PNG" and stored[24:26] in (b"\x08\0", b"\x08\2")
    return "png" if plain and b"tRNS" not in stored else None


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    file = io.BytesIO()
    # Level 6, the default, takes three times as long for 3 % fewer bytes.
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def import_tfds() -> types.ModuleType:
    """tensorflow_datasets, which needs no TensorFlow for this; InputError where it is missing."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(
            f"--format=tfds: tensorflow_datasets cannot be imported ({error}); {EXTRA}"
        ) from error
    return tensorflow_datasets


def _features(
    tfds: types.ModuleType, encoding: str | None, shape: tuple, identities: list[str]
) -> Any:
    # TFDS keeps names one a line, unique and without blanks around them; others only in manifest.
    lines = all(name.isprintable() and name and name == name.strip() for name in identities)
    if lines and len(set(identities)) == len(identities):
        label = tfds.features.ClassLabel(names=identities)
    else:
        label = tfds.features.ClassLabel(num_classes=len(identities))
    image = tfds.features.Image(shape=shape, encoding_format=encoding)
    return tfds.features.FeaturesDict({"image": image, "label": label})


def write_dataset(folder: Path, manifest: dict[str, Any]) -> None:
    """TFDS's own metadata of the finished shards: dataset_info.json, features.json, label names."""
    tfds = import_tfds()
    encodings = list(manifest["encodings"])
    shape = (manifest["height"], manifest["width"], 3)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=DATASET, split=SPLIT, filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=[shard["count"] for shard in manifest["shards"]],
        num_bytes=sum(shard["files"]["records"]["bytes"] for shard in manifest["shards"]),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        # None: images of several encodings
        features=_features(
            tfds, encodings[0] if len(encodings) == 1 else None, shape, manifest["identities"]
        ),
        split_infos=[split],
        version="1.0.0",
        filename_template=template,
        check_data=False,  # which needs TensorFlow
    )
