"""Procedural faces: the data crfr carries with it, so that all of it can be tried with no download.

People who do not exist, drawn in NumPy as aligned 112 x 112 crops.  A face tells its identity
twice: in coarse structure (skin, hair, outline), which 7 px still show, and in fine structure
(lids, irises, lips, moles), which they do not.  So recognition falls with resolution, as with
photographs.  In one run of a small network trained on 150 people at 112 px, 99 % of the
verifications of others were right at 112 px and 63 % where one image of the pair had 7 px; trained
at mixed resolutions, 99 % and 97 %.

An image is a pure function of (seed, split, identity, image), drawn in some 3 ms.  Processors of
different kinds may round a sine differently, and a pixel then differ by one grey level.
"""

import functools
import operator

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from crfr.data.people import Numbers, draw_person, draw_shot
from crfr.data.portrait import paint
from crfr.errors import InputError, unknown

# Each split draws its people from random streams of its own: no identity is in both.
SPLITS = {"train": 0, "eval": 1}

# An image is 37.6 kB, so this is 1.2 GB at most; what comes after is drawn anew each time.
MAX_CACHED = 32_768

_DEFAULTS = {"identities": 150, "images": 16, "seed": 0}
_BOUNDS = {"identities": (2, 100_000), "images": (2, 10_000), "seed": (0, 2**32 - 1)}


@functools.lru_cache(maxsize=1024)
def _person(seed: int, split: str, identity: int) -> Numbers:
    stream = np.random.SeedSequence(seed, spawn_key=(SPLITS[split], identity))
    return draw_person(np.random.default_rng(stream))


def draw_face(seed: int, split: str, identity: int, image: int) -> UInt8[np.ndarray, "112 112 3"]:
    """Picture number `image` of a person: uint8 RGB [112 112 3], aligned as InsightFace aligns.

    The eyes are near (38, 52) and (74, 52), the tip of the nose near (56, 72), the corners of the
    mouth near (42, 92) and (71, 92), give or take some px of anatomy, pose and expression.

    Raises:
      InputError: a split that is neither "train" nor "eval".
    """
    if split not in SPLITS:
        raise unknown("split of faces", split, SPLITS)
    stream = np.random.SeedSequence(seed, spawn_key=(SPLITS[split], identity, image))
    return paint(_person(seed, split, identity), draw_shot(np.random.default_rng(stream)))


class Faces:
    """Random access to `identities` people with `images` pictures each: a records.Source.

    `faces[identity * images + image]` is {"image": uint8 [112 112 3] RGB, "label": identity}.
    Images are kept once drawn (at most MAX_CACHED of them, read-only), as training reads each one
    every epoch.  Several threads may read at once; a copy sent to another process keeps none.

    Raises:
      InputError: an unknown split, a number outside its bounds.
    """

    classes: int

    def __init__(
        self, identities: int = 150, images: int = 16, seed: int = 0, split: str = "train"
    ) -> None:
        if split not in SPLITS:
            raise unknown("split of faces", split, SPLITS)
        given = {"identities": identities, "images": images, "seed": seed}
        for name, value in given.items():
            _check(f"faces (split {split})", name, value)
        self.classes = identities
        self.images = images
        self.seed = seed
        self.split = split
        self._drawn: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.classes * self.images

    def __getitem__(self, index: int) -> dict:
        """Raises IndexError outside 0..len - 1; a negative index too, rather than wrap round."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside 0..{len(self) - 1} of {self!r}")
        identity, number = divmod(index, self.images)
        image = self._drawn.get(index)
        if image is None:
            image = draw_face(self.seed, self.split, identity, number)
            image.flags.writeable = False
            # Two threads may both draw an image: they draw the same one.  Nothing is evicted: an
            # epoch reads every image once, and eviction would then drop each before its next use.
            if len(self._drawn) < MAX_CACHED:
                self._drawn[index] = image
        return {"image": image, "label": identity}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_drawn": {}}

    def __repr__(self) -> str:
        return (
            f"Faces(identities={self.classes}, images={self.images}, seed={self.seed}, "
            f"split={self.split!r})"
        )

    def where(self, index: int) -> str:
        """The place of a record, for messages: "faces:seed=0, identity 3, image 5"."""
        identity, number = divmod(index, self.images)
        return f"faces:seed={self.seed}, identity {identity}, image {number}"

    def identity(self, label: int) -> str:
        return str(label)


def _check(spec: str, name: str, value: int) -> None:
    low, high = _BOUNDS[name]
    if not low <= value <= high:
        raise InputError(f"{spec}: {name}={value} is outside {low}..{high}: give a number in it")


def parse_faces(spec: str, **defaults: int) -> dict[str, int]:
    """The numbers of a spec "faces[:identities=N,images=N,seed=S]"; `defaults` fill what it omits.

    >>> parse_faces("faces:images=4", identities=20)
    {'identities': 20, 'images': 4, 'seed': 0}

    Raises:
      InputError: a spec of another form, an argument unknown or given twice, a value that is no
        integer or out of bounds (2..100000 identities, 2..10000 images each, seed 0..2**32 - 1).
    """
    form = "write faces or faces:identities=N,images=N,seed=S"
    kind, colon, rest = spec.partition(":")
    if kind != "faces" or (colon and not rest):
        raise InputError(f"{spec!r} is no spec of procedural faces: {form}")
    given: dict[str, int] = {}
    for argument in rest.split(",") if rest else ():
        name, equals, text = argument.partition("=")
        if not equals:
            raise InputError(f"{spec}: argument {argument!r} has no value: {form}")
        if name not in _DEFAULTS:
            raise unknown(f"argument in {spec}:", name, _DEFAULTS)
        if name in given:
            raise InputError(f"{spec}: {name} is given twice: keep one")
        try:
            given[name] = int(text)
        except ValueError:
            raise InputError(f"{spec}: {name}={text} is not an integer: {form}") from None
    numbers = _DEFAULTS | defaults | given
    for name, value in numbers.items():
        _check(spec, name, value)
    return numbers


def face_pairs(
    identities: int, images: int, seed: int
) -> tuple[Int32[np.ndarray, "p 2"], Bool[np.ndarray, " p"]]:
    """Verification pairs over `Faces(identities, images)`: image indices [p 2], same identity [p].

    Even pairs are of one identity, odd ones of two, so that contiguous folds are balanced.  Every
    identity has the same number of positive pairs, min(images, images (images - 1) / 2), and is as
    often the one a negative pair starts from; no pair occurs twice, in either order.  Hence
    p = 2 * identities * images, or 2 * identities where images = 2.

    Raises:
      InputError: a number outside the bounds of `parse_faces`.
    """
    for name, value in (("identities", identities), ("images", images), ("seed", seed)):
        _check("face_pairs", name, value)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(len(SPLITS),)))
    first, second = np.triu_indices(images, k=1)
    each = min(images, len(first))
    positive = []
    for identity in range(identities):
        chosen = rng.choice(len(first), each, replace=False)
        positive.append(identity * images + np.stack([first[chosen], second[chosen]], axis=1))
    positive = rng.permutation(np.concatenate(positive))

    # A negative pair goes from the person of a positive one to anybody else.  The search ends:
    # fewer pairs are asked for in all than one person has with the others.
    total = identities * images
    negative, seen = [], set()
    for own in (positive[:, 0] // images * images).tolist():
        while True:
            left = own + int(rng.integers(images))
            right = (own + int(rng.integers(images, total))) % total  # past the person's own images
            pair = (min(left, right), max(left, right))
            if pair not in seen:
                break
        seen.add(pair)
        negative.append((left, right))

    pairs = np.empty((2 * len(positive), 2), np.int32)
    pairs[0::2], pairs[1::2] = positive, negative
    # Half of the pairs swap their images, or A would be the earlier one of every positive pair.
    swapped = rng.random(len(pairs)) < 0.5
    pairs[swapped] = pairs[swapped, ::-1]
    return pairs, np.arange(len(pairs)) % 2 == 0
