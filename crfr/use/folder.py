"""Embedding the images in a folder: what can be read is embedded, what cannot is listed."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from crfr.data.photos import ENDINGS
from crfr.environment import cores
from crfr.errors import InputError, one_line
from crfr.use.detect import Detector
from crfr.use.faces import Face, Faces, join, pick, prepare
from crfr.use.index import shown
from crfr.use.kept import SECONDS, Stamp, read_parts, stamp, write_part
from crfr.use.model import BATCH, Model


class Embedded(NamedTuple):
    """faces: those of the images that could be used.  unreadable: of the others, name -> why.
    others: names of files that are not called like images.
    """

    faces: Faces
    unreadable: dict[str, str]
    others: list[str]


def find_images(folder: Path) -> tuple[list[str], list[str]]:
    """(image files, other files) in a folder and all below it, in the order of their names' bytes.

    Links to files are followed, links to folders are not: they may lead in circles.  Hidden files
    and folders are passed over.  InputError for a folder that is none or cannot be listed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that holds images")

    def stop(error: OSError) -> None:
        name = os.fsdecode(error.filename)
        raise InputError(f"{name}: {error.strerror}; allow it to be listed") from error

    images, others = [], []
    for place, folders, files in os.walk(os.fsencode(folder), onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith(b"."))
        for name in sorted(files):
            if not name.startswith(b"."):
                kind = images if name.lower().endswith(ENDINGS) else others
                kind.append(os.fsdecode(os.path.join(place, name)))
    if not images:
        known = ", ".join(ending.decode() for ending in ENDINGS)
        raise InputError(f"{folder}: holds no images ({known})")
    return images, others


def embed_folder(
    model: Model, folder: Path, detector: Detector | None = None, work: Path | None = None
) -> Embedded:
    """Embed all images in a folder; InputError where none could be read, and as the model's.

    In the folder `work`, which has to be there, what is embedded is kept a part a minute, and what
    was kept is not embedded again (kept.py).
    """
    images, others = find_images(folder)
    made = {
        "model": model.encoder.model,
        "step": model.encoder.step,
        "model_fingerprint": model.encoder.fingerprint,
        "detector_fingerprint": detector.fingerprint if detector else None,
        "folder": shown(os.fsencode(folder.resolve())),
    }
    parts = read_parts(work, made) if work else []
    done = {name for part in parts for name in part.names} & {*images}
    left = [path for path in images if path not in done]
    unreadable: dict[str, str] = {}
    stamps: dict[str, Stamp | None] = {}
    unkept: list[Faces] = []

    def prepared(path: str) -> Face | InputError:
        stamps[path] = stamp(path)
        try:
            if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would not end
                return InputError("is a pipe, a socket or a device; leave files of images there")
            return prepare(path, path, detector=detector)
        except InputError as error:
            return error
        except MemoryError as error:  # behind the decoding, which tells by itself
            return InputError(f"does not fit into memory ({one_line(error)}); scale it down first")

    progress = tqdm(
        total=len(images), initial=len(done), desc="embedding", unit=" images", disable=None
    )
    with ThreadPoolExecutor(cores()) as threads, progress:
        held: list[Face] = []
        last = time.monotonic()
        for path, found in zip(left, _ahead(threads, prepared, left), strict=True):
            if isinstance(found, InputError):
                # it begins with the name, as errors show it, which stands beside it already
                unreadable[path] = str(found).removeprefix(str(InputError(f"{path}: ")))
            else:
                held.append(found)
            progress.update()
            if len(held) == BATCH or (held and path is left[-1]):
                faces, failed = model.embed_faces(held)
                unreadable |= failed
                unkept += [faces] if len(faces) else []
                held = []
            if work and unkept and time.monotonic() - last > SECONDS:
                parts.append(join(unkept))
                write_part(work, parts[-1], [stamps[name] for name in parts[-1].names], made)
                unkept, last = [], time.monotonic()
    parts = [part for part in (*parts, *unkept) if len(part)]
    unreadable = {path: unreadable[path] for path in images if path in unreadable}  # in order
    if not parts:
        first, why = next(iter(unreadable.items()))
        raise InputError(f"{folder}: none of its {len(images)} images can be used; {first}: {why}")
    faces = join(parts)
    place = {name: row for row, name in enumerate(faces.names)}
    in_order = [place[path] for path in images if path in place]
    return Embedded(pick(faces, in_order), unreadable, others)


def _ahead(threads: ThreadPoolExecutor, work, items: list[str]) -> Iterator[Face | InputError]:
    """`work` of each item, a batch ahead and not more: decoded faces of a large folder would fill
    the memory.
    """
    pending = [threads.submit(work, item) for item in items[:BATCH]]
    for position in range(len(items)):
        yield pending[position % BATCH].result()
        if position + BATCH < len(items):
            pending[position % BATCH] = threads.submit(work, items[position + BATCH])
