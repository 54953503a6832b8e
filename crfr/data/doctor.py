"""What is wrong with a training set, found in one pass over its images.

Each check is a `Finding` with a severity.  Errors are what spoils a training or its result:

  unusable         the set cannot be opened, or its shards are not what their manifest says: files
                   missing, cut short, damaged or mixed; nothing else is examined then
  unreadable       an image that does not decode, a label out of range: training stops there
  wrong_size       an image that is not 112 x 112 px: training stops there too
  swapped_colours  more than half of the coloured images have more blue than red in the middle of
                   the face (rows 56 to 87, columns 36 to 75).  As they are, 0.9 % of the coloured
                   images of pins90 have, 0.1 % of LFW's and none of the procedural faces; with
                   BGR for RGB it is 99.1 %, 99.9 % and 100 %
  alignment        the mean face is not where InsightFace's template has it; see alignment.py.  With
                   fewer than 50 identities a warning: the mean is theirs more than anybody's
  benchmark        images of a benchmark: accuracy would be measured on images trained on
  label_noise      one picture under several identities, for more than 0.1 % of the images.  Fewer
                   are a warning: large sets hold some, and training bears them
  label_gaps       more than 10 % of the labels have no image: they were not renumbered, or the
                   property file is another pack's.  Fewer are a warning: a class weight for
                   nobody costs memory, and every image trains away from it

A single image counts as bluish below (R - B) / (R + B) = -0.1 in the same place.  That is a
warning above 2 % of the images: of the coloured ones it holds for 0.3 % of pins90 and 0.03 % of LFW
as they are, and for 91 % and 98 % with swapped channels.

Identities that a set and a benchmark share under other pictures cannot be told from pixels.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from crfr import environment
from crfr.data import checks
from crfr.data.alignment import SIZE, TEMPLATE, judge
from crfr.data.benchmarks import Benchmark
from crfr.data.checks import EXAMPLES, ROW, SHOWN, Finding
from crfr.data.duplicates import BLOCK, Duplicate, digest, match, prepare, scan
from crfr.data.images import decode
from crfr.data.records import Source
from crfr.data.sheet import Strip, contact_sheet, face_pictures
from crfr.errors import InputError
from crfr.urls import public

RANDOM = 64  # images at the head of the contact sheet


@dataclass(frozen=True)
class Findings:
    data: str
    images: int  # examined
    findings: list[Finding]
    duplicates: list[Duplicate]  # images of the benchmarks

    @property
    def spoils(self) -> bool:
        """Whether training on the set, as it is, would be spoilt."""
        return any(finding.severity == "error" for finding in self.findings)

    def table(self) -> str:
        """For the screen: a line for each finding, and examples of errors and warnings."""
        lines = [f"{self.data}: {self.images} images examined"]
        for f in self.findings:
            lines.append(f"{f.severity:8} {f.name:16} {f.count:>9}  {f.text}")
            if f.severity in ("error", "warning"):
                lines += [f"{'':37}{example}" for example in f.examples]
        return "\n".join(lines)


def examine(
    source: Source,
    spec: str,
    out: Path,
    *,
    benchmarks: list[Benchmark] | None = None,
    sample: int | None = None,
    threads: int | None = None,
) -> Findings:
    """Examine all images of `source`, or `sample` of them drawn at random, and print a table.

    Writes doctor.json, mean_face.png, mean_face_points.png and contact_sheet.png to the folder
    `out`, and creates it.  In memory are some 100 bytes an image and some thousand decoded images.

    InputError for a sample below 1, and a folder that cannot be written.
    """
    if sample is not None and sample < 1:
        raise InputError(f"sample={sample}: give the number of images to examine, 1 or more")
    environment.make_folder(out, str(out), "name a folder for the findings")
    total = len(source)
    rng = np.random.default_rng(0)
    partial = sample is not None and sample < total
    numbers = np.sort(rng.choice(total, sample, replace=False)) if partial else np.arange(total)

    rows = np.zeros(len(numbers), ROW)
    seen = unreadable = resized = 0
    messages: list[str] = []
    sizes: list[str] = []
    odd: list[int] = []
    duplicates: list[Duplicate] = []
    reference = prepare(benchmarks) if benchmarks else None
    sums = np.zeros((SIZE, SIZE, 3), np.uint64)
    block: list[tuple[int, np.ndarray]] = []

    def finish_block() -> None:
        images = np.stack([image for _, image in block])
        np.add(sums, images.sum(0, dtype=np.uint64), out=sums)
        if reference:
            duplicates.extend(match(reference, source, [index for index, _ in block], images))
        block.clear()

    looks = scan(numbers.tolist(), lambda i: _look(source, i), threads, f"examining {public(spec)}")
    for index, look in looks:
        if isinstance(look, InputError):
            unreadable += 1
            messages += [str(look)][: EXAMPLES - len(messages)]
            continue
        row, image = look
        rows[seen] = (index, *row)
        seen += 1
        if image.shape == (SIZE, SIZE, 3):
            block.append((index, image))
            if len(block) == BLOCK:
                finish_block()
        else:
            resized += 1
            size = f"{source.where(index)}: {image.shape[1]}x{image.shape[0]} px"
            sizes += [size][: EXAMPLES - len(sizes)]
            odd += [index][: SHOWN - len(odd)]
    if block:
        finish_block()
    rows, sound = rows[:seen], seen - resized
    mean_face = sums / max(sound, 1)

    size = f"images that are not {SIZE}x{SIZE} px (width x height)"
    found = [
        checks.damage("unreadable", unreadable, messages, "images that cannot be read", []),
        checks.damage("wrong_size", resized, sizes, size, odd),
    ]
    if seen:
        found += checks.labels(source, rows, partial)
        found += checks.appearance(source, rows)
        found += checks.copies(source, rows)
    found.append(checks.alignment(judge(mean_face), sound, len(np.unique(rows["label"]))))
    if reference:
        found.append(checks.overlap(duplicates))
    findings = Findings(public(spec), len(numbers), found, duplicates)
    chosen = rng.permutation(rows["index"])[:RANDOM].tolist()
    _write(out, source, findings, benchmarks or [], mean_face, chosen)
    print(findings.table())
    return findings


def report_unusable(spec: str, out: Path, error: InputError) -> None:
    """Print and write the one finding of a set that cannot be examined."""
    environment.make_folder(out, str(out), "name a folder for the findings")
    finding = Finding("unusable", "error", 1, str(error))
    findings = Findings(public(spec), 0, [finding], [])
    _write_record(out, findings)
    print(findings.table())


def _look(source: Source, index: int) -> tuple[tuple, UInt8[np.ndarray, "h w c"]]:
    """(what ROW has besides the index, pixels)."""
    example = source[index]
    image = decode(example["image"], source.where(index))
    key = int.from_bytes(digest(image)[:8], "little")
    red, green, blue = (image[..., channel] for channel in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    colour = (high - np.minimum(np.minimum(red, green), blue)).mean()
    height, width = image.shape[:2]
    face = image[height // 2 : height * 11 // 14, width * 9 // 28 : width * 19 // 28]
    r, _, b = face.mean((0, 1)).tolist() if face.size else (0, 0, 0)
    redness = (r - b) / (r + b + 1)
    return (example["label"], key, image.mean(), image.std(), colour, redness), image


def _write(
    out: Path,
    source: Source,
    findings: Findings,
    benchmarks: list[Benchmark],
    mean_face: np.ndarray,
    chosen: list[int],
) -> None:
    def strip(title: str, indices: list[int]) -> Strip:
        examples = [source[index] for index in indices]
        images = [
            decode(example["image"], source.where(index))
            for index, example in zip(indices, examples, strict=True)
        ]
        names = [source.identity(example["label"]) for example in examples]
        captions = [f"{name} #{index}" for name, index in zip(names, indices, strict=True)]
        return Strip(title, images, captions)

    strips = [strip(f"{findings.data}: {len(chosen)} images drawn at random", chosen)]
    for finding in findings.findings:
        if finding.indices:
            title = f"{finding.severity}: {finding.name}, {finding.count} {finding.text}"
            strips.append(strip(title, finding.indices))
    named = {benchmark.name: benchmark for benchmark in benchmarks}
    pairs = sorted(findings.duplicates, key=lambda d: (-d.similarity, d.index))[:SHOWN]
    if pairs:
        images = [named[d.benchmark].images[d.image] for d in pairs]
        captions = [f"{d.image} = #{d.index}" for d in pairs]
        strips.append(Strip("what the benchmarks have for them", images, captions))
    plain, marked = face_pictures(mean_face, TEMPLATE)
    for picture, name in (
        (plain, "mean_face.png"),
        (marked, "mean_face_points.png"),
        (contact_sheet(strips), "contact_sheet.png"),
    ):
        picture.save(out / name)
    _write_record(out, findings)


def _write_record(out: Path, findings: Findings) -> None:
    record = asdict(findings) | {
        "spoils": findings.spoils,
        "command": environment.command(),
        "commit": environment.commit(),
        "versions": environment.versions(),
        "time": environment.now(),
    }
    environment.write_json(out / "doctor.json", record)
