"""`crfr convert`: any source, once, into shards that a pod reads fast or that TFDS opens.

What is in the folder while it runs:

    plan.json                     what defines the conversion, written first
    duplicates.jsonl              images that are a benchmark's, where asked for; stays
    shard-00000-of-00012.json     that shard 0 is done: its files' checksums, its count
    .partial-...                  a shard that is being written
    manifest.json                 all of it, written last; the plan and the shards' files then go

The same call again goes on where an interrupted one stopped.  Each image is decoded once, so that
none is found unreadable in training.  Threads write a shard each: decoding, hashing and the disk
leave Python to the others.  Memory: some images a thread, and 8 bytes for each image of the source.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.data.duplicates import (
    Duplicate,
    find_duplicates,
    fingerprint,
    read_duplicates,
    write_duplicates,
)
from crfr.data.images import SIZE
from crfr.data.records import Source, Unreadable
from crfr.data.selection import check_names, select
from crfr.data.shards import (
    MANIFEST,
    PLAN,
    ROLES,
    SCHEMA,
    check_files,
    folder_format,
    read_manifest,
)
from crfr.data.workers import Shards, read_json
from crfr.data.writers import import_tfds, write_dataset
from crfr.errors import InputError, unknown
from crfr.urls import public

DUPLICATES = "duplicates.jsonl"
PROBES = 64  # examples that tell one source from another


def convert(
    source: Source,
    spec: str,
    out: Path,
    *,
    format: str,
    shard_images: int = 4096,
    workers: int | None = None,
    drop: frozenset[str] = frozenset(),
    benchmarks: Sequence[Benchmark] = (),
    skip_unreadable: int = 0,
) -> dict[str, Any]:
    """Write all images of `source`, which `spec` names, to the folder `out`; its manifest.

    Without identities to `drop` (by name) and images of `benchmarks` to leave out, the labels stay
    as they are; otherwise the identities that have images left are numbered anew, in the order of
    their labels.  Images of benchmarks are searched for once: what was found stays in the folder.
    Up to `skip_unreadable` images that cannot be read are left out and listed.  `workers` threads,
    or one a core.

    Raises:
      InputError: an unknown format or identity; a folder with other things, or with another
        conversion; an image that cannot be read; TFDS missing.
      OSError: a full disk, with the file's name; finished shards stay.
    """
    if format not in ROLES:
        raise unknown("--format", format, ROLES)
    if shard_images < 1 or (workers is not None and workers < 1):
        raise InputError(
            f"shard_images={shard_images} and workers={workers}: give 1 or more of each"
        )
    if len(source) == 0:
        raise InputError(f"{spec}: holds no images; give a source that has some")
    if format == "tfds":
        import_tfds()
    plan = _plan(source, spec, format, shard_images, drop, benchmarks)
    with _claimed(out):
        if (out / MANIFEST).is_file():
            manifest = read_manifest(out)
            _compare(out, manifest["plan"], plan)
            check_files(out, manifest)
            _tidy(out)
            return manifest
        planned = (out / PLAN).is_file()
        if planned:
            _compare(out, read_json(out / PLAN), plan)
        check_names(source, spec, drop)
        if not planned:
            environment.write_json(out / PLAN, plan)
        found = _duplicates(source, benchmarks, out / DUPLICATES, workers) if benchmarks else []
        try:
            selection = select(source, spec, drop, {duplicate.index for duplicate in found})
        except InputError:
            if not any(out.glob("shard-*")):  # nothing is written, and nothing binds the folder
                for name in (PLAN, DUPLICATES):
                    (out / name).unlink(missing_ok=True)
            raise
        shards = Shards(source, selection, out, format, shard_images, Unreadable(skip_unreadable))
        done = shards.write(workers or environment.cores())
        manifest = {
            "schema": SCHEMA,
            "format": format,
            "images": sum(shard["count"] for shard in done),
            "classes": len(selection.identities),
            "height": SIZE,
            "width": SIZE,
            "identities": selection.identities,
            "shards": [{"count": shard["count"], "files": shard["files"]} for shard in done],
            "encodings": dict(sum((Counter(shard["encodings"]) for shard in done), Counter())),
            "dropped": selection.dropped,
            "unreadable": [entry for shard in done for entry in shard["unreadable"]],
            "plan": plan,
            "versions": environment.versions(),
            "commit": environment.commit(),
            "command": environment.command(),
            "finished": environment.now(),
        }
        if format == "tfds":
            write_dataset(out, manifest)
        environment.write_json(out / MANIFEST, manifest)
        _tidy(out)
    return manifest


def _plan(
    source: Source,
    spec: str,
    format: str,
    shard_images: int,
    drop: frozenset[str],
    benchmarks: Sequence[Benchmark],
) -> dict[str, Any]:
    """What makes two conversions the same."""
    digest = hashlib.sha256()
    for index in np.unique(np.linspace(0, len(source) - 1, PROBES).astype(int)).tolist():
        try:
            example = source[index]
        except InputError as error:
            digest.update(str(error).encode())
            continue
        image = example["image"]
        digest.update(image if isinstance(image, bytes) else image.tobytes())
        digest.update(b"%d" % example["label"])
    return {
        "schema": SCHEMA,
        "spec": public(spec),
        "format": format,
        "shard_images": shard_images,
        "drop": sorted(drop),
        # of what is searched for, not of what was found: that depends on float arithmetic
        "benchmarks": fingerprint(benchmarks) if benchmarks else None,
        "images": len(source),
        "classes": source.classes,
        "fingerprint": digest.hexdigest(),
    }


def _duplicates(
    source: Source, benchmarks: Sequence[Benchmark], path: Path, workers: int | None
) -> list[Duplicate]:
    """The benchmarks' images in `source`: as an earlier call wrote them to `path`, or searched."""
    if not path.is_file():
        # what cannot be read is counted when it is converted
        found = find_duplicates(source, list(benchmarks), skip_unreadable=True, threads=workers)
        write_duplicates(path, found)
    return read_duplicates(path)


def _compare(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [
        f"{key} (was {before.get(key)!r}, now {now.get(key)!r})"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise InputError(
            f"{out}: holds another conversion: {', '.join(differing)}; go on with the old values, "
            "choose another --out or delete the folder"
        )


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Make the folder, or check that it is a conversion's, and keep other processes from it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        things = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"--out={out}: {error.strerror}; choose a folder that can be written"
        ) from error
    ours = {MANIFEST, PLAN}.intersection(things) and folder_format(out)
    if things and not ours:
        raise InputError(
            f"--out={out}: holds other things ({min(things)}, ...); choose an empty folder"
        )
    busy = f"--out={out}: another crfr convert is writing there; wait until it has ended"
    with environment.locked(out, busy):
        yield


def _tidy(out: Path) -> None:
    """Remove what only an unfinished conversion needs."""
    for pattern in ("shard-*-of-*.json", ".partial-*", ".*.json.*", PLAN):
        for path in out.glob(pattern):
            path.unlink()
