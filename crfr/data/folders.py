"""A folder of identity folders with image files, as a source of images and labels.

    PATH/NAME_OF_IDENTITY/ANY_NAME.jpg

Identities are labelled in the order of their names, and images follow in the order of theirs within
an identity; both by the names' bytes, so that no locale changes an order.  Five million paths take
some 150 MB: file names in one block of bytes, and one offset a file.
"""

import operator
import os
import sys
from array import array
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from tqdm import tqdm

from crfr.errors import InputError

ENDINGS = (b".jpg", b".jpeg", b".png", b".bmp", b".webp")
# What file managers leave behind; names that begin with a dot are ignored too.
LITTER = (b"thumbs.db", b"desktop.ini")
LAYOUT = "the layout is FOLDER/IDENTITY/IMAGE.jpg"
NAMED = 3  # of the files and folders that a warning is about


class Folder:
    """The images under `path`, a Source; safe to share among threads and processes.

    The folder is listed once, when it is opened.  Files that are no images are counted and named
    on stderr, as are identity folders without images, which get no label.

    Raises:
      InputError: images beside the identity folders, or folders inside one; a link to nothing; a
        folder that cannot be listed; no image at all.
    """

    classes: int

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        root = os.fsencode(self.path)
        foreign, empty = Names(), Names()
        identities: list[bytes] = []
        firsts, ends, names = array("q", [0]), array("q", [0]), bytearray()
        progress = tqdm(
            _identities(root, foreign),
            desc=f"listing {self.path}",
            unit=" identities",
            disable=None,
            delay=2,
        )
        for identity in progress:
            images = _images(root, identity, foreign)
            if not images:
                empty.add(identity)
                continue
            for name in images:
                names += name
                ends.append(len(names))
            identities.append(identity)
            firsts.append(len(ends) - 1)
        if foreign.count:
            _warn(f"{self.path}: {foreign.count} files that are no images are ignored: {foreign}")
        if empty.count:
            _warn(f"{self.path}: {empty.count} folders without images get no label: {empty}")
        if not identities:
            raise InputError(
                f"{self.path}: holds no images (.jpg, .jpeg, .png, .bmp or .webp); {LAYOUT}"
            )
        self.classes = len(identities)
        self._identities = tuple(identities)
        self._firsts = np.array(firsts)  # of each identity's images, and the number of all
        self._ends = np.array(ends)  # in _names, of each image's name, after a 0
        self._names = bytes(names)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: SupportsIndex) -> dict:
        number = self._number(index)
        path = self._file(number)
        try:
            with open(path, "rb", buffering=0) as file:
                image = file.read()
        except OSError as error:
            raise InputError(
                f"{os.fsdecode(path)}: {error.strerror}; it was there when the folder was listed: "
                "restore it, or run the command again"
            ) from error
        return {"image": image, "label": self._label(number)}

    def where(self, index: SupportsIndex) -> str:
        return os.fsdecode(self._file(self._number(index)))

    def identity(self, label: int) -> str:
        return os.fsdecode(self._identities[label])

    def _number(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"image {number} is outside 0..{len(self) - 1}")
        return number

    def _label(self, number: int) -> int:
        return int(np.searchsorted(self._firsts, number, side="right")) - 1

    def _file(self, number: int) -> bytes:
        name = self._names[self._ends[number] : self._ends[number + 1]]
        identity = self._identities[self._label(number)]
        return os.path.join(os.fsencode(self.path), identity, name)


class Names:
    """Counts names, and keeps the first few to show."""

    def __init__(self):
        self.count, self._first = 0, []

    def add(self, name: bytes) -> None:
        self.count += 1
        if len(self._first) < NAMED:
            self._first.append(os.fsdecode(name))

    def __str__(self) -> str:
        more = self.count - len(self._first)
        return ", ".join(self._first) + (f" and {more} more" if more else "")


def is_image(name: bytes) -> bool:
    return name.lower().endswith(ENDINGS)


def _identities(root: bytes, foreign: Names) -> list[bytes]:
    """The names of the folders in `root`, sorted."""
    identities = []
    for entry in _entries(root):
        if entry.is_dir():
            identities.append(entry.name)
        elif is_image(entry.name):
            raise InputError(
                f"{os.fsdecode(entry.path)}: an image that is in no identity's folder; {LAYOUT}"
            )
        else:
            foreign.add(entry.name)
    return sorted(identities)


def _images(root: bytes, identity: bytes, foreign: Names) -> list[bytes]:
    """The names of the image files in the folder of an identity, sorted."""
    images = []
    for entry in _entries(os.path.join(root, identity)):
        if entry.is_dir():
            folder, outer = os.fsdecode(entry.path), os.fsdecode(os.path.join(root, identity))
            raise InputError(
                f"{folder}: a folder inside an identity's folder; {LAYOUT}: name {outer} if the "
                "identities are in it"
            )
        if is_image(entry.name):
            images.append(entry.name)
        else:
            foreign.add(os.path.join(identity, entry.name))
    return sorted(images)


def _entries(folder: bytes) -> list[os.DirEntry[bytes]]:
    """What a folder holds, but for hidden files and litter; InputError for links to nothing."""
    try:
        with os.scandir(folder) as entries:
            kept = [
                entry
                for entry in entries
                if not entry.name.startswith(b".") and entry.name.lower() not in LITTER
            ]
    except OSError as error:
        path = Path(os.fsdecode(folder))
        raise InputError(f"{path}: {error.strerror}; name a folder that can be listed") from error
    for entry in kept:
        # Links are followed wherever they lead.
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise InputError(
                f"{os.fsdecode(entry.path)}: a link to {os.fsdecode(os.readlink(entry.path))}, "
                "which does not exist; remove the link, or restore what it points to"
            )
    return kept


def _warn(message: str) -> None:
    print(f"crfr: {message}", file=sys.stderr)
