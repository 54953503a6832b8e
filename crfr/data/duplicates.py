"""Images of a training set that are a benchmark's as well, exactly or nearly.

Exact means equal pixels.  Near means the same photograph, encoded anew, shifted, scaled, brighter,
darker or mirrored.  Thumbnails of all images are compared with those of all benchmark images, by
matrix products; the few pairs above a threshold are then compared at full size (both: likeness.py),
and count as one photograph from NEAR on.

Measured on aligned photographs, LFW's 7,701 as the benchmark:

- Missed, of 1,000 of them changed: none for JPEG of quality 50 and 20, for shifts by (1, 1) px,
  scales of 0.97 and 1.03, brightness of 80 and 120 %, mirror images, and mirrored, darker, scaled,
  shifted and encoded ones (correlations of 0.957 and more); 2 for shifts by (2, 2) px.  Beyond that
  it fails: 46 % are missed for a scale of 1.06, 65 % for 4 px, 85 % for a turn by 3 degrees.
- Mistaken: none of 97.6 million pairs with pins90, other people, where the highest correlation is
  0.75.  Within LFW four pairs, all of them one photograph twice; the next two, 0.90 and 0.86, are
  one more and two shots of an event.  Simple drawings are more alike: of 1.9 million pairs of
  procedural people the highest has 0.906, and two images of one such person may well count.
- Time: the products are 4.4 TFLOP per million images, and take 50 to 90 s of one core; so do the
  thumbnails, the digests, and the full comparisons, of 0.09 pairs an image and 1 ms each.  5.8
  million images take half an hour of one core, and a quarter to be decoded.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from crfr.data.benchmarks import Benchmark
from crfr.data.likeness import correlation, project, thumbnails, whitening
from crfr.data.records import Source, read_example
from crfr.environment import cores, read_lines, write_lines
from crfr.errors import InputError

# Similarity of thumbnails above which full images are compared: of whitened ones, and of others.
WHITENED, PLAIN = 0.66, 0.78
NEAR = 0.91  # correlation of full images from which they are one photograph
PER_IMAGE = 20  # candidates compared for each image, the most similar ones
BLOCK = 1024  # images whose thumbnails are multiplied at once: 63 MB of products for LFW
PAIRS = 64  # full images compared at once


@dataclass(frozen=True)
class Duplicate:
    index: int  # in the source
    where: str  # the source's name for it
    benchmark: str
    image: int  # number in Benchmark.images
    kind: str  # "exact": equal pixels; "near": one photograph
    similarity: float  # 1 for exact, else the correlation of the two


@dataclass(frozen=True)
class Reference:
    """What `match` has to know of the benchmarks' n images; k = 144 cells."""

    benchmarks: list[Benchmark]
    owners: list[tuple[int, int]]  # of n images: (benchmark, image)
    candidate: float  # similarity of thumbnails above which full images are compared
    exact: dict[bytes, list[int]]  # digest of pixels -> which of the n
    mean: Float32[np.ndarray, " k"]
    whiten: Float32[np.ndarray, "k k"]
    thumbs: Float32[np.ndarray, "k m"]  # m = 2 n: of the images, then of their mirror images


def digest(image: UInt8[np.ndarray, "h w c"]) -> bytes:
    """16 bytes that two images share if their pixels and widths are equal."""
    return hashlib.blake2b(image.tobytes(), digest_size=16, key=b"%d" % image.shape[1]).digest()


def scan(
    indices: Sequence[int], work: Callable[[int], Any], threads: int | None, title: str
) -> Iterator[tuple[int, Any]]:
    """(index, work(index)) in order; the InputError in place of the result where it raises one.

    `work` runs in threads (None: one a core), 1,024 images ahead at most.
    """

    def one(index: int) -> Any:
        try:
            return work(index)
        except InputError as error:
            return error

    # libjpeg, NumPy and hashlib work without the interpreter's lock.
    with ThreadPoolExecutor(threads or cores()) as pool:
        bar = tqdm(total=len(indices), desc=title, unit=" images", disable=None)
        with bar:
            for at in range(0, len(indices), BLOCK):
                block = indices[at : at + BLOCK]
                yield from zip(block, pool.map(one, block), strict=True)
                bar.update(len(block))


def find_duplicates(
    source: Source,
    benchmarks: list[Benchmark],
    *,
    skip_unreadable: bool = False,
    threads: int | None = None,
) -> list[Duplicate]:
    """The images of `source` that are among the benchmarks' images, in the order of the source.

    InputError for an image that does not decode or is not 112 x 112 px, unless `skip_unreadable`.
    """
    if not benchmarks:
        return []
    reference = prepare(benchmarks)
    found: list[Duplicate] = []

    def read(index: int) -> np.ndarray:
        return read_example(source, index)["image"]

    scanned = scan(range(len(source)), read, threads, "finding duplicates")
    while block := list(islice(scanned, BLOCK)):
        for _, image in block:
            if isinstance(image, InputError) and not skip_unreadable:
                raise image
        sound = [(i, image) for i, image in block if not isinstance(image, InputError)]
        if sound:
            numbers, images = zip(*sound, strict=True)
            found += match(reference, source, list(numbers), np.stack(images))
    return found


def fingerprint(benchmarks: Sequence[Benchmark]) -> str:
    """A hash of what the search depends on: the benchmarks' names and images, in their order."""
    total = hashlib.sha256()
    for benchmark in benchmarks:
        images = np.ascontiguousarray(benchmark.images)
        total.update(f"{benchmark.name!r} {images.shape}".encode())
        total.update(images.data)
    return total.hexdigest()


def write_duplicates(path: Path, found: list[Duplicate]) -> None:
    write_lines(path, [asdict(duplicate) for duplicate in found])


def read_duplicates(path: Path) -> list[Duplicate]:
    try:
        return [Duplicate(**row) for row in read_lines(path)]
    except TypeError as error:
        raise InputError(
            f"{path}: not as crfr wrote it ({error}); delete the folder and convert again"
        ) from error


def prepare(benchmarks: list[Benchmark]) -> Reference:
    """Thumbnails and digests of all the images of one benchmark or several."""
    owners, exact = [], {}
    for number, benchmark in enumerate(benchmarks):
        for position, image in enumerate(benchmark.images):
            exact.setdefault(digest(image), []).append(len(owners))
            owners.append((number, position))
    straight = [thumbnails(b.images) for b in benchmarks]
    mirrored = [thumbnails(b.images[:, :, ::-1]) for b in benchmarks]
    both = np.concatenate([*straight, *mirrored])
    mean, whiten = whitening(both)
    thumbs = project(both, mean, whiten).T
    candidate = WHITENED if mean.any() else PLAIN
    return Reference(benchmarks, owners, candidate, exact, mean, whiten, thumbs)


def match(
    reference: Reference, source: Source, numbers: list[int], images: UInt8[np.ndarray, "b h w c"]
) -> list[Duplicate]:
    """Which of `images`, the source's at `numbers`, are among the reference's images.

    The matrix product takes 4 b k n FLOPs for b images.
    """
    similar = project(thumbnails(images), reference.mean, reference.whiten) @ reference.thumbs
    candidates: list[tuple[int, int, bool]] = []  # (of images, of the n, mirrored)
    scores: dict[tuple[int, int], float] = {}
    exact = set()
    for row, image in enumerate(images):
        exact |= {(row, column) for column in reference.exact.get(digest(image), ())}
        close = np.flatnonzero(similar[row] > reference.candidate)
        for place in close[np.argsort(-similar[row, close])][:PER_IMAGE].tolist():
            mirrored, column = divmod(place, len(reference.owners))
            candidates.append((row, column, mirrored == 1))
    for at in range(0, len(candidates), PAIRS):
        pairs = candidates[at : at + PAIRS]
        right = []
        for _, column, mirrored in pairs:
            number, position = reference.owners[column]
            image = reference.benchmarks[number].images[position]
            right.append(image[:, ::-1] if mirrored else image)
        values = correlation(images[[row for row, _, _ in pairs]], np.stack(right)).tolist()
        for (row, column, _), value in zip(pairs, values, strict=True):
            scores[row, column] = max(value, scores.get((row, column), -1))
    scores |= dict.fromkeys(exact, 1.0)

    found = []
    for (row, column), score in sorted(scores.items()):
        if score >= NEAR:
            number, position = reference.owners[column]
            kind = "exact" if (row, column) in exact else "near"
            name, place = reference.benchmarks[number].name, source.where(numbers[row])
            found.append(Duplicate(numbers[row], place, name, position, kind, score))
    return found
