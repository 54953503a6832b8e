"""The manifest of a checkpoint: name, size and SHA-256 of each of its files.

Orbax checks no data.  The manifest is the last file of a checkpoint to be written, before the
folder gets its name or, in a bucket, Orbax's mark of a complete one (MARKER), so that no save
leaves a complete checkpoint without one.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from crfr.environment import cores
from crfr.errors import first_line
from crfr.workdir import MARKER

ITEM = "default"  # Orbax's name of the folder in a step's that has the data
FILE = "manifest.json"
SCHEMA = 1
THREADS = 8  # hashing leaves the interpreter to the training


def place(folder: epath.Path, step: int) -> epath.Path:
    """The folder that has the data of a step, and their manifest."""
    return folder / str(step) / ITEM


def _files(folder: epath.Path, prefix: str = "") -> dict[str, epath.Path]:
    found = {}
    for path in folder.iterdir():
        name = prefix + path.name
        inner = path.is_dir()
        found |= _files(path, f"{name}/") if inner else {name: path}
    return found


def _measure(path: epath.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")  # pyright: ignore[reportArgumentType]
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of the manifest itself, but for this entry."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write(folder: epath.Path, verification: Mapping[str, Any] | None) -> None:
    """Write the manifest of the files in a folder.

    `verification` (`benchmark`, `accuracy`) is what the state was measured with, or None.
    """
    files = sorted(_files(folder).items())
    paths = {name: path for name, path in files if name not in (FILE, MARKER)}
    with ThreadPoolExecutor(min(THREADS, cores())) as pool:
        measured = list(pool.map(_measure, paths.values()))
    manifest = {
        "schema": SCHEMA,
        "verification": verification,
        "files": dict(zip(paths, measured, strict=True)),
    }
    manifest["sha256"] = _digest(manifest)
    # whole before the folder gets its name, so that no temporary name is needed
    (folder / FILE).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")


def read(folder: epath.Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where it has none; ValueError where it is damaged."""
    path = folder / FILE
    if not path.exists():
        return None
    manifest = json.loads(path.read_bytes())
    if not isinstance(manifest, dict) or manifest.get("sha256") != _digest(manifest):
        raise ValueError("its contents are not those that were written")
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"schema {manifest.get('schema')!r}; this crfr reads {SCHEMA}")
    return manifest


def faults(folder: epath.Path) -> list[str] | None:
    """What of a folder is not as its manifest says, a text a file; None without a manifest."""
    try:
        manifest = read(folder)
        found = _files(folder)
    except (ValueError, OSError) as error:
        return [f"{FILE}: {first_line(error)}"]
    if manifest is None:
        return None

    def fault(item: tuple[str, dict[str, Any]]) -> str | None:
        name, about = item
        text = _fault(found[name], about) if name in found else "missing"
        return text and f"{name}: {text}"

    with ThreadPoolExecutor(min(THREADS, cores())) as pool:
        return [text for text in pool.map(fault, manifest["files"].items()) if text]


def _fault(path: epath.Path, about: Mapping[str, Any]) -> str | None:
    try:
        size = path.stat().length
        if size != about["bytes"]:
            return f"{size:,} bytes, expected {about['bytes']:,}"
        digest = _measure(path)["sha256"]
    except OSError as error:
        return f"cannot be read ({error.strerror or first_line(error)})"
    if digest != about["sha256"]:
        return f"SHA-256 {digest[:12]}..., expected {about['sha256'][:12]}..."
    return None
