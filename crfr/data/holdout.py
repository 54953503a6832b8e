"""Identities held out of a training set, and a verification benchmark of pairs among them.

With them a recipe is chosen and a training judged on people whom it has not seen, and a public
benchmark stays for the end.
"""

import hashlib
import pickle
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32
from tqdm import tqdm

from crfr.data.pairs import MIN_PAIRS
from crfr.data.records import Source, read_example
from crfr.data.writers import encode_png
from crfr.errors import InputError


class HeldOut(NamedTuple):
    names: list[str]  # of the identities, as the source names them
    images: list[bytes]  # distinct, encoded
    pairs: Int32[np.ndarray, "p 2"]  # of indices into images
    same: Bool[np.ndarray, " p"]


def hold_out(
    source: Source, spec: str, *, identities: int, pairs: int, seed: int, drop: frozenset[str]
) -> HeldOut:
    """Draw identities at random, and pairs of their images: half of one person, half of two.

    `drop`: identities that are never drawn.  An identity needs two different photos.  Positive and
    negative pairs alternate, so that contiguous folds are balanced, and no pair occurs twice.
    Positive pairs are spread evenly over the identities as far as these have enough; a negative
    pair is of two identities drawn uniformly.  The same photo twice (equal pixels) counts once.
    Folds share people, unlike LFW's: a threshold chosen on nine has seen those of the tenth.

    Reads every label.  Raises InputError where there are fewer identities or pairs than asked for.
    """
    if pairs < MIN_PAIRS or pairs % 2:
        raise InputError(f"--pairs={pairs}: give an even number from {MIN_PAIRS} on")
    if identities < 2:
        raise InputError(f"--identities={identities}: a pair of two people needs 2 or more")
    rng = np.random.default_rng(seed)
    labels = np.array(
        [
            source[index]["label"]
            for index in tqdm(
                range(len(source)), desc="reading labels", unit=" images", disable=None
            )
        ]
    )
    candidates = [
        label for label in np.unique(labels).tolist() if source.identity(label) not in drop
    ]
    images: list[bytes] = []
    people: list[list[int]] = []  # the images of each identity drawn
    names: list[str] = []
    for label in rng.permutation(candidates).tolist():
        if len(people) == identities:
            break
        photos = _photos(source, np.flatnonzero(labels == label).tolist())
        if len(photos) > 1:
            people.append(list(range(len(images), len(images) + len(photos))))
            names.append(source.identity(label))
            images += photos
    if len(people) < identities:
        raise InputError(
            f"{spec}: {len(people)} identities with two or more photos, fewer than "
            f"--identities={identities}"
        )
    positive = _positive(people, pairs // 2, rng, spec)
    negative = _negative(people, pairs // 2, rng, spec)
    both = np.empty((pairs, 2), np.int32)
    both[0::2], both[1::2] = positive, negative
    return HeldOut(names, images, both, np.arange(pairs) % 2 == 0)


def _photos(source: Source, indices: list[int]) -> list[bytes]:
    """The different images at some indices, encoded as the source has them, or as PNG."""
    found: dict[bytes, bytes] = {}
    for index in indices:
        image = read_example(source, index)["image"]
        stored = source[index]["image"]
        encoded = stored if isinstance(stored, bytes) else encode_png(image)
        found.setdefault(hashlib.sha256(image.tobytes()).digest(), encoded)
    return list(found.values())


def _positive(
    people: list[list[int]], count: int, rng: np.random.Generator, spec: str
) -> Int32[np.ndarray, "p 2"]:
    """`count` different pairs of one person, in turns over the people while these have any left."""
    left = []
    for photos in people:
        first, second = np.triu_indices(len(photos), k=1)
        order = rng.permutation(len(first))[:count]
        left.append(np.array(photos)[np.stack([first[order], second[order]], axis=1)])
    total = sum(map(len, left))
    if total < count:
        raise InputError(
            f"{spec}: {total} pairs of one person among {len(people)} identities, fewer than "
            f"{count}; ask for fewer --pairs or more --identities"
        )
    ranks = np.concatenate([np.arange(len(pairs)) for pairs in left])
    chosen = np.concatenate(left)[np.argsort(ranks, kind="stable")[:count]]
    return _swapped(rng.permutation(chosen), rng)


def _negative(
    people: list[list[int]], count: int, rng: np.random.Generator, spec: str
) -> Int32[np.ndarray, "p 2"]:
    """`count` different pairs of two people."""
    sizes = np.array([len(photos) for photos in people])
    possible = int((sizes.sum() ** 2 - (sizes**2).sum()) // 2)
    # far from using all of them up, so that drawing until a new one comes ends soon
    if possible < 2 * count:
        raise InputError(
            f"{spec}: {possible} pairs of two people among {len(people)} identities, too few to "
            f"draw {count}; ask for fewer --pairs or more --identities"
        )
    found: dict[tuple[int, int], None] = {}
    while len(found) < count:
        one, other = rng.choice(len(people), 2, replace=False)
        pair = sorted((int(rng.choice(people[one])), int(rng.choice(people[other]))))
        found[(pair[0], pair[1])] = None
    return _swapped(np.array(list(found)), rng)


def _swapped(pairs: Int[np.ndarray, "p 2"], rng: np.random.Generator) -> Int32[np.ndarray, "p 2"]:
    """Half of the pairs the other way round, or the first image would be the earlier one in all."""
    turned = rng.random(len(pairs)) < 0.5
    pairs = pairs.astype(np.int32)
    pairs[turned] = pairs[turned, ::-1]
    return pairs


def to_bin(held: HeldOut) -> bytes:
    """InsightFace's .bin: a pickle of (encoded images 2i and 2i + 1 of pair i, truths)."""
    bins = [held.images[index] for index in held.pairs.ravel().tolist()]
    return pickle.dumps((bins, held.same.tolist()), protocol=2)
