"""Verification benchmarks: distinct images, and pairs of them that show one person or two.

InsightFace's `.bin` files (lfw.bin, agedb_30.bin, cfp_fp.bin, calfw.bin, cplfw.bin) are pickles of
`(bins, issame_list)`: encoded images, where 2i and 2i + 1 are pair i, and one truth a pair.  Images
are bytes or uint8 arrays of shape (n,) or (n, 1).  The same image occurs in several pairs (LFW's
12,000 are 7,701 distinct ones); it is kept, and later embedded, once.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from tqdm import tqdm

from crfr.data import faces
from crfr.data.images import decode
from crfr.data.recordio import require_file
from crfr.data.records import read_example
from crfr.data.unpickle import PickledArray, unpickle
from crfr.errors import InputError, unknown

SIZE = 112  # px, the side of every image
MIN_PAIRS = 10  # accuracy is taken over ten folds
AGAIN = "copy the file again from its source"


@dataclass(frozen=True)
class Benchmark:
    name: str
    images: UInt8[np.ndarray, "n h w c"]  # distinct, RGB
    pairs: Int32[np.ndarray, "p 2"]  # of indices into images
    same: Bool[np.ndarray, " p"]  # whether both show one person


def load_benchmark(spec: str) -> Benchmark:
    """The benchmark named by `spec`: a path to an InsightFace `.bin`, whose name becomes the
    benchmark's, or `faces[:identities=N,images=N,seed=S]`, procedural faces that no training sees.

    InputError for a spec that names nothing, for a pickle that is damaged or asks for anything but
    images and truths (nothing of it is run), and for images and pairs that are no benchmark.
    """
    kind = spec.partition(":")[0]
    if kind == "faces":
        return _load_faces(spec)
    if spec.endswith(".bin") or Path(spec).is_dir():
        return _load_bin(require_file(spec))
    if Path(spec).exists():
        raise InputError(f"{spec}: is not a benchmark; name a .bin file, or 'faces'")
    raise unknown("benchmark", kind, ["faces", "a path ending in .bin"])


def _load_faces(spec: str) -> Benchmark:
    settings = faces.parse_faces(spec, identities=80, images=10, seed=0)
    pairs, same = faces.face_pairs(**settings)
    if len(pairs) < MIN_PAIRS:
        raise InputError(
            f"{spec}: {len(pairs)} pairs, fewer than {MIN_PAIRS}; ask for more identities"
        )
    source = faces.Faces(split="eval", **settings)
    progress = tqdm(range(len(source)), desc=f"drawing {spec}", unit=" images", disable=None)
    images = np.stack([read_example(source, index, SIZE)["image"] for index in progress])
    return Benchmark(spec, images, pairs, same)


def _load_bin(path: Path) -> Benchmark:
    bins, truths = _content(path)
    same = np.array([_truth(path, pair, truth) for pair, truth in enumerate(truths)])
    if same.all() or not same.any():
        raise InputError(
            f"{path}: all {len(same)} pairs are of {'one person' if same[0] else 'two people'}; "
            "accuracy needs pairs of both kinds"
        )

    # Encoded image -> its index among the distinct ones, in order of first occurrence.
    distinct: dict[bytes, int] = {}
    pairs = np.empty(len(bins), np.int32)
    for slot, item in enumerate(bins):
        pairs[slot] = distinct.setdefault(_encoded(path, slot, item), len(distinct))
    slots = np.unique(pairs, return_index=True)[1].tolist()

    images = np.empty((len(distinct), SIZE, SIZE, 3), np.uint8)

    def fill(out: UInt8[np.ndarray, "h w 3"], encoded: bytes, slot: int) -> None:
        image = decode(encoded, _place(path, slot))
        if image.shape != out.shape:
            height, width = image.shape[:2]
            raise InputError(
                f"{_place(path, slot)}: the image is {width}x{height} px (width x height), not "
                f"{SIZE}x{SIZE}; align the faces and crop them to {SIZE} px first"
            )
        out[:] = image

    with ThreadPoolExecutor() as threads:  # libjpeg works without the interpreter's lock
        filled = threads.map(fill, images, distinct, slots)
        progress = tqdm(filled, f"decoding {path.name}", len(slots), unit=" images", disable=None)
        for _ in progress:
            pass
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
    if len(truths) < MIN_PAIRS:
        raise InputError(
            f"{path}: {len(truths)} pairs, but accuracy over ten folds needs {MIN_PAIRS} or more"
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
