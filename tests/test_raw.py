"""crfr.data.raw and crfr.data.shards: raw folders, whole or named as damaged."""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from crfr.data import raw
from crfr.data.convert import convert
from crfr.data.raw import Raw, is_raw
from crfr.data.records import Source
from crfr.data.shards import require_finished, verify
from crfr.errors import InputError


class Arrays:
    """Noise, a Source: every image differs from every other."""

    classes = 5

    def __init__(self, count: int = 23):
        self.images = np.random.default_rng(count).integers(0, 256, (count, 112, 112, 3), np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": index * 7 % 5}

    def where(self, index):
        return f"array {index}"

    def identity(self, label):
        return f"person {label}"


SOURCE = Arrays()
LABELS = [SOURCE[index]["label"] for index in range(len(SOURCE))]


@pytest.fixture
def folder(tmp_path):
    """23 images in shards of 10, 10 and 3."""
    convert(SOURCE, "noise", tmp_path / "raw", format="raw", shard_images=10)
    return tmp_path / "raw"


def edit(folder, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_raw_folder_is_a_source(folder):
    source = Raw(folder)
    assert isinstance(source, Source)
    assert (len(source), source.classes) == (23, 5)
    assert [source[index]["label"] for index in range(23)] == LABELS
    for index in range(23):
        assert np.array_equal(source[index]["image"], SOURCE.images[index])
    assert source.where(22) == f"{folder}/images-00002-of-00003.raw, image 2"
    assert source.identity(3) == "person 3"
    assert is_raw(folder)
    assert not is_raw(folder.parent)
    for index in (-1, 23):
        with pytest.raises(IndexError, match=r"outside 0\.\.22"):
            source[index]
        with pytest.raises(IndexError, match=r"outside 0\.\.22"):
            source.gather(np.array([0, index]))
    with pytest.raises(TypeError):
        source[1.0]


def test_the_files_are_as_documented(folder):
    assert sorted(os.listdir(folder)) == [
        *(f"images-0000{n}-of-00003.raw" for n in range(3)),
        *(f"labels-0000{n}-of-00003.raw" for n in range(3)),
        "manifest.json",
    ]
    files = sorted(folder.glob("images-*"))
    images = np.concatenate([np.fromfile(path, np.uint8) for path in files])
    assert np.array_equal(images.reshape(-1, 112, 112, 3), SOURCE.images)
    files = sorted(folder.glob("labels-*"))
    assert np.concatenate([np.fromfile(path, "<i4") for path in files]).tolist() == LABELS


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16])
def test_gather_equals_getitem(folder, dtype):
    source = Raw(folder)
    indices = np.random.default_rng(0).integers(0, 23, 100).astype(dtype)
    images, labels = source.gather(indices)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    assert np.array_equal(images, SOURCE.images[indices])
    assert labels.tolist() == [LABELS[index] for index in indices]
    images[:] = 0  # the caller's own
    assert np.array_equal(source[3]["image"], SOURCE.images[3])
    assert source.gather(np.array([], dtype))[0].shape == (0, 112, 112, 3)


def test_gather_from_threads_while_files_are_opened_and_closed(folder, monkeypatch):
    # fewer files than there are may be open at once
    monkeypatch.setattr(raw.resource, "getrlimit", lambda what: (2, 2))
    source = Raw(folder)

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            indices = rng.integers(0, 23, 16)
            images, labels = source.gather(indices)
            assert np.array_equal(images, SOURCE.images[indices])
            assert labels.tolist() == [LABELS[index] for index in indices]
        return seed

    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))
    del source, work
    assert len(os.listdir("/proc/self/fd")) <= before


def gather_in_child(source, indices):
    return source.gather(indices)


def test_pickled_sources_read_the_same(folder):
    source = Raw(folder)
    assert len(pickle.dumps(source)) < 1000
    indices = np.arange(22, -1, -1)
    with get_context("spawn").Pool(1) as pool:
        images, labels = pool.apply(gather_in_child, (source, indices))
    assert np.array_equal(images, SOURCE.images[::-1])
    assert labels.tolist() == LABELS[::-1]


def test_files_that_are_cut_short_or_missing_are_named(folder):
    for name in ("images-00001-of-00003.raw", "labels-00002-of-00003.raw"):
        path = folder / name
        sound = path.read_bytes()
        path.write_bytes(sound[:-1])
        with pytest.raises(InputError, match=rf"{name}: {len(sound) - 1} bytes, .* {len(sound)}"):
            Raw(folder)
        path.write_bytes(sound + b"\0")
        with pytest.raises(InputError, match=name):
            Raw(folder)
        path.unlink()
        with pytest.raises(InputError, match=f"{name}: missing"):
            Raw(folder)
        with pytest.raises(InputError, match=f"{name}: missing"):
            verify(folder)
        path.write_bytes(sound)
    assert len(Raw(folder)) == 23


def test_a_file_cut_short_after_opening_is_named(folder):
    source = Raw(folder)
    os.truncate(folder / "images-00002-of-00003.raw", 2 * 37632 + 5)
    assert np.array_equal(source[21]["image"], SOURCE.images[21])
    with pytest.raises(InputError, match=r"images-00002-of-00003\.raw: ends inside .* byte 75264"):
        source.gather(np.array([0, 22]))


def test_a_file_deleted_after_opening_is_named(folder, tmp_path):
    source = Raw(folder)
    source.gather(np.array([22]))
    (folder / "images-00001-of-00003.raw").unlink()
    (folder / "images-00002-of-00003.raw").unlink()
    assert np.array_equal(source[22]["image"], SOURCE.images[22])  # open already
    words = r"images-00001-of-00003\.raw: No such file .* was there when .*; copy the folder again"
    with pytest.raises(InputError, match=words):
        source.gather(np.array([0, 22, 12, 3]))
    with pytest.raises(InputError, match=words):
        source[10]


def test_mixed_shards_are_named(folder, tmp_path):
    class Others(Arrays):
        def __getitem__(self, index):
            return {"image": self.images[index], "label": 4 - index * 7 % 5}

    other = tmp_path / "other"
    convert(Others(), "others", other, format="raw", shard_images=10)
    ours = folder / "labels-00000-of-00003.raw"
    sound = ours.read_bytes()
    ours.write_bytes((other / ours.name).read_bytes())
    with pytest.raises(InputError, match=r"labels-00000-of-00003\.raw: not the labels"):
        Raw(folder)
    ours.write_bytes(np.array([5] * 10, "<i4").tobytes())
    with pytest.raises(InputError, match="label 5 is outside"):
        Raw(folder)
    ours.write_bytes(sound)
    Raw(folder)
    (folder / "images-00000-of-00004.raw").write_bytes(b"")
    with pytest.raises(InputError, match=r"of-00004\.raw: .* two conversions are mixed"):
        Raw(folder)


def test_verify_finds_a_flipped_bit(folder):
    assert verify(folder) == 6
    for path in sorted(folder.glob("*.raw")):
        sound = path.read_bytes()
        flipped = bytearray(sound)
        flipped[len(flipped) // 2] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=rf"{path.name}: its content differs"):
            verify(folder)
        path.write_bytes(sound)
    assert verify(folder) == 6


def test_interrupted_conversions_are_no_source(folder):
    (folder / "manifest.json").rename(folder / "plan.json")  # as while it runs
    words = "interrupted; run the same crfr convert again"
    for read in (Raw, verify, require_finished):
        with pytest.raises(InputError, match=words):
            read(folder)
    assert is_raw(folder)
    (folder / "plan.json").unlink()
    assert is_raw(folder)
    with pytest.raises(InputError, match=words):
        Raw(folder)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"no manifest\.json there"):
        Raw(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    assert not is_raw(tmp_path)
    require_finished(tmp_path)
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        Raw(tmp_path)


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/passwd", "a/b", "..", ".", "", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(folder, name):
    (folder.parent / "secret.raw").write_bytes(bytes(376320))
    edit(folder, lambda m: m["shards"][0]["files"]["images"].update(name=name))
    for read in (Raw, verify):
        with pytest.raises(InputError, match="leads out of the folder"):
            read(folder)


def set_count(manifest):
    manifest["shards"][0]["count"] = 9


def add_twice(manifest):
    manifest["shards"][1] = manifest["shards"][0]


def one_fewer_identity(manifest):
    manifest["identities"].pop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(schema=2), "schema 2"),
        (lambda m: m.update(format="zip"), "format 'zip'"),
        (lambda m: m.update(format="tfds"), "damaged"),
        (lambda m: m.update(images=24), "24 images, 23 in its shards"),
        (lambda m: m.update(classes=6), "6 classes, but 5 identities"),
        (lambda m: m.update(height=113), "376320 bytes for 10 images"),
        (lambda m: m.update(width="112"), "damaged"),
        (lambda m: m.update(images=-1), "damaged"),
        (lambda m: m.update(identities=[1] * 5), "damaged"),
        (lambda m: m.pop("shards"), "damaged"),
        (lambda m: m["shards"][0]["files"].pop("labels"), "damaged"),
        (lambda m: m["shards"][0]["files"]["images"].update(sha256="x"), "damaged"),
        (lambda m: m["shards"][0]["files"]["images"].update(name=7), "damaged"),
        (set_count, "376320 bytes for 9 images"),
        (add_twice, "twice"),
        (one_fewer_identity, "5 classes, but 4 identities"),
    ],
    ids=range(16),
)
def test_manifests_that_contradict_themselves_are_named(folder, change, words):
    edit(folder, change)
    with pytest.raises(InputError, match=words) as error:
        Raw(folder)
    assert str(error.value).startswith(str(folder))
    assert "\n" not in str(error.value)


def test_manifests_with_flipped_bits_are_input_errors_or_harmless(folder):
    sound = (folder / "manifest.json").read_bytes()
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        flipped = bytearray(sound)
        flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
        (folder / "manifest.json").write_bytes(flipped)
        try:
            Raw(folder)
        except InputError:
            found += 1
    assert 20 < found < 200
    (folder / "manifest.json").write_bytes(sound[:-20])
    with pytest.raises(InputError, match="damaged"):
        Raw(folder)
