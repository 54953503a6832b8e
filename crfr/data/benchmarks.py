"""Verification benchmarks: distinct images, and pairs of them that show one person or two.

InsightFace's `.bin` files (lfw.bin, agedb_30.bin, cfp_fp.bin, calfw.bin, cplfw.bin) are pickles of
`(bins, issame_list)`: encoded images, where 2i and 2i + 1 are pair i, and one truth a pair.  Images
are bytes or uint8 arrays of shape (n,) or (n, 1).  The same image occurs in several pairs (LFW's
12,000 are 7,701 distinct ones); it is kept, and later embedded, once.  Lists of pairs in LFW's
format are read by pairs.py.
"""

import collections
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from tqdm import tqdm

from crfr.data import faces
from crfr.data.images import decode_faces
from crfr.data.pairs import (
    MIN_PAIRS,
    Settings,
    check_pairs,
    load_pairs,
    parse_pairs,
)
from crfr.data.recordio import require_file
from crfr.data.records import read_example
from crfr.data.remote import localize
from crfr.data.unpickle import PickledArray, unpickle
from crfr.errors import InputError, unknown
from crfr.urls import folder_url, split_query

AGAIN = "copy the file again from its source"
# The usual benchmarks, in the order that papers report them, and their numbers of pairs.
KNOWN = {"lfw": 6000, "agedb_30": 6000, "cfp_fp": 7000, "calfw": 6000, "cplfw": 6000}
FORMS = ["faces", "a path ending in .bin", "a list of pairs ending in .txt", "a folder of .bin"]


@dataclass(frozen=True)
class Benchmark:
    name: str
    images: UInt8[np.ndarray, "n h w c"]  # distinct, RGB
    pairs: Int32[np.ndarray, "p 2"]  # of indices into images
    same: Bool[np.ndarray, " p"]  # whether both show one person


def load_benchmark(spec: str) -> Benchmark:
    """The benchmark named by `spec`; paths may be URLs, whose files are copied to this host once.

    - `PATH.bin`: InsightFace's, which is called as its file is;
    - `PATH.txt[:images=DIR,crop=SIDE]`: pairs in LFW's format;
    - `DIR`: a folder that holds one `.bin`;
    - `faces[:identities=N,images=N,seed=S]`: procedural faces that no training sees.

    InputError for a spec that names nothing or several benchmarks, for a pickle that is damaged or
    asks for anything but images and truths (nothing of it is run), for images and pairs that are
    no benchmark, and for a usual benchmark that has not its number of pairs.
    """
    specs = split_specs(spec)
    if len(specs) > 1:
        raise InputError(f"{spec}: names {len(specs)} benchmarks; name one: {', '.join(specs)}")
    return _load(specs[0])


def load_benchmarks(spec: str) -> list[Benchmark]:
    """The benchmarks named by a spec, or by several with commas between them.

    A comma separates specs unless KEY= follows it, as it does inside a spec's own settings.  A
    folder stands for its `.bin` files: the usual ones in their usual order, then others by name.
    InputError as `load_benchmark`, and for two benchmarks of one name.
    """
    benchmarks = [_load(single) for single in split_specs(spec)]
    counts = collections.Counter(benchmark.name for benchmark in benchmarks)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise InputError(f"{spec}: {count} benchmarks are called {name!r}; rename a file")
    return benchmarks


def split_specs(spec: str) -> list[str]:
    """The single benchmarks that a spec stands for, as specs; folders are listed, nothing read."""
    parts = [spec] if spec and Path(spec).exists() else re.split(r",(?!\w+=)", spec)
    if "" in parts:
        raise InputError(f"benchmark {spec!r}: there is nothing before or after a comma")
    return [single for part in parts for single in _list_folder(part)]


def _list_folder(spec: str) -> list[str]:
    if spec.partition(":")[0] == "faces" or _is_bin(spec) or parse_pairs(spec):
        return [spec]
    folder = Path(localize(spec, ".bin"))
    if not folder.is_dir():
        return [spec]
    order = {name: position for position, name in enumerate(KNOWN)}
    paths = [path for path in folder.glob("[!.]*.bin") if path.is_file()]
    if not paths:
        raise InputError(f"{spec}: is a folder without .bin files; name a file in it")
    paths.sort(key=lambda path: (order.get(path.stem, len(order)), path.name))
    return [str(path) for path in paths]


def _is_bin(spec: str) -> bool:
    return split_query(spec)[0].endswith(".bin")


def _load(spec: str) -> Benchmark:
    kind = spec.partition(":")[0]
    if kind == "faces":
        return _load_faces(spec)
    pairs = parse_pairs(spec)
    if pairs:
        return _load_list(pairs)
    if _is_bin(spec):
        return _load_bin(require_file(localize(spec)))
    if Path(spec).exists() or "://" in spec:
        raise InputError(f"{spec}: is not a benchmark; name a .bin or .txt file, or 'faces'")
    raise unknown("benchmark", kind, FORMS)


def _load_faces(spec: str) -> Benchmark:
    settings = faces.parse_faces(spec, identities=80, images=10, seed=0)
    pairs, same = faces.face_pairs(**settings)
    if len(pairs) < MIN_PAIRS:
        raise InputError(
            f"{spec}: {len(pairs)} pairs, fewer than {MIN_PAIRS}; ask for more identities"
        )
    source = faces.Faces(split="eval", **settings)
    progress = tqdm(range(len(source)), desc=f"drawing {spec}", unit=" images", disable=None)
    images = np.stack([read_example(source, index)["image"] for index in progress])
    return Benchmark(spec, images, pairs, same)


def _load_list(settings: Settings) -> Benchmark:
    images, pairs, same = load_pairs(settings)
    path = Path(localize(settings.path))
    remote = "://" in settings.path
    folder = folder_url(settings.path) if remote else str(path.resolve().parent)
    # "pairs" says nothing; and the name of a .bin would hide that these images may not be aligned.
    stem = posixpath.basename(folder) if path.stem == "pairs" else path.stem
    name = f"{stem}-pairs" if path.stem == "pairs" or stem in KNOWN else stem
    crop = f"-crop{settings.crop}" if settings.crop else ""
    return Benchmark(name + crop, images, pairs, same)


def _load_bin(path: Path) -> Benchmark:
    bins, truths = _content(path)
    known = KNOWN.get(path.stem, len(truths))
    if len(truths) != known:
        raise InputError(
            f"{path}: {len(truths):,} pairs, but {path.stem} has {known:,}; the file is cut short "
            "or holds another list: copy it again from its source, or rename it"
        )
    same = np.array([_truth(path, pair, truth) for pair, truth in enumerate(truths)], bool)
    check_pairs(str(path), same)

    # Encoded image -> its index among the distinct ones, in order of first occurrence.
    distinct: dict[bytes, int] = {}
    pairs = np.empty(len(bins), np.int32)
    for slot, item in enumerate(bins):
        pairs[slot] = distinct.setdefault(_encoded(path, slot, item), len(distinct))
    slots = np.unique(pairs, return_index=True)[1].tolist()
    encoded = list(distinct)
    images = decode_faces(
        f"decoding {path.name}",
        len(encoded),
        encoded.__getitem__,
        lambda index: _place(path, slots[index]),
    )
    return Benchmark(path.stem, images, pairs.reshape(-1, 2), same)


def _content(path: Path) -> tuple[list | tuple, list | tuple]:
    """(images, truths), two lists of fitting lengths; what is in them is not checked yet."""
    content = unpickle(str(path), path.read_bytes())
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise InputError(
            f"{path}: holds no (images, truths), which is InsightFace's .bin layout; {AGAIN}"
        )
    bins, truths = content
    if isinstance(truths, PickledArray):
        truths = truths.value.tolist()
    for name, part in (("images", bins), ("truths", truths)):
        if not isinstance(part, list | tuple):
            raise InputError(f"{path}: its {name} are no list but {type(part).__name__}; {AGAIN}")
    if len(bins) != 2 * len(truths):
        raise InputError(
            f"{path}: {len(bins)} images and {len(truths)} pairs, but a pair is two images; {AGAIN}"
        )
    return bins, truths


def _place(path: Path, slot: int) -> str:
    return f"{path}, image {slot} (pair {slot // 2})"


def _truth(path: Path, pair: int, truth: object) -> bool:
    if not isinstance(truth, int) or truth not in (0, 1):
        # The value of any other type may be a bomb to print.
        small = isinstance(truth, int) and truth.bit_length() < 64
        shown = truth if small else f"a {type(truth).__name__}"
        raise InputError(f"{path}, pair {pair}: {shown} is neither true nor false; {AGAIN}")
    return bool(truth)


def _encoded(path: Path, slot: int, item: object) -> bytes:
    if isinstance(item, PickledArray):
        if item.value.dtype != np.uint8:
            raise InputError(
                f"{_place(path, slot)}: an array of {item.value.dtype}, not of uint8; {AGAIN}"
            )
        return item.value.tobytes()
    if not isinstance(item, bytes | bytearray):
        raise InputError(
            f"{_place(path, slot)}: a {type(item).__name__}, not bytes or a uint8 array; {AGAIN}"
        )
    return bytes(item)
