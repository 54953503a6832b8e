"""Remote data, copied to this host once: gs://, s3://, https:// and whatever else fsspec knows.

    CACHE/KEY/...     the copy of one URL, names as in the remote folder; whole files, nothing else
    CACHE/KEY.jsonl   one line a copied file: its name, and the remote's size and stamp
    CACHE/KEY.part    the file that is being copied
    CACHE/KEY.lock    held while copies are compared with the remote and made

CACHE is $CRFR_CACHE, or else ~/.cache/crfr; KEY is a hash of the URL without its signature.  A copy
that was interrupted goes on with the files it lacks, and files that have changed remotely are
copied again.  The lock makes the processes of one host take turns.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import posixpath
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import fsspec
from fsspec.callbacks import NoOpCallback
from tqdm import tqdm

from crfr.environment import cache_folder, read_lines, write_lines
from crfr.errors import InputError, one_line
from crfr.urls import public, split_query, unsigned

# Protocol -> crfr's extra that installs what fsspec needs for it.
EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3", "http": "http", "https": "http"}
# What tells the versions of a file apart; each file system has some of them, the best is first.
STAMPS = (
    *("ETag", "etag", "md5Hash", "crc32c", "Content-MD5", "checksum", "generation"),
    *("mtime", "Last-Modified", "LastModified", "last_modified", "updated", "created"),
)
# A pack is useless without its index; its `property` may be absent.
BESIDE = {".rec": ((".idx", True), ("property", False))}


class RemoteFile(NamedTuple):
    path: str  # in the remote file system
    size: int | None  # bytes, where the remote tells
    stamp: str | None


def localize(spec: str, ending: str | tuple[str, ...] = "") -> str:
    """The path of the local copy of a URL, made or refreshed if need be; `spec` itself if it is
    no URL.

    A folder is copied whole, or only its files whose names end in `ending`; a `.rec` brings its
    `.idx` and, where it is there, `property`.

    Raises:
      InputError: a protocol that is unknown, or whose package is not installed; nothing at the
        URL; what the remote answers to a request it refuses; names that lead out of the cache;
        too little space on the disk; a file that arrives with another size.
    """
    if "://" not in spec:
        return spec
    spec = spec.rstrip("/")
    url = public(spec)
    fs, path = _open(spec, url)
    with _failures_named(spec):
        name, files = _remote_files(url, fs, path, ending)
    cache = cache_folder()
    key = hashlib.sha256(unsigned(spec).encode()).hexdigest()[:24]
    with _failures_named(spec), _locked(cache / f"{key}.lock", url):
        _copy(url, fs, files, cache / key, ending)
    return str(cache / key / name)


def _open(spec: str, url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(spec)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        remedy = f"pip install 'crfr[{extra}]'" if extra else one_line(error)
        raise InputError(
            f"{url}: {protocol}:// needs a package that is missing: {remedy}"
        ) from error
    except ValueError as error:
        remedy = "copy the data to this host yourself"
        raise InputError(f"{url}: {one_line(error)}; {remedy}") from error


@contextlib.contextmanager
def _failures_named(spec: str) -> Iterator[None]:
    """What file systems raise, as InputErrors that name the URL."""
    url, query = public(spec), split_query(spec)[1]
    kinds: list[type[BaseException]] = [OSError]
    # Not all of them are OSErrors, and their packages need not be there.
    for module, name in (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("gcsfs.retry", "HttpError"),
        ("google.auth.exceptions", "GoogleAuthError"),
    ):
        if module in sys.modules:
            kinds.append(vars(sys.modules[module])[name])
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{url}: not there; check the address") from error
    except tuple(kinds) as error:
        what = one_line(str(error).replace(query or "?", "")) or type(error).__name__
        raise InputError(
            f"{url}: {what}; check the address, the credentials and the disk, and run the command "
            "again: it goes on where it stopped"
        ) from error


def _remote_files(
    url: str, fs: fsspec.AbstractFileSystem, path: str, ending: str | tuple[str, ...]
) -> tuple[str, dict[str, RemoteFile]]:
    """(name of the copy, name under CACHE/KEY -> file) of what a URL stands for."""
    fs.invalidate_cache()  # a listing of an hour ago says nothing
    info = fs.info(path)
    path = path.rstrip("/")
    # What follows ? in a web address is no part of the name.
    bare, query = split_query(path)
    name = posixpath.basename(bare)
    _check_name(url, name)
    if info["type"] != "directory":
        files = {name: _remote_file(path, info)}
        stem, end = posixpath.splitext(name)
        for beside, needed in BESIDE.get(end, ()):
            other = stem + beside if beside.startswith(".") else beside
            other_path = posixpath.join(posixpath.dirname(bare), other) + query
            if fs.exists(other_path):
                files[other] = _remote_file(other_path, fs.info(other_path))
            elif needed:
                raise InputError(f"{url}: no {other} beside it; copy it there: a pack needs both")
        return name, files

    files = {}
    listing = cast(dict[str, dict[str, Any]], fs.find(path, detail=True))
    for found, entry in sorted(listing.items()):
        # Object stores mark folders by empty objects whose names end in a slash.
        if entry["type"] == "directory" or found.endswith("/") or not found.endswith(ending):
            continue
        if not found.startswith(f"{path}/"):
            raise InputError(f"{url}: lists {found!r}, which is not in it; refused")
        inner = found[len(path) + 1 :]
        for part in inner.split("/"):
            _check_name(url, part)
        files[f"{name}/{inner}"] = _remote_file(found, entry)
    if not files:
        ends = ending if isinstance(ending, str) else " or ".join(ending)
        raise InputError(f"{url}: holds no files{ending and f' that end in {ends}'}")
    return name, files


def _check_name(url: str, name: str) -> None:
    if name in ("", ".", "..") or "\0" in name or os.sep in name:
        raise InputError(f"{url}: the name {name!r} cannot be a file's here; refused")


def _remote_file(path: str, info: dict[str, Any]) -> RemoteFile:
    stamp = next((f"{key}={info[key]}" for key in STAMPS if info.get(key)), None)
    return RemoteFile(path, info.get("size"), stamp)


@contextlib.contextmanager
def _locked(path: Path, url: str) -> Iterator[None]:
    """Holds the lock of a URL's copy; waits while another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"crfr: waiting for another process that copies {url}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock


def _copy(
    url: str,
    fs: fsspec.AbstractFileSystem,
    files: dict[str, RemoteFile],
    folder: Path,
    ending: str | tuple[str, ...],
) -> None:
    """Bring CACHE/KEY to what `files` says: remove what is gone, copy what is new or differs."""
    journal = folder.with_suffix(".jsonl")
    done = {row["name"]: row for row in read_lines(journal)}
    for name in [name for name in done if name not in files and name.endswith(ending)]:
        (folder / name).unlink(missing_ok=True)
        del done[name]
    wanted = {n: file for n, file in files.items() if not _is_copied(folder / n, file, done.get(n))}
    if not wanted:
        return

    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(file.size or 0 for file in wanted.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{url}: {needed:,} bytes are needed, but {free:,} are free in {folder.parent}; make "
            "room, or set CRFR_CACHE to a folder on another disk"
        )
    write_lines(journal, [row for name, row in done.items() if name not in wanted])
    part = folder.with_suffix(".part")
    with (
        tqdm(
            total=needed, desc=f"copying {url}", unit="B", unit_scale=True, disable=None
        ) as progress,
        open(journal, "a") as lines,
    ):
        for name, file in wanted.items():
            fs.get_file(file.path, str(part), callback=Bytes(progress))
            size = part.stat().st_size
            if file.size is not None and size != file.size:
                part.unlink()
                raise InputError(
                    f"{url}: {size:,} bytes of {name} arrived, but the remote has {file.size:,}; "
                    "run the command again"
                )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, folder / name)
            row = {"name": name, "size": size, "remote_size": file.size, "stamp": file.stamp}
            lines.write(json.dumps(row) + "\n")
            lines.flush()


def _is_copied(path: Path, file: RemoteFile, row: dict[str, Any] | None) -> bool:
    if row is None or (row["remote_size"], row["stamp"]) != (file.size, file.stamp):
        return False
    return path.is_file() and path.stat().st_size == row["size"]


class Bytes(NoOpCallback):
    """Counts the bytes of one copied file in a progress bar."""

    def __init__(self, progress: tqdm):
        super().__init__()
        self._progress = progress

    def relative_update(self, inc: int = 1) -> None:
        self._progress.update(inc)
