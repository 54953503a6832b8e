"""Images and labels of tf.train.Examples as a source, and those of bare `.array_record` files."""

import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

from tqdm import tqdm

from crfr.data.tfexample import DAMAGED, ExampleFiles, Shard
from crfr.errors import InputError

LABEL_LIMIT = 2**31 - 1  # labels are int32 where they are trained on
SHARD = re.compile(r"(.+)-(\d{1,6})-of-(\d{1,6})(.*)")
# Features of bare files, the first that occurs: TFDS's names, and those of older TFRecord writers.
IMAGE_NAMES = ("image", "image/encoded")
LABEL_NAMES = ("label", "image/class/label")


class Examples:
    """Images and labels of tf.train.Examples, a Source; to be shared among threads and processes.

    `image` and `label` name the features; `names` are the identities of the labels 0, 1, ...
    Without them one pass over all records counts the classes: numbers up to the largest, or, with
    `text`, the distinct texts in their order.
    """

    classes: int

    def __init__(
        self,
        files: ExampleFiles,
        image: str,
        label: str,
        names: Sequence[str] | None = None,
        text: bool = False,
    ):
        self._files, self._image, self._label = files, image, label
        self._names, self._numbers = names, None
        self.classes = LABEL_LIMIT if names is None else len(names)
        if len(files) == 0:
            raise InputError(f"{files.path(0)}: holds no records; {DAMAGED}")
        if names is not None:
            return
        progress = tqdm(
            range(len(files)), f"counting classes by {label!r}", unit=" records", disable=None
        )
        if text:
            texts = sorted({self._value(files.read(i), label, bytes, i) for i in progress})
            self._names = [value.decode("utf-8", "backslashreplace") for value in texts]
            self._numbers = {value: number for number, value in enumerate(texts)}
            self.classes = len(texts)
        else:
            self.classes = 1 + max(self._number(files.read(i), i) for i in progress)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: SupportsIndex) -> dict:
        index = operator.index(index)
        example = self._files.read(index)
        return {
            "image": self._value(example, self._image, bytes, index),
            "label": self._number(example, index),
        }

    def where(self, index: SupportsIndex) -> str:
        return self._files.where(operator.index(index))

    def identity(self, label: int) -> str:
        return str(label) if self._names is None else self._names[label]

    def _number(self, example: dict[str, list], index: int) -> int:
        """The record's label, 0 to classes - 1."""
        if self._numbers is not None:
            text = self._value(example, self._label, bytes, index)
            if text not in self._numbers:
                raise InputError(f"{self.where(index)}: the file has changed since; start again")
            return self._numbers[text]
        label = self._value(example, self._label, int, index)
        if not 0 <= label < self.classes:
            raise InputError(
                f"{self.where(index)}: label {label} is not in 0..{self.classes - 1} "
                f"({self.classes} classes); drop the record or correct its label"
            )
        return label

    def _value(self, example: dict[str, list], name: str, kind: type, index: int) -> Any:
        values = example.get(name, [])
        if len(values) != 1 or not isinstance(values[0], kind):
            found = ", ".join(sorted(example)) or "none"
            held = f"{len(values)} values" if len(values) != 1 else f"{values[0]!r:.40}"
            raise InputError(
                f"{self.where(index)}: feature {name!r} holds {held} where one of type "
                f"{kind.__name__} belongs (features: {found}); {DAMAGED}"
            )
        return values[0]


def open_array_records(path: str) -> Examples:
    """The tf.train.Examples of one `.array_record` file, or of all those in a folder.

    The features are "image" or "image/encoded", and "label" or "image/class/label", a number.
    InputError also for shards NAME-00000-of-00004 that are not complete.
    """
    paths = shard_paths(Path(path)) if Path(path).is_dir() else [path]
    files = ExampleFiles([Shard(name) for name in paths])
    names = files.read(0) if len(files) else {}
    image = next((name for name in IMAGE_NAMES if name in names), None)
    label = next((name for name in LABEL_NAMES if name in names), None)
    if len(files) and (image is None or label is None):
        raise InputError(
            f"{files.where(0)}: has the features {', '.join(sorted(names)) or 'none'}; an image is "
            f"expected as {' or '.join(IMAGE_NAMES)}, and its label as {' or '.join(LABEL_NAMES)}"
        )
    return Examples(files, image or "image", label or "label")


def shard_paths(folder: Path) -> list[str]:
    """The `.array_record` files of a folder in order; InputError unless they are one whole set."""
    names = sorted(p.name for p in folder.glob("*.array_record*") if not p.name.startswith("."))
    if not names:
        raise InputError(f"{folder}: holds no .array_record files; check the path")
    sets: dict[str, list[int]] = {}
    for name in names:
        match = SHARD.fullmatch(name)
        key = f"{match[1]}-*-of-{match[3]}{match[4]}" if match else "files without -of-"
        sets.setdefault(key, []).append(int(match[2]) if match else 0)
    if len(sets) > 1:
        raise InputError(
            f"{folder}: holds several sets of shards ({', '.join(sets)}); give each its own folder"
        )
    match = SHARD.fullmatch(names[0])
    if match:
        (numbers,) = sets.values()
        missing = sorted(set(range(int(match[3]))) - set(numbers))
        if missing:
            name = f"{match[1]}-{missing[0]:0{len(match[2])}}-of-{match[3]}{match[4]}"
            raise InputError(
                f"{folder}: {len(missing)} of {int(match[3])} shards are missing, the first is "
                f"{name}; copy the folder again from its source"
            )
        if len(numbers) != int(match[3]):
            raise InputError(f"{folder}: {names[-1]} is no shard of 0..{match[3]}; remove it")
    return [str(folder / name) for name in names]
