"""InsightFace's and im2rec's RecordIO packs as a source of images and labels.

InsightFace's packs (MS1MV2/3, Glint360K, WebFace): `train.rec`, `train.idx` and `property`
("classes,height,width") in one folder.  Keys 1..N are images, keys N+1..N+C identity records
without a body, and key 0 is metadata with the labels [N + 1, N + 1 + C].  In MXNet's im2rec output
and in shuffled packs record 0 is an image like all others.
"""

import operator
import re
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from tqdm import tqdm

from crfr.data.recordio import DAMAGED, Record, RecordFile
from crfr.errors import InputError

# Labels are stored as float32, which holds every whole number up to here and not beyond.
LABEL_LIMIT = 2**24


class Pack:
    """The images of a RecordIO pack, a Source; safe to share among threads and processes."""

    classes: int

    def __init__(self, path: str):
        self._records = RecordFile(path)
        self._first, self._count, identities = layout(self._records)
        if self._count == 0:
            raise InputError(f"{path}: holds no images; {DAMAGED}")
        prop = Path(path).parent / "property"
        if prop.is_file():
            self.classes = read_property(prop)
            if self.classes < identities:
                raise InputError(
                    f"{prop}: {self.classes} classes, but {path} has {identities} identities; "
                    f"the two files do not belong together: write {identities} into property"
                )
        elif identities:
            self.classes = identities
        else:
            # Nothing but the records says how many classes there are.
            self.classes = LABEL_LIMIT
            progress = tqdm(
                range(self._first, self._first + self._count),
                desc=f"{prop} is missing, counting classes",
                unit=" records",
                disable=None,
            )
            self.classes = 1 + max(self._label(p, self._records.record(p)) for p in progress)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: SupportsIndex) -> dict:
        position = self._position(index)
        record = self._records.record(position)
        if not record.body:
            raise InputError(f"{self.where(index)}: the record holds no image; {DAMAGED}")
        return {"image": record.body, "label": self._label(position, record)}

    def where(self, index: SupportsIndex) -> str:
        return self._records.where(self._position(index))

    def identity(self, label: int) -> str:
        return str(label)

    def _position(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not 0 <= number < self._count:
            raise IndexError(f"image {number} is outside 0..{self._count - 1}")
        return self._first + number

    def _label(self, position: int, record: Record) -> int:
        label = record.labels[0]
        # Written so that NaN fails.
        if not 0 <= label < self.classes or label != int(label):
            raise InputError(
                f"{self._records.where(position)}: label {label:.9g} is not a whole number in "
                f"0..{self.classes - 1} ({self.classes} classes); correct the property file, or "
                f"{DAMAGED}"
            )
        return int(label)


def read_property(path: Path) -> int:
    """The number of classes in a pack's `property` file."""
    text = path.read_text("latin1")
    match = re.fullmatch(r"\s*(\d{1,9})\s*,\s*\d{1,9}\s*,\s*\d{1,9}\s*", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= LABEL_LIMIT:
        raise InputError(
            f"{path}: {text[:60]!r} is not 'classes,height,width' with 1 to {LABEL_LIMIT} classes; "
            "write for example '90,112,112'"
        )
    return int(match[1])


def layout(records: RecordFile) -> tuple[int, int, int]:
    """(position of the first image, number of images, number of identity records or 0).

    Record 0 and the keys of the index have to agree.  Record 0 counts in float32, which is off
    by up to `slack` beyond 2^24 keys; the records around its figure decide then.
    """
    if records.keys[0] != 0:
        return 0, len(records), 0
    meta = records.record(0)
    if meta.flag == 0 or meta.body:
        return 0, len(records), 0

    whole = all(0 < label < 2**31 and label == int(label) for label in meta.labels)
    if len(meta.labels) != 2 or not whole or meta.labels[0] > meta.labels[1]:
        raise InputError(
            f"{records.where(0)}: the metadata has labels {list(meta.labels[:4])} where "
            f"[images + 1, images + 1 + identities] belongs; {DAMAGED}"
        )
    first, end = int(meta.labels[0]), int(meta.labels[1])
    last = len(records) - 1
    if records.keys[-1] != last or abs(end - 1 - last) > slack(end):
        missing = int(np.argmax(np.append(records.keys, -1) != np.arange(last + 2)))
        raise InputError(
            f"{records.where(0)}: announces the keys 1 to {end - 1} ({first - 1} images, "
            f"{end - first} identities), but the .idx lists {last} keys up to {records.keys[-1]} "
            f"(the first it lacks: {missing}); {DAMAGED}"
        )

    def is_identity(key: int) -> bool:
        record = records.record(key)
        return record.flag > 0 and not record.body

    near = range(max(first - slack(first), 1), min(first + slack(first), last) + 1)
    boundary = next((key for key in near if is_identity(key)), last + 1)
    if abs(boundary - first) > slack(first) or (boundary > 1 and is_identity(boundary - 1)):
        raise InputError(
            f"{records.where(0)}: announces that identity records begin at key {first}, but they "
            f"do not; {DAMAGED}"
        )
    return 1, boundary - 1, last + 1 - boundary


def slack(number: int) -> int:
    """By how much a whole number may have been rounded to become the float32 `number`."""
    return int(np.spacing(np.float32(number)) // 2)
