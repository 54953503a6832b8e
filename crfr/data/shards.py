"""Folders of shards that `crfr convert` writes: what their manifest says, and whether it is true.

`manifest.json` is written last, so a folder without one is not whole:

    {"schema": 1, "format": "raw" or "tfds",
     "images": 5822653, "classes": 85742, "height": 112, "width": 112,
     "identities": ["name of label 0", ...],
     "shards": [{"count": 4096, "files": {ROLE: {"name": ..., "bytes": ..., "sha256": ...}}}, ...],
     "encodings": {"jpeg": 5822653},             as stored: raw, jpeg, png
     "dropped": {"identities": [names], "of_dropped_identities": 0, "duplicates": 0},
     "unreadable": [{"index": ..., "error": ...}],
     "plan": {...}, "versions": {...}, "commit": ..., "command": ..., "finished": "2026-01-..."}

The roles are "images" and "labels" for raw shards, "records" for TFDS ones; the images of a dataset
follow one another in the order of `shards`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from crfr.errors import InputError, one_line

MANIFEST, PLAN = "manifest.json", "plan.json"
SCHEMA = 1
ROLES = {"raw": ("images", "labels"), "tfds": ("records",)}
PATTERNS = {"raw": "images-*-of-*.raw", "tfds": "crfr_faces-*.array_record-*-of-*"}
AGAIN = "copy the folder again from where it was written, or delete it and run crfr convert again"
BLOCK = 2**20


def folder_format(folder: Path) -> str | None:
    """The format of a folder that crfr convert has written or begun, "raw" or "tfds"; else None.

    Raw shards without a readable manifest count as "raw".
    """
    for name in (MANIFEST, PLAN):
        try:
            content = json.loads((folder / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("format") in ROLES and "schema" in content:
            return content["format"]
    return "raw" if next(folder.glob(PATTERNS["raw"]), None) else None


def require_finished(folder: Path) -> None:
    """InputError for a folder whose conversion was interrupted: some of its images are missing."""
    if (folder / PLAN).is_file() and not (folder / MANIFEST).is_file():
        raise _interrupted(folder)


def _interrupted(folder: Path) -> InputError:
    return InputError(
        f"{folder}: has no {MANIFEST}: the conversion was interrupted; run the same crfr convert "
        "again, which goes on where it stopped"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished conversion, its structure checked.

    Raises:
      InputError: no manifest, a damaged one, another schema, counts that contradict each other, a
        shard's name that is listed twice or leads out of the folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if folder_format(folder):
            raise _interrupted(folder)
        raise InputError(f"{folder}: no {MANIFEST} there; give a folder that crfr convert wrote")
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["schema"] != SCHEMA or manifest["format"] not in ROLES:
            raise InputError(
                f"{path}: schema {manifest['schema']!r} and format {manifest['format']!r}, but "
                f"this crfr reads schema {SCHEMA} and formats {', '.join(ROLES)}; use the crfr "
                "that wrote it, or convert again"
            )
        _check_structure(path, manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {one_line(error)}); {AGAIN}"
        ) from error
    return manifest


def _check_structure(path: Path, manifest: dict[str, Any]) -> None:
    """InputError, KeyError, TypeError or AttributeError for a manifest not as crfr writes it."""
    for key in ("images", "classes", "height", "width"):
        _check_number(manifest[key])
    if not isinstance(manifest["plan"], dict):
        raise TypeError("a plan that is no object")
    identities = manifest["identities"]
    if not isinstance(identities, list) or not all(isinstance(n, str) for n in identities):
        raise TypeError("identities that are no names")
    pixels = manifest["height"] * manifest["width"] * 3
    seen = set()
    for shard in manifest["shards"]:
        _check_number(shard["count"])
        if sorted(shard["files"]) != sorted(ROLES[manifest["format"]]):
            raise TypeError(f"a shard of {', '.join(shard['files'])}")
        for role, file in shard["files"].items():
            name, size = file["name"], file["bytes"]
            _check_number(size)
            # a name such as ../x or /x would have crfr read whatever file it likes
            if name != Path(name).name or name in ("", "..") or "\0" in name:
                raise InputError(
                    f"{path}: the shard name {name!r} leads out of the folder; {AGAIN}"
                )
            if name in seen:
                raise InputError(f"{path}: lists {name} twice; {AGAIN}")
            seen.add(name)
            each = {"images": pixels, "labels": 4}.get(role)
            if each and size != shard["count"] * each:
                raise InputError(
                    f"{path}: {name} has {size} bytes for {shard['count']} images of {each} bytes "
                    f"each; {AGAIN}"
                )
            if len(bytes.fromhex(file["sha256"])) != 32:
                raise ValueError(f"the sha256 of {name} is no hash")
    total = sum(shard["count"] for shard in manifest["shards"])
    if total != manifest["images"]:
        raise InputError(f"{path}: {manifest['images']} images, {total} in its shards; {AGAIN}")
    if len(identities) != manifest["classes"]:
        raise InputError(
            f"{path}: {manifest['classes']} classes, but {len(identities)} identities; {AGAIN}"
        )


def _check_number(number: object) -> None:
    if type(number) is not int or number < 0:
        raise TypeError(f"{number!r} is no count")


def files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """All {"name", "bytes", "sha256"} of a manifest."""
    return [file for shard in manifest["shards"] for file in shard["files"].values()]


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """InputError unless all shards are there with their sizes, and no other shards."""
    listed = files(manifest)
    for file in listed:
        path = folder / file["name"]
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise InputError(f"{path}: missing, but {MANIFEST} lists it; {AGAIN}")
        if size != file["bytes"]:
            raise InputError(
                f"{path}: {size} bytes, but {MANIFEST} says {file['bytes']}: cut short or another "
                f"conversion's; {AGAIN}"
            )
    names = {file["name"] for file in listed}
    for path in folder.glob(PATTERNS[manifest["format"]]):
        if path.name not in names:
            raise InputError(
                f"{path}: not in {MANIFEST}: shards of two conversions are mixed; delete the file, "
                f"or {AGAIN}"
            )


def file_digest(path: Path, progress: tqdm | None = None) -> str:
    """The SHA-256 of a file; `progress` counts bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if progress is not None:
                progress.update(len(block))
    return digest.hexdigest()


def verify(folder: str | Path) -> int:
    """Compare all shards of a converted folder with their checksums; the number of files.

    Reads everything, at about 1 GB/s a core.

    Raises:
      InputError: a folder that is not whole, or a file that differs, by name.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    listed = files(manifest)
    total = sum(file["bytes"] for file in listed)
    with tqdm(
        total=total, desc=f"checking {folder}", unit="B", unit_scale=True, disable=None
    ) as progress:
        for file in listed:
            if file_digest(folder / file["name"], progress) != file["sha256"]:
                raise InputError(
                    f"{folder / file['name']}: its content differs from the checksum in "
                    f"{MANIFEST}: damaged or another conversion's; {AGAIN}"
                )
    return len(listed)
