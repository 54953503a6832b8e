"""Lists of pairs in LFW's format, and the images that they name.

    10 <TAB> 300                      folds, and pairs of either kind a fold; or the latter alone
    Abel_Pacheco 1 4                  images 1 and 4 of one person: the first 300 lines of a fold
    Abdel_Madi_Shabneh 1 Dean_Barker 1    two people: the next 300

Image n of NAME is NAME/NAME_000n.jpg (or .jpeg, .png) in the folder of images, or the record of
that name in TensorFlow Datasets' `lfw`.  The order of pairs is kept: accuracy is taken over ten
contiguous folds, which in LFW's list are its own.
"""

import collections
import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from tqdm import tqdm

from crfr.data.images import decode_faces
from crfr.data.recordio import require_file
from crfr.data.records import Source, open_source
from crfr.data.remote import localize
from crfr.errors import InputError, unknown
from crfr.urls import folder_url, split_query

FOLDS = 10
MIN_PAIRS = FOLDS
ENDINGS = (".jpg", ".jpeg", ".png")


class Settings(NamedTuple):
    path: str  # of the list, which may be a URL
    images: str | None  # a folder, which may be a URL, or tfds:NAME; None: the list's folder
    crop: int | None  # px, the side of the square at the centre that is kept


class Photo(NamedTuple):
    name: str
    number: int
    line: int  # of the list, for messages

    @property
    def stem(self) -> str:
        return f"{self.name}/{self.name}_{self.number:04d}"


def parse_pairs(spec: str) -> Settings | None:
    """The settings of `PATH.txt[:images=DIR,crop=SIDE]`; None where `spec` is none."""
    match = re.fullmatch(r"(https?://[^?]+\.txt\?[^:]*|.+?\.txt)(?::(.*))?", spec)
    if not match:
        return None
    given: dict[str, str | None] = {"images": None, "crop": None}
    for setting in filter(None, (match[2] or "").split(",")):
        key, equals, value = setting.partition("=")
        if key not in given:
            raise unknown(f"setting of {match[1]}", key, given)
        if not equals or not value:
            raise InputError(f"{spec}: {key} has no value; write {key}=VALUE")
        given[key] = value
    side = given["crop"]
    if side is not None and not re.fullmatch(r"[1-9]\d{0,4}", side, re.ASCII):
        raise InputError(f"{spec}: crop={side} is not a side in px; write for example crop=150")
    return Settings(match[1], given["images"], int(side) if side else None)


def load_pairs(
    settings: Settings,
) -> tuple[UInt8[np.ndarray, "n 112 112 3"], Int32[np.ndarray, "p 2"], Bool[np.ndarray, " p"]]:
    """(distinct images, pairs of indices into them, whether a pair shows one person).

    InputError for a list that is damaged or leads elsewhere, and for images that are missing,
    damaged, or neither 112x112 px nor cropped.
    """
    path = require_file(localize(settings.path))
    pairs, same = read_pairs(path)
    check_pairs(str(path), same)
    images = settings.images or _folder_of(settings.path)
    # The same photo occurs in several pairs: the first line that names it stands in messages.
    first: dict[str, Photo] = {}
    for photo in itertools.chain(*pairs):
        first.setdefault(photo.stem, photo)
    index = {stem: i for i, stem in enumerate(first)}
    numbers = np.array([[index[photo.stem] for photo in pair] for pair in pairs], np.int32)
    if images.startswith("tfds:"):
        read, where = _read_prepared(path, images, open_source(images), list(first.values()))
    else:
        read, where = _read_folder(path, Path(localize(images, ENDINGS)), list(first.values()))
    decoded = decode_faces(f"decoding {path.name}", len(first), read, where, settings.crop)
    return decoded, numbers, same


def _folder_of(path: str) -> str:
    """The folder of a list, which may be at a URL."""
    if "://" not in path:
        return str(Path(path).parent)
    if path.startswith(("http://", "https://")):
        raise InputError(
            f"{path}: a web server does not list the folder of images beside it; name the images: "
            f"{split_query(path)[0]}:images=FOLDER, where FOLDER is on this host or gs://, s3:// "
            "and the like, or tfds:lfw"
        )
    return folder_url(path)


def read_pairs(path: Path) -> tuple[list[tuple[Photo, Photo]], Bool[np.ndarray, " p"]]:
    """(pairs of photos, whether each shows one person), in the order of the list's lines."""
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and re.fullmatch(r"\s*\d{1,9}(\s+\d{1,9})?\s*", lines[0][1], re.ASCII):
        counts = [int(count) for count in lines.pop(0)[1].split()]
        if len(counts) == 2 and counts[0] != FOLDS:
            raise InputError(
                f"{path}: a list of {counts[0]} folds, but accuracy is taken over {FOLDS}; remove "
                "its first line to have the pairs split anew, in their order"
            )
        announced = 2 * counts[-1] * (FOLDS if len(counts) == 2 else 1)
        if announced != len(lines):
            raise InputError(
                f"{path}: {len(lines)} pairs, but its first line announces {announced}; copy the "
                "list again from its source"
            )

    pairs, same = [], []
    for number, line in lines:
        fields = [f.strip() for f in line.strip().split("\t" if "\t" in line else None)]
        if len(fields) not in (3, 4):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is not 'name n1 n2' or 'name1 n1 name2 n2'"
            )
        one = len(fields) == 3
        first = _photo(path, number, fields[0], fields[1])
        second = _photo(path, number, fields[0 if one else 2], fields[-1])
        if not one and first.name == second.name:
            raise InputError(f"{path}, line {number}: names {first.name!r} as two people")
        pairs.append((first, second))
        same.append(one)
    return pairs, np.array(same, bool)


def check_pairs(where: str, same: Bool[np.ndarray, " p"]) -> None:
    """InputError for too few pairs, or pairs of one kind alone."""
    if len(same) < MIN_PAIRS:
        raise InputError(
            f"{where}: {len(same)} pairs, but accuracy over ten folds needs {MIN_PAIRS} or more"
        )
    if same.all() or not same.any():
        raise InputError(
            f"{where}: all {len(same)} pairs are of {'one person' if same[0] else 'two people'}; "
            "accuracy needs pairs of both kinds"
        )


def _photo(path: Path, line: int, name: str, number: str) -> Photo:
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise InputError(f"{path}, line {line}: the name {name!r} leads elsewhere; refused")
    if not re.fullmatch(r"\d{1,9}", number, re.ASCII):
        raise InputError(f"{path}, line {line}: {number[:40]!r} is not the number of an image")
    return Photo(name, int(number), line)


Reader = tuple[Callable[[int], bytes | np.ndarray], Callable[[int], str]]


def _read_folder(path: Path, folder: Path, photos: Sequence[Photo]) -> Reader:
    """How to read photo i from a folder, and its place; InputError for the first that is not."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images; write images=FOLDER")
    files = []
    for photo in photos:
        found = [f for end in ENDINGS if (f := folder / (photo.stem + end)).is_file()]
        if not found:
            raise InputError(
                f"{path}, line {photo.line}: no {folder / photo.stem}.jpg (or .jpeg, .png); name "
                "the folder that holds the people's folders by images=FOLDER"
            )
        files.append(found[0])
    return lambda i: files[i].read_bytes(), lambda i: str(files[i])


def _read_prepared(path: Path, spec: str, source: Source, photos: Sequence[Photo]) -> Reader:
    records = number_records(spec, source)
    for photo in photos:
        if photo.stem not in records:
            raise InputError(
                f"{path}, line {photo.line}: {spec} has no {photo.stem}.jpg; use the list that "
                "belongs to it"
            )
    at = [records[photo.stem] for photo in photos]
    return lambda i: source[at[i]]["image"], lambda i: source.where(at[i])


def number_records(spec: str, source: Source) -> dict[str, int]:
    """ "NAME/NAME_000n" -> index of the record, of TensorFlow Datasets' `lfw`.

    Its records hold a name and an image and no number.  But TFDS orders records by the MD5 of the
    split's name and the key, and lfw's keys are "NAME/NAME_000n.jpg", n from 1.  So the order of
    all keys is computed, and the names of all records have to agree with it.
    """
    progress = tqdm(range(len(source)), f"reading {spec}", unit=" records", disable=None)
    names = [source.identity(source[i]["label"]) for i in progress]
    stems = [
        f"{name}/{name}_{number:04d}"
        for name, count in collections.Counter(names).items()
        for number in range(1, count + 1)
    ]
    stems.sort(key=_key_hash)
    if [stem.partition("/")[0] for stem in stems] != names:
        raise InputError(
            f"{spec}: its records are not in the order of TFDS's lfw (all of its split train), so "
            "which image has which number cannot be told; name a folder by images=FOLDER"
        )
    return {stem: index for index, stem in enumerate(stems)}


def _key_hash(stem: str) -> bytes:
    return hashlib.md5(f"train{stem}.jpg".encode(), usedforsecurity=False).digest()
