"""Which resolution each image of a pair has (paper sections 3.4, 4.2, 6.3).

Cross resolution, CR: CR_A degrades the first image of each pair to r, CR_B the second, the other
has 112 px; CR is the mean of both.  Equal resolution, ER: both have r.  The paper's four protocols
give each image a resolution of its own: those of the second image of a pair are drawn from a range,
those of the first are 112.  The authors have published theirs as CSV files, one line of 2 p
integers: image A of the first pair, its image B, image A of the next pair, and so on.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int32

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError

FULL = 112  # px
SCENARIOS = ("CR", "CR_A", "CR_B", "ER")
# Protocol -> (lowest, highest resolution of image B, name of the published file).  The ranges are
# those of the published files; the paper's text says 10..40 for the middle one.
PROTOCOLS = {
    "low_res": (5, 10, "low_res_focus.csv"),
    "mid_res": (11, 39, "mid_res_focus.csv"),
    "high_res": (40, 112, "high_res_focus.csv"),
    "all_res": (5, 112, "avg_sizes.csv"),
}
# The authors' files, by the first 16 digits of their SHA-256 (github.com/Martlgap/btm-stm).
PUBLISHED = frozenset(
    (
        "5d611d58de10ea17",
        "378b91388fc3f58d",
        "1f34e0d50cb91b30",
        "64c0e62545717dab",
        "acc6cb502ae50f5c",
        "9b7195dc48f93cb4",
        "d4ddd93f6c438d31",
        "5ab408c7659ca4ff",
        "e9a13910cf1c53e2",
        "c3f12cf9491dc16e",
        "1b0969119ff877dc",
        "b07fc0bd0fcfbc1e",
        "d2c48f6180c240c8",
        "6fbdbc1cacd1775b",
        "a75cc188371dd96b",
        "854d0ef807f5f9a6",
        "5b1bb6779a3913e9",
        "766cd66f2b473bd2",
        "e957dfb8727ccc5b",
        "bc1cd98e0d4a577f",
    )
)
# The published folder of each benchmark; others have a folder of their own name.
FOLDERS = {
    "lfw": "LFW",
    "agedb_30": "AgeDB",
    "cfp_fp": "CFP-FP",
    "calfw": "CALFW",
    "cplfw": "CPLFW",
}


@dataclass(frozen=True)
class Protocol:
    """A resolution in px for each image of p pairs, drawn once (in a file) or several times."""

    name: str  # of PROTOCOLS
    drawn: str  # "published" (the authors' file), "file" (another one) or "seeded"
    source: str  # "sha256 ..." of the file, or "seed ..."
    resolutions: Int32[np.ndarray, "draws p 2"]


def folder_name(benchmark: str) -> str:
    """The folder of a benchmark's CSV files.

    >>> folder_name("cfp_fp"), folder_name("faces:seed=1")
    ('CFP-FP', 'faces%3Aseed%3D1')
    """
    return FOLDERS.get(benchmark, environment.file_name(benchmark))


def draw_protocols(benchmark: Benchmark, draws: int, seed: int) -> list[Protocol]:
    """All four protocols, each drawn `draws` times; every resolution of a range is equally likely.

    Draw i of N is the same whatever N is, and differs between benchmarks and protocols.
    """
    protocols = []
    for name, (low, high, _) in PROTOCOLS.items():
        resolutions = np.full((draws, len(benchmark.pairs), 2), FULL, np.int32)
        for draw in range(draws):
            salt = zlib.crc32(f"{benchmark.name}/{name}".encode())
            rng = np.random.default_rng([seed, draw, salt])
            resolutions[draw, :, 1] = rng.integers(low, high + 1, len(benchmark.pairs))
        protocols.append(Protocol(name, "seeded", f"seed {seed}", resolutions))
    return protocols


def read_protocols(folder: Path, benchmark: Benchmark) -> list[Protocol]:
    """The four protocols of a benchmark from CSV files: the authors', or others in their layout.

    `folder` holds a folder for each benchmark (LFW, AgeDB, CFP-FP, CALFW, CPLFW, or its own name).
    InputError for a file that is missing, that has not two integers a pair, or a value outside its
    protocol: image A has 112 px, image B what PROTOCOLS says.
    """
    here = folder / folder_name(benchmark.name)
    return [_read(name, here / file, benchmark) for name, (_, _, file) in PROTOCOLS.items()]


def _read(name: str, path: Path, benchmark: Benchmark) -> Protocol:
    try:
        content = path.read_bytes()
        text = content.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = "no text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(
            f"{path}: {reason}; --protocols takes the authors' folder, or what crfr protocols wrote"
        ) from error
    words = [word.strip() for word in text.split(",")]
    wanted = 2 * len(benchmark.pairs)
    if len(words) != wanted:
        raise InputError(
            f"{path}: {len(words):,} values, but {len(benchmark.pairs):,} pairs of "
            f"{benchmark.name} need {wanted:,}; it belongs to another list of pairs or is cut short"
        )
    values = np.empty(wanted, np.int32)
    for position, word in enumerate(words):
        value = int(word) if word.isascii() and word.isdecimal() and len(word) < 9 else 0
        pair, second = divmod(position, 2)
        lowest, highest = PROTOCOLS[name][:2] if second else (FULL, FULL)
        if not lowest <= value <= highest:
            range_ = f"in {lowest}..{highest}" if second else f"of {FULL}"
            raise InputError(
                f"{path}, line 1: value {position + 1}, of image {'AB'[second]} of pair "
                f"{pair + 1}, is {word!r}, but in {name} it is {range_} px; copy the file again, "
                "or draw one by crfr protocols"
            )
        values[position] = value
    digest = hashlib.sha256(content).hexdigest()[:16]
    drawn = "published" if digest in PUBLISHED else "file"
    return Protocol(name, drawn, f"sha256 {digest}", values.reshape(1, -1, 2))


def write_protocols(folder: Path, benchmark: Benchmark, seed: int) -> list[Path]:
    """The four protocols, drawn once, as CSV files in the authors' layout; their paths."""
    paths = []
    for protocol in draw_protocols(benchmark, 1, seed):
        path = folder / folder_name(benchmark.name) / PROTOCOLS[protocol.name][2]
        path.parent.mkdir(parents=True, exist_ok=True)
        line = ",".join(map(str, protocol.resolutions.ravel().tolist()))
        environment.write_atomically(path, line + "\r\n")
        paths.append(path)
    return paths


def needed(
    benchmark: Benchmark,
    scenarios: Sequence[str],
    resolutions: Sequence[int],
    protocols: Sequence[Protocol],
) -> dict[int, Bool[np.ndarray, " n"]]:
    """Resolution, falling -> which distinct images have to be embedded at it.

    CR, ER and the matrix at r need every image at r, CR at 112 px as well; a protocol needs each
    image where it has it.
    """
    masks: dict[int, np.ndarray] = {}

    def mark(resolution: int, images: Int[np.ndarray, " m"]) -> None:
        masks.setdefault(resolution, np.zeros(len(benchmark.images), bool))[images] = True

    everywhere = set(resolutions) if {"CR", "ER", "matrix"}.intersection(scenarios) else set()
    if "CR" in scenarios:
        everywhere.add(FULL)
    for resolution in everywhere:
        mark(resolution, np.unique(benchmark.pairs))
    for protocol in protocols:
        drawn = protocol.resolutions
        for resolution in np.unique(drawn).tolist():
            _, pair, side = np.nonzero(drawn == resolution)
            mark(resolution, benchmark.pairs[pair, side])
    return dict(sorted(masks.items(), reverse=True))
