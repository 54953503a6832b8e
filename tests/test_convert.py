"""crfr.data.convert: every image and label arrives, once, whatever interrupts the conversion."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from packs import encode, picture, write_insightface
from PIL import Image

from crfr.data import convert as conversion
from crfr.data import workers, writers
from crfr.data.benchmarks import Benchmark
from crfr.data.convert import convert
from crfr.data.duplicates import find_duplicates
from crfr.data.faces import Faces
from crfr.data.images import decode
from crfr.data.packs import Pack
from crfr.data.raw import Raw
from crfr.data.records import read_example
from crfr.data.selection import select
from crfr.data.shards import folder_format, require_finished, verify
from crfr.errors import InputError

FORMATS = pytest.mark.parametrize("format", ["raw", "tfds"])
JPEGS = [encode(picture(seed)) for seed in range(12)]
PEOPLE = [JPEGS[:2], JPEGS[2:5], JPEGS[5:6], JPEGS[6:]]
LABELS = [0] * 2 + [1] * 3 + [2] + [3] * 6
PIXELS = [decode(jpeg, "test") for jpeg in JPEGS]


class Listed:
    """Images and labels of a list, a Source; None is an unreadable image."""

    def __init__(self, images: list, labels: list[int], names: list[str]):
        self.images, self.labels, self.names = images, labels, names
        self.classes = len(names)
        self.read = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.append(index)
        if self.images[index] is None:
            raise InputError(f"{self.where(index)}: damaged; copy it again")
        return {"image": self.images[index], "label": self.labels[index]}

    def where(self, index):
        return f"list, item {index}"

    def identity(self, label):
        return self.names[label]


def people() -> Listed:
    return Listed(list(JPEGS), LABELS, ["ada", "bob", "cyd", "dan"])


def benchmark(*numbers: int) -> Benchmark:
    """Some of the people's images."""
    images = np.stack([PIXELS[number] for number in numbers])
    return Benchmark("bench", images, np.zeros((1, 2), np.int32), np.zeros(1, bool))


def contents(folder) -> tuple[list[np.ndarray], list[int]]:
    """Images and labels of a converted folder, by readers other than the writers' code."""
    if folder_format(folder) == "raw":
        source = Raw(folder)
        examples = [source[index] for index in range(len(source))]
    else:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        records = builder.as_data_source()["train"]
        examples = [records[index] for index in range(len(records))]
    return [e["image"] for e in examples], [int(e["label"]) for e in examples]


def check(folder, pixels, labels) -> None:
    found, numbers = contents(folder)
    assert numbers == list(labels)
    assert len(found) == len(pixels)
    for one, other in zip(found, pixels, strict=True):
        assert np.array_equal(one, other)


@FORMATS
def test_round_trip_of_a_pack(tmp_path, format):
    spec = str(write_insightface(tmp_path, PEOPLE))
    out = tmp_path / "deep/out"
    manifest = convert(Pack(spec), spec, out, format=format, shard_images=5, workers=3)
    check(out, PIXELS, LABELS)
    assert [shard["count"] for shard in manifest["shards"]] == [5, 5, 2]
    assert (manifest["images"], manifest["classes"]) == (12, 4)
    assert manifest["identities"] == ["0", "1", "2", "3"]
    assert manifest["plan"]["spec"] == spec
    assert manifest["encodings"] == {"raw" if format == "raw" else "jpeg": 12}
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert verify(out) == (6 if format == "raw" else 3)
    require_finished(out)
    assert not [name for name in os.listdir(out) if name.startswith(("plan", "shard", "."))]


@FORMATS
def test_round_trip_of_faces(tmp_path, format):
    source = Faces(identities=2, images=2)
    convert(source, "faces", tmp_path / "out", format=format)
    check(tmp_path / "out", [source[i]["image"] for i in range(4)], [0, 0, 1, 1])


@FORMATS
def test_raw_is_converted_again(tmp_path, format):
    convert(people(), "people", tmp_path / "a", format="raw", shard_images=5)
    convert(Raw(tmp_path / "a"), "a", tmp_path / "b", format=format, shard_images=7)
    check(tmp_path / "b", PIXELS, LABELS)
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    assert manifest["identities"] == ["ada", "bob", "cyd", "dan"]


def test_encoded_images_are_copied_unchanged(tmp_path):
    import tensorflow_datasets as tfds

    image = picture(1)
    alpha = np.dstack([image, image[..., 0]])
    palette, cmyk, bilevel = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(image).convert("1").save(bilevel, "PNG")
    Image.fromarray(image).quantize(16).save(palette, "PNG")
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG")
    copied = [JPEGS[0], encode(image[..., 0]), encode(image, "PNG"), encode(image[..., 0], "PNG")]
    changed = [
        *(encode(image, "WEBP", lossless=True), encode(image, "BMP"), encode(alpha, "PNG")),
        *(palette.getvalue(), cmyk.getvalue(), bilevel.getvalue()),
    ]
    source = Listed(copied + changed, [0] * 10, ["one"])
    manifest = convert(source, "mixed", tmp_path / "out", format="tfds")
    assert manifest["encodings"] == {"jpeg": 2, "png": 8}
    check(tmp_path / "out", [decode(stored, "test") for stored in source.images], [0] * 10)
    builder = tfds.builder_from_directory(tmp_path / "out")
    records = builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})["train"]
    for index, stored in enumerate(copied):
        assert records[index]["image"] == stored
    assert all(records[index]["image"][:4] == b"\x89PNG" for index in range(4, 10))


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["ada", "bob", "cyd", "dan"], True),
        (["Zoë Ω", "b o b", "c/d", "0"], True),
        (["ada", "ada", "cyd", "dan"], False),
        (["ada", "", "cyd", "dan"], False),
        (["ada", "b\nc", "cyd", "dan"], False),
        (["ada", " bob", "cyd", "dan"], False),
        (["ada", "\udce9", "cyd", "dan"], False),
    ],
    ids=range(7),
)
def test_tfds_opens_it_without_crfr(tmp_path, names, kept):
    out = tmp_path / "out"
    convert(Listed(JPEGS, LABELS, names), "people", out, format="tfds", shard_images=5)
    assert json.loads((out / "manifest.json").read_text())["identities"] == names
    code = (
        "import json, sys, tensorflow_datasets as tfds\n"
        "builder = tfds.builder_from_directory(sys.argv[1])\n"
        "records = builder.as_data_source()['train']\n"
        "feature = builder.info.features['label']\n"
        "print(json.dumps([len(records), list(records[3]['image'].shape), feature.names,\n"
        "    [int(records[i]['label']) for i in range(len(records))],\n"
        "    bool({'crfr', 'tensorflow'} & set(sys.modules))]))"
    )
    # -I: the current folder, with crfr in it, is not searched
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(out)],
        stdout=subprocess.PIPE,
        cwd="/",
        check=True,
        timeout=100,
    )
    assert json.loads(done.stdout) == [
        *(12, [112, 112, 3], names if kept else ["0", "1", "2", "3"], LABELS, False)
    ]


def test_labels_without_images_stay(tmp_path):
    source = Listed(JPEGS[:2], [1, 3], ["a", "b", "c", "d", "e"])
    manifest = convert(source, "gaps", tmp_path / "out", format="raw")
    assert (manifest["classes"], manifest["identities"]) == (5, ["a", "b", "c", "d", "e"])
    check(tmp_path / "out", PIXELS[:2], [1, 3])


@FORMATS
def test_what_is_left_out_is_left_out(tmp_path, format):
    manifest = convert(
        *(people(), "people", tmp_path / "out"),
        format=format,
        shard_images=3,
        drop=frozenset({"bob"}),
        benchmarks=[benchmark(3, 5, 7)],
    )
    # bob is dropped, and cyd's one image is a duplicate
    assert manifest["identities"] == ["ada", "dan"]
    assert manifest["dropped"] == {
        "identities": ["bob"],
        "of_dropped_identities": 3,
        "duplicates": 2,
    }
    left = [0, 1, 6, 8, 9, 10, 11]
    check(tmp_path / "out", [PIXELS[i] for i in left], [0, 0, 1, 1, 1, 1, 1])


def test_duplicates_are_searched_for_once(tmp_path, monkeypatch):
    """Not again on a resume, nor when it is finished, though another search would find others."""
    searches = []

    def search(*arguments, **options):
        searches.append(1)
        found = find_duplicates(*arguments, **options)
        return found if len(searches) == 1 else []  # as if thresholds were met by a hair

    def broken(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr(conversion, "find_duplicates", search)
    out = tmp_path / "out"
    words: dict[str, Any] = {"format": "raw", "shard_images": 3, "benchmarks": [benchmark(3, 5)]}
    with monkeypatch.context() as patch:
        patch.setattr(workers.Shards, "write", broken)
        with pytest.raises(RuntimeError):
            convert(people(), "people", out, **words)
    assert sorted(os.listdir(out)) == ["duplicates.jsonl", "plan.json"]
    rows = [json.loads(line) for line in (out / "duplicates.jsonl").read_text().splitlines()]
    assert [(row["index"], row["kind"]) for row in rows] == [(3, "exact"), (5, "exact")]
    manifest = convert(people(), "people", out, **words)
    assert manifest["dropped"]["duplicates"] == 2
    assert convert(people(), "people", out, **words) == manifest
    left = [index for index in range(12) if index not in (3, 5)]
    check(out, [PIXELS[index] for index in left], [0, 0, 1, 1, *[2] * 6])
    assert len(searches) == 1
    for other in (benchmark(5, 3), replace(benchmark(3, 5), name="b"), benchmark(3)):
        with pytest.raises(InputError, match="holds another conversion: benchmarks"):
            convert(people(), "people", out, **words | {"benchmarks": [other]})


def test_what_cannot_be_left_out_is_named(tmp_path):
    with pytest.raises(InputError, match="no identity 'dam' in people; did you mean 'dan'"):
        select(people(), "people", frozenset({"ada", "dam"}), set())
    with pytest.raises(InputError, match=r"index 12 is outside 0\.\.11 of people"):
        select(people(), "people", frozenset(), {0, 12})
    with pytest.raises(InputError, match="no image is left of 12"):
        select(people(), "people", frozenset(people().names), set())


def test_a_refused_selection_leaves_the_folder_free(tmp_path):
    out, settings = tmp_path / "out", {"format": "raw", "shard_images": 5}
    with pytest.raises(InputError, match="no image is left of 12"):
        convert(people(), "people", out, drop=frozenset(people().names), **settings)
    assert not [path.name for path in out.iterdir() if not path.name.startswith(".")]
    convert(people(), "people", out, drop=frozenset({"bob"}), **settings)


def test_labels_that_change_meanwhile_are_named(tmp_path, monkeypatch):
    source = people()
    chosen = select(source, "people", frozenset({"ada"}), set())
    source.labels = [0] * 12
    monkeypatch.setattr(conversion, "select", lambda *_: chosen)
    with pytest.raises(InputError, match="item 2: label 0 was not among the labels read before"):
        convert(source, "people", tmp_path / "out", format="raw", workers=1)


@FORMATS
def test_each_image_is_read_once(tmp_path, format, monkeypatch):
    monkeypatch.setattr(conversion, "PROBES", 1)
    source = people()
    convert(source, "people", tmp_path / "out", format=format, shard_images=5)
    assert sorted(source.read[1:]) == list(range(12))


def unreadable() -> Listed:
    source = people()
    source.images[4] = None
    source.images[5] = JPEGS[5][:300]
    source.images[9] = encode(picture(9)[:96])
    return source


@FORMATS
def test_unreadable_images_end_a_conversion_or_are_listed(tmp_path, format, capfd):
    out = tmp_path / "out"
    words = ("item 4: damaged", "item 5: 300 bytes", "item 9: the image is 112x96 px")
    options = {"format": format, "shard_images": 5, "workers": 1}
    with pytest.raises(InputError, match=words[0]):
        convert(unreadable(), "people", out, **options)
    assert not (out / "manifest.json").exists()
    # the first shard's image counts when the next call goes on after it
    for limit in (1, 2):
        with pytest.raises(InputError, match=words[limit]):
            convert(unreadable(), "people", out, **options, skip_unreadable=limit)
    assert (out / "shard-00000-of-00003.json").exists()
    with pytest.raises(InputError, match="lack 1 unreadable images, more than the 0"):
        convert(unreadable(), "people", out, **options)
    manifest = convert(unreadable(), "people", out, **options, skip_unreadable=3)
    left = [i for i in range(12) if i not in (4, 5, 9)]
    check(out, [PIXELS[i] for i in left], [LABELS[i] for i in left])
    assert [entry["index"] for entry in manifest["unreadable"]] == [4, 5, 9]
    for entry, word in zip(manifest["unreadable"], words, strict=True):
        assert word in entry["error"]
    assert "skipped 3/3: list, item 9" in capfd.readouterr().err
    assert manifest["images"] == 9
    assert manifest["identities"] == people().names


@FORMATS
def test_a_shard_of_unreadable_images_is_empty(tmp_path, format):
    source = people()
    source.images[2] = source.images[3] = None
    convert(source, "p", tmp_path / "out", format=format, shard_images=2, skip_unreadable=2)
    left = [i for i in range(12) if i not in (2, 3)]
    check(tmp_path / "out", [PIXELS[i] for i in left], [LABELS[i] for i in left])


class Interrupted(Exception):
    pass


@FORMATS
@pytest.mark.parametrize("at", [0, 1, 4, 5, 8, 11])
def test_an_exception_anywhere_leaves_whole_shards_to_go_on_with(tmp_path, format, at, monkeypatch):
    out = tmp_path / "out"
    options = {"format": format, "shard_images": 4, "workers": 1}
    monkeypatch.setattr(conversion, "PROBES", 1)
    with monkeypatch.context() as patch:

        def read(source, index):
            if read.count == at:
                raise Interrupted
            read.count += 1
            return read_example(source, index)

        read.count = 0
        patch.setattr(workers, "read_example", read)
        with pytest.raises(Interrupted):
            convert(people(), "people", out, **options)
    assert not list(out.glob(".partial-*"))
    assert len(list(out.glob("shard-*.json"))) == at // 4
    with pytest.raises(InputError, match="interrupted"):
        verify(out)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*-of-*")}
    source = people()
    convert(source, "people", out, **options)
    assert sorted(source.read[1:]) == list(range(at // 4 * 4, 12))
    for name, written in kept.items():
        if not name.endswith(".json"):
            assert (out / name).stat().st_mtime_ns == written
    check(out, PIXELS, LABELS)
    verify(out)


def test_interruptions_between_files(tmp_path, monkeypatch):
    """A kill before each rename and each JSON file: what is left is gone on with."""
    steps = []

    def at(step, function):
        def stop(*arguments):
            steps.append(arguments[-1])
            if len(steps) > step:
                raise Interrupted
            return function(*arguments)

        return stop

    step, finished = 0, False
    while not finished:
        steps.clear()
        out = tmp_path / str(step)
        with monkeypatch.context() as patch:
            patch.setattr(writers.os, "replace", at(step, os.replace))
            patch.setattr(writers.RawShard, "discard", lambda self: self._file.close())
            try:
                convert(people(), "people", out, format="raw", shard_images=6, workers=1)
                finished = True
            except Interrupted:
                assert not (out / "manifest.json").exists()
        convert(people(), "people", out, format="raw", shard_images=6, workers=1)
        check(out, PIXELS, LABELS)
        assert verify(out) == 4
        assert len(os.listdir(out)) == 5
        step += 1
    assert step == 9  # the plan; images, labels and their note, twice; the manifest; and none


KILLED = """
import sys, threading, time
from pathlib import Path
from crfr.data.convert import convert
from crfr.data.faces import Faces

class Slow(Faces):
    def __getitem__(self, index):
        if index >= 20 and threading.current_thread() is not threading.main_thread():
            time.sleep(0.5)
        return super().__getitem__(index)

source = (Slow if sys.argv[3] == "slow" else Faces)(identities=15, images=4)
convert(source, "faces", Path(sys.argv[1]), format=sys.argv[2], shard_images=5, workers=2)
"""


@FORMATS
def test_a_killed_process_is_gone_on_with(tmp_path, format):
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(out), format]
    child = subprocess.Popen([*command, "slow"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list(out.glob("shard-*.json"))) < 3:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(InputError, match="another crfr convert is writing there"):
        convert(Faces(15, 4), "faces", out, format=format, shard_images=5)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert list(out.glob(".partial-*"))
    assert not (out / "manifest.json").exists()
    with pytest.raises(InputError, match="interrupted"):
        require_finished(out)
    subprocess.run([*command, "fast"], check=True, timeout=100, stderr=subprocess.DEVNULL)
    faces = Faces(15, 4)
    check(out, [faces[i]["image"] for i in range(60)], [i // 4 for i in range(60)])
    verify(out)
    assert not list(out.glob(".*"))


def test_shards_that_were_damaged_meanwhile_are_written_again(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(conversion.environment, "versions", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(people(), "people", out, format="raw", shard_images=4)
    os.truncate(out / "images-00001-of-00003.raw", 99)
    (out / "labels-00002-of-00003.raw").unlink()
    convert(people(), "people", out, format="raw", shard_images=4)
    check(out, PIXELS, LABELS)
    verify(out)


@FORMATS
def test_a_finished_conversion_is_not_done_again(tmp_path, format):
    out = tmp_path / "out"
    first = convert(people(), "people", out, format=format, shard_images=5)
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "plan.json").write_text("left by a kill")
    assert convert(people(), "people", out, format=format, shard_images=5) == first
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == written
    next(out.glob("*-00000-of-*")).unlink()
    with pytest.raises(InputError, match="missing"):
        convert(people(), "people", out, format=format, shard_images=5)


@pytest.mark.parametrize("finished", [True, False])
def test_another_conversion_in_the_folder_is_named(tmp_path, finished):
    out = tmp_path / "out"
    convert(people(), "people", out, format="raw", shard_images=5)
    if not finished:
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "plan.json").write_text(json.dumps(manifest["plan"]))
        (out / "manifest.json").unlink()
    other = people()
    other.images[3] = JPEGS[0]
    more = Listed([*JPEGS, JPEGS[0]], [*LABELS, 0], people().names)
    same: dict[str, Any] = {"format": "raw", "shard_images": 5}
    for source, spec, options, words in (
        (people(), "folk", same, r"spec \(was 'people', now 'folk'\)"),
        (people(), "people", same | {"format": "tfds"}, "format"),
        (people(), "people", same | {"shard_images": 6}, r"shard_images \(was 5, now 6\)"),
        (people(), "people", same | {"drop": frozenset({"bob"})}, r"drop .*'bob'"),
        (people(), "people", same | {"benchmarks": [benchmark(1)]}, r"benchmarks \(was None"),
        (other, "people", same, "fingerprint"),
        (more, "people", same, r"images \(was 12, now 13\)"),
    ):
        with pytest.raises(InputError, match=words) as error:
            convert(source, spec, out, **options)
        assert "\n" not in str(error.value)
    convert(people(), "people", out, **same, skip_unreadable=3, workers=1)
    check(out, PIXELS, LABELS)


@pytest.mark.parametrize("name", ["holiday.jpg", "manifest.json", "plan.json"])
def test_folders_with_other_things_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=f"holds other things .{name}"):
        convert(people(), "people", tmp_path, format="raw")
    with pytest.raises(InputError, match="choose a folder that can be written"):
        convert(people(), "people", tmp_path / name, format="raw")
    assert os.listdir(tmp_path) == [name]


def test_arguments_out_of_range_are_named(tmp_path):
    with pytest.raises(InputError, match="unknown --format 'rwa': did you mean 'raw'"):
        convert(people(), "people", tmp_path, format="rwa")
    with pytest.raises(InputError, match="shard_images=0"):
        convert(people(), "people", tmp_path, format="raw", shard_images=0)
    with pytest.raises(InputError, match="workers=0"):
        convert(people(), "people", tmp_path, format="raw", workers=0)
    with pytest.raises(InputError, match="nobody: holds no images"):
        convert(Listed([], [], []), "nobody", tmp_path, format="raw")
    assert os.listdir(tmp_path) == []


def test_missing_tfds_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"pip install 'crfr\[tfds\]'"):
        convert(people(), "people", tmp_path, format="tfds")
    assert os.listdir(tmp_path) == []


@FORMATS
def test_a_full_disk_names_the_file(tmp_path, format, monkeypatch):
    def full(path):
        if "00001-of" in path.name and ("images" in path.name or format == "tfds"):
            return path.parent / "full"
        return path.with_name(f".partial-{path.name}")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(writers, "_partial", full)
        out.mkdir()
        (out / "plan.json").write_text(
            json.dumps(conversion._plan(people(), "people", format, 4, frozenset(), []))
        )
        os.symlink("/dev/full", out / "full")
        with pytest.raises(OSError, match="No space left on device") as error:
            convert(people(), "people", out, format=format, shard_images=4, workers=1)
    assert error.value.errno == errno.ENOSPC
    assert "00001-of-00003" in error.value.filename
    assert os.path.lexists(out / "shard-00000-of-00003.json")
    assert not os.path.lexists(out / "full")
    convert(people(), "people", out, format=format, shard_images=4)
    check(out, PIXELS, LABELS)


def test_real_faces(shared_data, tmp_path):
    source = Pack(str(shared_data / "pins90/train.rec"))
    some = Listed([source[i]["image"] for i in range(0, 12_669, 50)], [0] * 254, ["anybody"])
    convert(some, "some", tmp_path / "out", format="raw", shard_images=100)
    check(tmp_path / "out", [read_example(some, i)["image"] for i in range(254)], some.labels)
