"""The checks of `crfr doctor`: what was measured of each image -> findings.

A `rows` is a structured array with one element for each readable image, of dtype ROW; an `index`
is the image's in the source.  How severe a finding is, and why, is said in doctor.py.
"""

from dataclasses import dataclass, field

import numpy as np

from crfr.data.alignment import SIZE, Alignment
from crfr.data.duplicates import Duplicate
from crfr.data.records import Source

EXAMPLES = 10  # named for each finding
SHOWN = 16  # images of each finding in the contact sheet
FEWEST = 20  # images below which a mean face or a majority says nothing
PEOPLE = 50  # the mean of 30 procedural people was once taken for misaligned
NOWHERE = 0.6  # correlation below which a mean face has no eyes and mouth anywhere
NOISE, GAPS = 0.001, 0.1  # shares above which label noise and label gaps are errors
MANY = 0.02  # share of images above which what a few photographs are anyway is worth a warning
DARK, BRIGHT, FLAT = 16.0, 240.0, 6.0  # grey levels: means, and standard deviation
COLOURED = 4.0  # grey levels; below this mean of max - min over RGB, colours say nothing
BLUISH = -0.1  # of redness

ROW = np.dtype(
    [
        ("index", np.int64),
        ("label", np.int64),
        ("key", np.uint64),  # of the pixels' digest: among 6 million, 1 chance in a million of two
        ("mean", np.float32),  # grey levels
        ("deviation", np.float32),
        ("colour", np.float32),  # mean of max - min over RGB, 0 for R = G = B
        ("redness", np.float32),  # (R - B) / (R + B) in the middle of the face
    ]
)


@dataclass(frozen=True)
class Finding:
    name: str
    severity: str  # "error" (would spoil a training), "warning", "info" or "ok"
    count: int
    text: str
    examples: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)  # images to show


def damage(name: str, count: int, examples: list[str], text: str, indices: list[int]) -> Finding:
    """Of images that stop a training; any is one too many."""
    return Finding(name, "error" if count else "ok", count, text, examples, indices)


def labels(source: Source, rows: np.ndarray, partial: bool) -> list[Finding]:
    """Counts; labels without images and with one, unless only a sample was read."""
    present, counts = np.unique(rows["label"], return_counts=True)
    low, middle, high = (f"{f(counts):g}" for f in (np.min, np.median, np.max))
    text = f"identities with {low} / {middle} / {high} images (least / median / most)"
    found = [Finding("identities", "info", len(present), text)]
    if partial:
        return found
    absent = np.ones(source.classes, bool)
    absent[present] = False
    gaps, single = np.flatnonzero(absent), present[counts == 1]
    share = len(gaps) / source.classes
    severity = "error" if share > GAPS else "warning" if len(gaps) else "ok"
    text = f"labels without an image ({share:.1%} of 0..{source.classes - 1})"
    names = [f"label {label}" for label in gaps[:EXAMPLES].tolist()]
    found.append(Finding("label_gaps", severity, len(gaps), text, names))
    order = np.flatnonzero(np.isin(rows["label"], single))
    indices = rows["index"][order[:SHOWN]].tolist()
    severity = "warning" if len(single) > 0.5 * len(present) else "info" if len(single) else "ok"
    text = f"identities with one image ({len(single) / len(present):.1%})"
    found.append(_of_images(source, "single_images", severity, len(single), text, indices))
    return found


def appearance(source: Source, rows: np.ndarray) -> list[Finding]:
    """Swapped channels of the set and of images; grey, dark, bright and flat images."""
    coloured = rows[rows["colour"] >= COLOURED]
    bluer = int((coloured["redness"] < 0).sum())
    swapped = len(coloured) >= FEWEST and bluer > 0.5 * len(coloured)
    text = f"of {len(coloured)} coloured images have more blue than red in the face"
    text += ": BGR for RGB" if swapped else ""
    order = np.argsort(coloured["redness"])[: SHOWN if swapped else 0]
    severity = "error" if swapped else "ok" if len(coloured) >= FEWEST else "info"
    indices = coloured["index"][order].tolist()
    low, middle, high = np.quantile(rows["mean"], [0.01, 0.5, 0.99])
    levels = f"mean grey levels: {low:.0f} (1 %), {middle:.0f} (median), {high:.0f} (99 %)"
    found = [
        _of_images(source, "swapped_colours", severity, bluer, text, indices),
        Finding("brightness", "info", len(rows), levels),
    ]
    mean, deviation, grey = rows["mean"], rows["deviation"], rows["colour"] == 0
    bluish = (rows["colour"] >= COLOURED) & (rows["redness"] < BLUISH)
    lit = f"images with (R - B) / (R + B) < {BLUISH:g} in the face: lit so, or BGR"
    flat = f"images of a standard deviation below {FLAT:g} grey levels"
    # (name, which images, by what the first ones are chosen, text)
    checks = [
        ("bluish_images", bluish, "redness", lit),
        ("grey_images", grey, "index", "images with R = G = B"),
        ("dark_images", mean < DARK, "mean", f"images of a mean below {DARK:g} grey levels"),
        ("bright_images", mean > BRIGHT, "mean", f"images of a mean above {BRIGHT:g} grey levels"),
        ("flat_images", deviation < FLAT, "deviation", flat),
    ]
    for name, mask, key, text in checks:
        if swapped and name == "bluish_images":
            continue
        hits = rows[mask]
        hits = hits[np.argsort(hits[key], kind="stable")]
        hits = hits[::-1] if name == "bright_images" else hits
        often = len(hits) > (0.2 if name == "grey_images" else MANY) * len(rows)
        severity = "warning" if often else "info" if len(hits) else "ok"
        indices = hits["index"][:SHOWN].tolist()
        found.append(_of_images(source, name, severity, len(hits), text, indices))
    return found


def copies(source: Source, rows: np.ndarray) -> list[Finding]:
    """Images with the same pixels, under one identity and under several."""
    rows = rows[np.lexsort((rows["index"], rows["key"]))]
    starts = np.flatnonzero(np.append(True, rows["key"][1:] != rows["key"][:-1]))
    ends = np.append(starts[1:], len(rows))
    within, across = [], []
    shared = ends - starts > 1
    for start, end in zip(starts[shared], ends[shared], strict=True):
        several = np.any(rows["label"][start:end] != rows["label"][start])
        (across if several else within).append((start, end))
    noisy = sum(int(end - start) for start, end in across)
    extra = sum(int(end - start) - 1 for start, end in within)
    found = []
    for name, groups, count, text in (
        ("repeated_images", within, extra, "copies of an image of the same identity"),
        ("label_noise", across, noisy, "images that are another identity's too"),
    ):
        share = count / len(rows)
        severe = "error" if share > NOISE else "warning"
        mild = "warning" if share > MANY else "info"
        severity = (severe if name == "label_noise" else mild) if count else "ok"
        members = [rows["index"][start:end].tolist() for start, end in groups[:EXAMPLES]]
        examples = [
            " = ".join(f"{source.where(i)} (label {source[i]['label']})" for i in group[:3])
            for group in members
        ]
        indices = [i for group in members for i in group[:2]][:SHOWN]
        found.append(Finding(name, severity, count, f"{text} ({share:.2%})", examples, indices))
    return found


def alignment(judged: Alignment, images: int, identities: int) -> Finding:
    """Whether the mean face of so many images and identities lies on the template."""
    if images < FEWEST:
        text = f"not judged: {images} images, and a mean face takes {FEWEST}"
        return Finding("alignment", "info", images, text)
    right, down = judged.shift
    place = (
        f"lies {right:+d} px to the right and {down:+d} px down, at scale {judged.scale:g}, "
        f"turned by {judged.angle:g} degrees"
    )
    if judged.best < NOWHERE:
        place = "fits the template nowhere, as if the faces were not aligned with one another"
    figures = f"fit {judged.fit:.2f} at the five points, {judged.best:.2f} at best"
    if judged.aligned:
        return Finding("alignment", "ok", images, f"images whose mean face is aligned ({figures})")
    text = f"images whose mean face {place} ({figures}); align them to the five points at {SIZE} px"
    severity = "error" if identities >= PEOPLE else "warning"
    return Finding("alignment", severity, images, text)


def overlap(duplicates: list[Duplicate]) -> Finding:
    """Images that are a benchmark's, the most alike first."""
    worst = sorted(duplicates, key=lambda d: (-d.similarity, d.index))
    indices = list(dict.fromkeys(d.index for d in worst))
    examples = [
        f"{d.where} is {d.benchmark}, image {d.image} ({d.kind}, {d.similarity:.3f})"
        for d in worst[:EXAMPLES]
    ]
    names = sorted({d.benchmark for d in duplicates})
    text = f"images of {', '.join(names)}: leave them out" if names else "images of the benchmarks"
    severity = "error" if indices else "ok"
    return Finding("benchmark", severity, len(indices), text, examples, indices[:SHOWN])


def _of_images(
    source: Source, name: str, severity: str, count: int, text: str, indices: list[int]
) -> Finding:
    examples = [source.where(index) for index in indices[:EXAMPLES]]
    return Finding(name, severity, count, text, examples, indices)
