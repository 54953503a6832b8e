"""Procedural faces: reproducible, disjoint splits, identity at two scales, balanced pairs."""

import pickle
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from crfr.data import draw, faces, features, portrait
from crfr.data.faces import Faces, draw_face, face_pairs, parse_faces
from crfr.data.people import draw_person
from crfr.errors import InputError


@pytest.fixture(scope="module")
def population():
    """uint8 [40 people, 8 images, 112 112 3]."""
    source = Faces(identities=40, images=8)
    return np.stack([source[i]["image"] for i in range(len(source))]).reshape(40, 8, 112, 112, 3)


def block_means(images, side):
    *lead, height, width, channels = images.shape
    step = height // side
    blocks = images.reshape(*lead, side, step, width // step, step, channels)
    return blocks.mean((-4, -2), dtype=np.float32)


def recognised(features):
    """Share of the later half of each person's images [people images ...] that lie nearest to their
    own person's mean over the earlier half.

    Distances are Mahalanobis', under the ridged covariance within a person: as a network would,
    they learn from the earlier half what the light and the background do, and ignore it.
    """
    features = features.reshape(*features.shape[:2], -1)
    people, images, size = features.shape
    half = images // 2
    mean = features[:, :half].mean(1)
    within = (features[:, :half] - mean[:, None]).reshape(-1, size)
    covariance = within.T @ within / (people * (half - 1))
    covariance += 0.1 * np.trace(covariance) / size * np.eye(size)
    offset = features[:, half:, None] - mean
    distance = np.einsum("inmd,inmd->inm", offset @ np.linalg.inv(covariance), offset)
    return (distance.argmin(-1) == np.arange(people)[:, None]).mean()


def test_items_are_aligned_rgb_images_with_their_identity():
    source = Faces(identities=3, images=4, seed=2)
    assert len(source) == 12
    assert source.classes == 3
    item = source[7]
    assert item["label"] == 1
    assert item["image"].shape == (112, 112, 3)
    assert item["image"].dtype == np.uint8
    np.testing.assert_array_equal(item["image"], draw_face(2, "train", 1, 3))
    assert source.where(7) == "faces:seed=2, identity 1, image 3"


def test_eyes_and_mouth_are_where_alignment_puts_them(population):
    # Over many people the pupils are the darkest and the lips the reddest of their surroundings.
    mean = population.reshape(-1, 112, 112, 3).mean(0)
    dark = 255 - mean.mean(-1)
    for column in (38, 74):
        box = dark[44:62, column - 10 : column + 11]
        row, at = np.unravel_index(box.argmax(), box.shape)
        assert abs(row + 44 - 52) <= 3
        assert abs(at - 10) <= 3
    redness = (mean[..., 0] - mean[..., 1])[80:104, 50:63].mean(1)
    assert abs(redness.argmax() + 80 - 92) <= 4


def test_an_image_depends_on_nothing_but_its_numbers():
    forward = Faces(identities=3, images=3, seed=5)
    backward = Faces(identities=3, images=3, seed=5)
    last_first = {i: backward[i]["image"] for i in reversed(range(9))}
    larger = Faces(identities=9, images=3, seed=5)
    for i in range(9):
        np.testing.assert_array_equal(forward[i]["image"], last_first[i])
        np.testing.assert_array_equal(forward[i]["image"], larger[i]["image"])


def test_an_image_is_the_same_in_another_process():
    program = (
        "import sys, zlib; from crfr.data.faces import draw_face;"
        "print(zlib.crc32(draw_face(1, 'eval', 4, 2).tobytes()), 'jax' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    # The second word: drawing needs no JAX.
    assert shown.stdout.split() == [str(zlib.crc32(draw_face(1, "eval", 4, 2).tobytes())), "False"]


def test_all_images_differ_whatever_number_differs():
    images = [
        draw_face(seed, split, identity, image).tobytes()
        for seed in (0, 1)
        for split in ("train", "eval")
        for identity in range(3)
        for image in range(3)
    ]
    assert len(set(images)) == len(images) == 36


def test_no_person_is_in_both_splits():
    def numbers(split):
        return {
            faces._person(0, split, i)["skin"].tobytes() + pickle.dumps(faces._person(0, split, i))
            for i in range(200)
        }

    train, evaluation = numbers("train"), numbers("eval")
    assert len(train) == len(evaluation) == 200
    assert not train & evaluation


def test_every_kind_of_person_is_drawn_without_a_warning():
    # Beards, glasses, freckles and every hair style are among 150 people; warnings are errors.
    people = [faces._person(3, "train", i) for i in range(150)]
    assert any(p["glasses"] for p in people)
    assert any(p["beard"] for p in people)
    assert any(len(p["spots"]) > 10 for p in people)
    assert any(p["hair"]["cover"] == 0 for p in people)
    images = np.stack([draw_face(3, "train", i, 0) for i in range(150)])
    assert images.std((1, 2, 3)).min() > 15  # nothing is blank


def test_patches_hold_their_features_whole(monkeypatch):
    # Painted on patches 7 px larger each way, faces are the same: nothing was cut off.
    images = [draw_face(0, "eval", i, i) for i in range(40)]

    def cut_larger(sheet, shot, x, y, width, height):
        return draw.cut(sheet, shot, x, y, width + 7, height + 7)

    monkeypatch.setattr(features, "cut", cut_larger)
    monkeypatch.setattr(portrait, "cut", cut_larger)
    np.testing.assert_array_equal(images, [draw_face(0, "eval", i, i) for i in range(40)])


def test_identity_is_in_coarse_structure(population):
    # Chance is 2.5 %; 98 % were seen.
    assert recognised(block_means(population, 7)) > 0.9


def test_identity_is_in_fine_structure(population):
    # Eyes, nose and mouth in grey at 28 px, less what 14 px show of them: 83 % were seen.
    grey = population.astype(np.float32).mean(-1, keepdims=True)
    coarse = block_means(grey, 14).repeat(2, axis=2).repeat(2, axis=3)
    fine = block_means(grey, 28) - coarse
    assert recognised(fine[:, :, 8:26, 4:24]) > 0.7


def test_images_of_a_person_vary(population):
    # Pose, light and background: two images of a person are never close to the same picture.
    difference = np.abs(population[:, 1:].astype(int) - population[:, :1]).mean((2, 3, 4))
    assert difference.min() > 5


def test_threads_read_the_same_images():
    source, alone = Faces(identities=4, images=4), Faces(identities=4, images=4)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(16), 4)).tolist()
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: source[i], order))
    for i, item in zip(order, read, strict=True):
        assert item["label"] == i // 4
        np.testing.assert_array_equal(item["image"], alone[i]["image"])


def test_images_are_kept_up_to_the_limit_and_protected(monkeypatch):
    monkeypatch.setattr(faces, "MAX_CACHED", 2)
    source = Faces(identities=2, images=2)
    assert source[0]["image"] is source[0]["image"]
    _ = [source[i] for i in range(4)]
    assert len(source._drawn) == 2
    assert source[3]["image"] is not source[3]["image"]
    with pytest.raises(ValueError, match="read-only"):
        source[0]["image"][:] = 0


def test_a_copy_for_another_process_carries_no_images():
    source = Faces(identities=2, images=2)
    image = source[1]["image"]
    assert len(pickle.dumps(source)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[1]["image"], image)


@pytest.mark.parametrize("index", [-1, 4, 10**9])
def test_index_outside_the_source(index):
    with pytest.raises(IndexError, match=rf"index {index} is outside 0\.\.3"):
        Faces(identities=2, images=2)[index]


def test_a_source_is_a_sequence():
    assert [item["label"] for item in Faces(identities=2, images=2)] == [0, 0, 1, 1]


def test_unknown_split():
    with pytest.raises(InputError, match="unknown split of faces 'evil': did you mean 'eval'"):
        Faces(split="evil")
    with pytest.raises(InputError, match="unknown split"):
        draw_face(0, "test", 0, 0)


def test_parse_faces():
    assert parse_faces("faces") == {"identities": 150, "images": 16, "seed": 0}
    assert parse_faces("faces", images=4)["images"] == 4
    assert parse_faces("faces:seed=3,images=5", images=4, identities=7) == {
        "identities": 7,
        "images": 5,
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("faces:identites=3", "argument in faces:identites=3: 'identites': did you mean 'ident"),
        ("faces:images=many", "faces:images=many: images=many is not an integer"),
        ("faces:images=", "images= is not an integer"),
        ("faces:images=2.5", "images=2.5 is not an integer"),
        ("faces:images=1", r"faces:images=1: images=1 is outside 2\.\.10000: give a number in it"),
        ("faces:identities=1", r"identities=1 is outside 2\.\."),
        ("faces:identities=0", r"identities=0 is outside 2\.\."),
        ("faces:identities=100001", r"outside 2\.\.100000"),
        ("faces:seed=-1", r"seed=-1 is outside 0\.\."),
        ("faces:seed=4294967296", r"seed=4294967296 is outside 0\.\.4294967295"),
        ("faces:images", "argument 'images' has no value: write faces"),
        ("faces:images=3,", "argument '' has no value"),
        ("faces:images=3,images=4", "images is given twice"),
        ("faces:", "'faces:' is no spec of procedural faces: write faces"),
        ("face:images=3", "'face:images=3' is no spec"),
    ],
)
def test_bad_specs(spec, message):
    with pytest.raises(InputError, match=message):
        parse_faces(spec)


@pytest.mark.parametrize(
    ("identities", "images", "each"), [(2, 2, 1), (2, 3, 3), (3, 4, 4), (25, 8, 8), (60, 2, 1)]
)
def test_pairs(identities, images, each):
    pairs, same = face_pairs(identities, images, seed=4)
    assert pairs.dtype == np.int32
    assert pairs.shape == (2 * identities * each, 2)
    assert same.tolist() == [True, False] * (identities * each)
    assert pairs.min() >= 0
    assert pairs.max() < identities * images
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({tuple(sorted(pair)) for pair in pairs.tolist()}) == len(pairs)
    people = pairs // images
    np.testing.assert_array_equal(people[:, 0] == people[:, 1], same)
    assert np.bincount(people[same, 0]).tolist() == [each] * identities
    assert np.bincount(people[~same].ravel(), minlength=identities).min() >= each


def test_ten_contiguous_folds_are_balanced():
    _, same = face_pairs(25, 8, seed=0)
    folds = np.linspace(0, len(same), 11).astype(int)
    assert [same[a:b].mean() for a, b in pairwise(folds)] == [0.5] * 10


def test_pairs_are_seeded():
    pairs, _ = face_pairs(10, 6, seed=1)
    np.testing.assert_array_equal(pairs, face_pairs(10, 6, seed=1)[0])
    assert (pairs != face_pairs(10, 6, seed=2)[0]).any()


def test_either_image_of_a_pair_may_come_first():
    pairs, same = face_pairs(40, 8, seed=0)
    for kind in (same, ~same):
        assert 0.4 < (pairs[kind, 0] < pairs[kind, 1]).mean() < 0.6


def test_pairs_out_of_bounds():
    with pytest.raises(InputError, match="face_pairs: images=1 is outside"):
        face_pairs(10, 1, seed=0)


def test_a_person_is_a_function_of_its_stream():
    one, other = (draw_person(np.random.default_rng(7)) for _ in range(2))
    assert pickle.dumps(one) == pickle.dumps(other)
