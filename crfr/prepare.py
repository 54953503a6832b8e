"""`crfr convert` and `crfr doctor`: specs -> open sources and benchmarks -> one function each."""

import json
from collections.abc import Iterable
from pathlib import Path

from crfr.data.benchmarks import load_benchmarks
from crfr.data.convert import DUPLICATES
from crfr.data.convert import convert as convert_source
from crfr.data.doctor import examine, report_unusable
from crfr.data.duplicates import read_duplicates
from crfr.data.holdout import hold_out, to_bin
from crfr.data.records import find_source, open_source
from crfr.data.selection import check_names
from crfr.data.shards import folder_format, verify
from crfr.data.specs import split_spec
from crfr.environment import write_atomically
from crfr.errors import InputError, SpecError


def read_names(path: Path) -> frozenset[str]:
    """The identities that a text file lists, as `write_names` does; blank lines and #-comments are
    none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--drop-identities={path}: {error}; give a UTF-8 text file") from error
    written = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    names = frozenset(json.loads(name) if _quoted(name) else name for name in written)
    if not names:
        raise InputError(f"--drop-identities={path}: names nobody; write one identity a line")
    return names


def write_names(path: Path, names: Iterable[str]) -> None:
    """One a line; as a JSON string where the line would be read as another name, or as none."""

    def line(name: str) -> str:
        plain = name == name.strip() and name.isprintable()  # no line breaks, surrogates or marks
        return name if plain and not name.startswith(("#", '"')) else json.dumps(name)

    write_atomically(path, "".join(f"{line(name)}\n" for name in sorted(names)))


def _quoted(line: str) -> bool:
    if not line.startswith('"'):
        return False
    try:
        return isinstance(json.loads(line), str)
    except ValueError:
        return False  # a name that begins with the mark, by hand


def convert(
    data: str,
    out: Path,
    *,
    format: str,
    shard_images: int,
    workers: int | None,
    drop_identities: Path | None,
    dedupe_against: str,
    skip_unreadable: int,
) -> None:
    """Write a source's shards to `out`; images of the benchmarks are left out where asked for and
    listed in duplicates.jsonl.
    """
    drop = read_names(drop_identities) if drop_identities else frozenset()
    benchmarks = load_benchmarks(dedupe_against) if dedupe_against else []
    manifest = convert_source(
        open_source(data),
        data,
        out,
        format=format,
        shard_images=shard_images,
        workers=workers,
        drop=drop,
        benchmarks=benchmarks,
        skip_unreadable=skip_unreadable,
    )
    if benchmarks and (out / DUPLICATES).is_file():  # nobody needs it once all is written
        found = read_duplicates(out / DUPLICATES)
        exact = {duplicate.index for duplicate in found if duplicate.kind == "exact"}
        near = {duplicate.index for duplicate in found} - exact
        print(f"left out: {len(exact)} exact and {len(near)} near duplicates of benchmark images")
    print(f"{out}: {manifest['images']:,} images of {len(manifest['identities']):,} identities")


def doctor(
    data: str, benchmark: str, out: Path, sample: int | None = None, workers: int | None = None
) -> bool:
    """Examine a source, print what was found; whether something would spoil training.

    Of converted shards the checksums are compared first.  Data that cannot be opened are a finding;
    InputError is for arguments that name none, and for what is not installed.  `workers` threads,
    or one a core.
    """
    found = [find_source(part) for part in split_spec(data)]
    benchmarks = load_benchmarks(benchmark) if benchmark else []
    try:
        for place in found:
            if place.path is not None and folder_format(place.path) is not None:
                verify(place.path)
        source = open_source(data)
    except InputError as error:
        if isinstance(error, SpecError) or isinstance(error.__cause__, ImportError):
            raise
        report_unusable(data, out, error)
        return True
    findings = examine(source, data, out, benchmarks=benchmarks, sample=sample, threads=workers)
    return findings.spoils


def holdout(
    data: str, out: Path, *, identities: int, pairs: int, seed: int, drop_identities: Path | None
) -> None:
    """Write a benchmark of pairs of held-out identities to `out`, and their names beside it."""
    if out.suffix != ".bin":
        raise InputError(f"--out={out}: give a file ending in .bin, whose stem names the benchmark")
    drop = read_names(drop_identities) if drop_identities else frozenset()
    source = open_source(data)
    check_names(source, data, drop)
    held = hold_out(source, data, identities=identities, pairs=pairs, seed=seed, drop=drop)
    names = out.with_suffix(".identities")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_names(names, held.names)
    write_atomically(out, to_bin(held))
    print(
        f"{out}: {pairs:,} pairs of {len(held.images):,} images of {identities} identities\n"
        f"leave these out of the training: crfr convert --data=... --drop-identities={names}"
    )
