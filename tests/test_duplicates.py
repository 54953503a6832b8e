"""crfr.data.duplicates: benchmark images in a training set, spoilt on purpose."""

import numpy as np
import pytest
from packs import encode, write_insightface
from PIL import Image

from crfr.data import duplicates
from crfr.data.benchmarks import Benchmark, load_benchmark
from crfr.data.duplicates import find_duplicates
from crfr.data.faces import Faces
from crfr.data.images import decode
from crfr.data.likeness import correlation, thumbnails
from crfr.data.records import open_source
from crfr.errors import InputError


def moved(image: np.ndarray, right: float = 0, down: float = 0, scale: float = 1) -> np.ndarray:
    """The image enlarged about its centre, then shifted by px; black comes in."""
    inverse = 1 / scale
    x, y = (55.5 - inverse * (55.5 + shift) for shift in (right, down))
    data = (inverse, 0, x, 0, inverse, y)
    form, kind = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).transform((112, 112), form, data, kind))


def brighter(image: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(image * factor, 0, 255).astype(np.uint8)


CHANGES = {
    "jpeg": lambda image: decode(encode(image, quality=50), "here"),
    "1 px": lambda image: moved(image, 1, -1),
    "2 px": lambda image: moved(image, 0, 2),
    "larger": lambda image: moved(image, scale=1.03),
    "smaller": lambda image: moved(image, scale=0.97),
    "brighter": lambda image: brighter(image, 1.2),
    "darker": lambda image: brighter(image, 0.8),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "all": lambda image: decode(encode(brighter(moved(image[:, ::-1], 1, 1, 1.02), 0.9)), "here"),
}


def benchmark_of(images: list[np.ndarray], name: str = "bench") -> Benchmark:
    return Benchmark(name, np.stack(images), np.zeros((1, 2), np.int32), np.zeros(1, bool))


def pack_of(folder, images: list[np.ndarray]):
    """A pack that holds these pixels, of one person each."""
    return open_source(str(write_insightface(folder, [[encode(image, "PNG")] for image in images])))


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    source = Faces(identities=40, images=2, seed=3)
    return [source[index]["image"] for index in range(len(source))]


@pytest.fixture(scope="module")
def bench() -> Benchmark:
    """Images of 160 people: two of one person may pass for one picture, so simple are they."""
    source = Faces(identities=160, images=2, seed=5, split="eval")
    return benchmark_of([source[index]["image"] for index in range(0, len(source), 2)])


def test_unrelated_images_are_no_duplicates(tmp_path, faces, bench):
    assert find_duplicates(pack_of(tmp_path, faces), [bench]) == []
    assert find_duplicates(pack_of(tmp_path, faces), []) == []


def test_exact_copies_are_found_with_their_numbers(tmp_path, faces, bench):
    images = [*faces[:5], bench.images[7], faces[6], bench.images[7], bench.images[100]]
    source = pack_of(tmp_path, images)
    found = find_duplicates(source, [benchmark_of(faces[20:23], "other"), bench], threads=2)
    assert [(d.index, d.image, d.kind, d.similarity) for d in found] == [
        (5, 7, "exact", 1.0),
        (7, 7, "exact", 1.0),
        (8, 100, "exact", 1.0),
    ]
    assert {d.benchmark for d in found} == {bench.name}
    assert found[0].where == f"{tmp_path}/train.rec, key 6"


@pytest.mark.parametrize("count", [3, 160])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found(tmp_path, faces, bench, change, count):
    # With few images of a benchmark the thumbnails are compared as they are, with many whitened.
    chosen = [0, 1, 2]
    images = [CHANGES[change](bench.images[index]) for index in chosen]
    found = find_duplicates(
        pack_of(tmp_path, [*images, *faces[:20]]), [benchmark_of(list(bench.images[:count]))]
    )
    assert [(d.index, d.image, d.kind) for d in found] == [(i, i, "near") for i in chosen]
    assert all(duplicates.NEAR <= d.similarity <= 1 for d in found)


def test_flat_images_resemble_nothing(tmp_path, faces):
    black, grey = np.zeros((112, 112, 3), np.uint8), np.full((112, 112, 3), 90, np.uint8)
    source = pack_of(tmp_path, [black, grey, faces[0]])
    found = find_duplicates(source, [benchmark_of([*faces[1:], grey])])
    assert [(d.index, d.image, d.kind) for d in found] == [(1, len(faces) - 1, "exact")]
    assert not thumbnails(np.stack([black, grey])).any()
    assert abs(correlation(black[None], faces[0][None])[0]) <= 0


def test_blocks_do_not_matter(tmp_path, faces, bench, monkeypatch):
    images = [*faces[:9], *(CHANGES["2 px"](image) for image in bench.images[:3])]
    source = pack_of(tmp_path, images)
    expected = find_duplicates(source, [bench])
    for name, value in (("BLOCK", 5), ("PAIRS", 2)):
        monkeypatch.setattr(duplicates, name, value)
    got = find_duplicates(source, [bench])
    assert [(d.index, d.image) for d in got] == [(9, 0), (10, 1), (11, 2)]
    assert [d.similarity for d in got] == pytest.approx([d.similarity for d in expected], abs=1e-4)


def test_unreadable_images_are_named_or_skipped(tmp_path, faces, bench):
    people = [[encode(faces[0], "PNG")], [b"no image"], [encode(bench.images[3], "PNG")]]
    source = open_source(str(write_insightface(tmp_path, people)))
    with pytest.raises(InputError, match=r"train\.rec, key 2: 8 bytes that do not decode"):
        find_duplicates(source, [bench])
    assert [d.index for d in find_duplicates(source, [bench], skip_unreadable=True)] == [2]


def test_lfw_and_other_people(shared_data):
    bench = load_benchmark(str(shared_data / "lfw/lfw.bin"))
    pack = open_source(str(shared_data / "pins90/train.rec"))
    reference = duplicates.prepare([bench])
    images = [decode(pack[index]["image"], "") for index in range(0, len(pack), 50)]
    numbers = list(range(len(images)))
    assert duplicates.match(reference, pack, numbers, np.stack(images)) == []
    changed = [change(bench.images[i]) for i, change in enumerate(CHANGES.values())]
    found = duplicates.match(reference, pack, list(range(len(changed))), np.stack(changed))
    assert [(d.index, d.image) for d in found] == [(i, i) for i in range(len(changed))]
