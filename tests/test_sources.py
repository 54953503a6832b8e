"""open_source: which spec opens what, and several joined."""

import json
import os
import pickle
import re

import numpy as np
import pytest
from packs import encode, picture, write_insightface
from PIL import Image

import crfr
from crfr import main, prepare
from crfr.data import duplicates
from crfr.data.raw import Raw
from crfr.data.records import Gatherer, Joined, Unreadable, open_source, read_batch
from crfr.data.specs import split_spec
from crfr.errors import InputError


def folder_of(path, identities=3, images=2):
    rng = np.random.default_rng(0)
    for identity in range(identities):
        (path / f"person{identity}").mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(0, 256, (112, 112, 3), np.uint8)
            Image.fromarray(pixels).save(path / f"person{identity}/{number}.png")
    return path


def test_a_folder_is_a_source(tmp_path):
    source = open_source(str(folder_of(tmp_path / "set")))
    assert (len(source), source.classes) == (6, 3)
    assert source.identity(2) == "person2"


def test_joined_sources_follow_one_another(tmp_path, capsys):
    folder = folder_of(tmp_path / "set")
    spec = f"faces:identities=4,images=2+{folder}"
    source = open_source(spec)
    assert isinstance(source, Joined)
    assert (len(source), source.classes) == (8 + 6, 4 + 3)
    assert capsys.readouterr().err.splitlines() == [
        "faces:identities=4,images=2: images 0..7, labels 0..3",
        f"{folder}: images 8..13, labels 4..6",
    ]
    assert [source[i]["label"] for i in range(14)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert source.where(13) == str(folder / "person2/1.png")
    assert [source.identity(label) for label in (3, 4)] == ["0/3", "1/person0"]
    first, second = open_source("faces:identities=4,images=2"), open_source(str(folder))
    images, labels = read_batch(source, np.array([7, 8, 13]), Unreadable())
    np.testing.assert_array_equal(images[0], first[7]["image"])
    np.testing.assert_array_equal(images[1], np.asarray(Image.open(folder / "person0/0.png")))
    np.testing.assert_array_equal(labels, [3, 4, 6])
    assert second.where(0).endswith("person0/0.png")
    for index in (-1, 14):
        with pytest.raises(IndexError):
            source[index]


def test_joined_raw_shards_are_read_a_batch_at_a_time(tmp_path, monkeypatch):
    specs = []
    for name, identities in (("a", 3), ("b", 2), ("c", 4)):
        folder = folder_of(tmp_path / f"images-{name}", identities, images=identities)
        specs.append(str(tmp_path / name))
        main.run(["convert", f"--data={folder}", f"--out={specs[-1]}", "--shard-images=4"])
    source = open_source("+".join(specs))
    singly = Joined(specs, [open_source(spec) for spec in specs])
    assert isinstance(source, Gatherer)
    assert not isinstance(singly, Gatherer)
    assert not isinstance(open_source(f"{specs[0]}+faces:identities=4,images=2"), Gatherer)
    rng = np.random.default_rng(0)
    calls = []
    gather = Raw.gather
    monkeypatch.setattr(Raw, "gather", lambda self, at: calls.append(len(at)) or gather(self, at))
    for indices in (rng.integers(0, len(source), 50), np.arange(29)[::-1], np.array([10, 0, 10])):
        images, labels = read_batch(singly, indices, Unreadable())
        calls.clear()
        found, numbers = read_batch(source, indices, Unreadable())
        assert len(calls) <= 3
        assert sum(calls) == len(indices)
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(numbers, labels)
        assert (found.dtype, numbers.dtype) == (images.dtype, labels.dtype)
    assert pickle.loads(pickle.dumps(source))[28]["label"] == 8
    assert len(read_batch(source, np.array([], int), Unreadable())[0]) == 0
    for index in (-1, 29):
        with pytest.raises(IndexError, match=r"outside 0\.\.28"):
            source.gather(np.array([0, index]))


def test_a_path_with_a_plus_in_it_is_a_path(tmp_path):
    assert len(open_source(str(folder_of(tmp_path / "a+b")))) == 6


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("faces", 1),
        ("faces+faces:seed=1", 2),
        ("faces+b", 2),  # says that there is no b
        ("a", 1),
        ("a+b.rec", 2),
        ("a+none", 2),
        ("./a+./none/x.rec+none/y.rec", 2),  # missing from the second on
        ("none/a+b.rec", 2),
        ("none+./x", 2),
        ("none+x", 1),
        ("x+y", 1),
        ("x+y+a", 2),
        ("x+y/z+w+faces", 2),
        ("a+x+y/z+w", 2),
        ("a+x+y", 2),
        ("https://h/a+c/t.rec?x=1+2", 1),
        ("https://h/a+c/t.rec+gs://b/d+e.rec+faces+a", 4),
        ("s3://b/train+x/none.rec", 1),
        ("s3://b/c.rec+./none.rec", 2),
        ("s3://b/c.rec+/none.rec", 2),
        ("s3://b/c.rec+b.rec", 2),
        ("s3://b/c.rec+x+y", 2),
        ("tfds:lfw", 1),
        ("tfds:lfw:train+test", 1),
        ("tfds:lfw:3.1.0:train[:80%]+a", 1),  # though there is a folder called a
        ("tfds:lfw:train+test+./a", 2),
        ("tfds:lfw:train+test+x/u", 1),
        ("tfds:lfw:train+test+x+y/z+w", 2),
        ("tfds:lfw:train+test+tfds:lfw:train+faces", 3),
        ("tfds:lfw:train+test+https://h/a+c.rec+faces", 3),
        ("none+https://h/b.rec", 2),
        ("tfds:lfw+a", 2),
        ("facesX+y+a", 2),
        ("~/none+none+~/none", 2),
    ],
)
def test_which_plus_joins(spec, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a", "x+y", "x+y/z+w"):
        (tmp_path / path).mkdir()
    (tmp_path / "b.rec").write_bytes(b"")
    found = split_spec(spec)
    assert len(found) == parts
    assert "+".join(found) == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("facez", "did you mean 'faces'"),
        ("{}/none", "no such file or folder"),
        ("{}/note.txt", "is none of the forms"),
        ("faces:identities=4,images=2+{}/none", "no such file or folder"),
        ("faces+", "an empty spec"),
        ("+faces", "an empty spec"),
        ("faces++faces", "an empty spec"),
        ("{}/empty", "no images"),
    ],
)
def test_specs_that_name_nothing(spec, message, tmp_path):
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        open_source(spec.format(tmp_path))


@pytest.mark.usefixtures("one_device")
def test_a_converted_source_gives_the_same_training(tmp_path):
    """A pack, and the raw and TFDS shards made of it: the same batches, so the same losses."""
    people = [[encode(picture(4 * person + n)) for n in range(4)] for person in range(6)]
    (tmp_path / "pack").mkdir()
    specs = [str(write_insightface(tmp_path / "pack", people))]
    for form in ("raw", "tfds"):
        specs.append(str(tmp_path / form))
        words = [f"--data={specs[0]}", f"--out={specs[-1]}", f"--format={form}"]
        main.run(["convert", *words, "--shard-images=10"])
    losses = []
    for number, spec in enumerate(specs):
        run = tmp_path / f"run{number}"
        words = ["--config=configs/bt_m.py:quick", f"--config.data={spec}", f"--workdir={run}"]
        words += ["--config.run.benchmark=", "--config.batch=8", "--config.model.bn_group=8"]
        words += ["--config.model.width=4", "--config.epochs=2", "--config.run.log_every=1"]
        main.run(["train", *words])
        lines = (run / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert len(losses[0]) == 6
    assert losses[0] == losses[1] == losses[2]


def test_convert_leaves_out_whom_a_file_names(tmp_path, capsys):
    names = tmp_path / "withdrawn.txt"
    names.write_text("# asked to be removed\nperson1\n\n")
    folder = folder_of(tmp_path / "set")
    words = ["convert", f"--data={folder}", f"--out={tmp_path / 'out'}"]
    main.run([*words, f"--drop-identities={names}"])
    assert "4 images of 2 identities" in capsys.readouterr().out
    source = open_source(str(tmp_path / "out"))
    assert [source.identity(label) for label in range(2)] == ["person0", "person2"]
    for content, message in (("", "names nobody"), ("persona1", "did you mean 'person1'")):
        names.write_text(content)
        with pytest.raises(InputError, match=message):
            main.run(["convert", f"--data={folder}", f"--out={tmp_path / 'other'}",
                      f"--drop-identities={names}"])  # fmt: skip


def test_convert_leaves_out_images_of_a_benchmark_and_lists_them(tmp_path, capsys):
    benchmark = "faces:identities=5,images=4"
    shared = crfr.load_benchmark(benchmark).images[7]
    folder = folder_of(tmp_path / "set")
    Image.fromarray(shared).save(folder / "person1/shared.png")
    Image.fromarray(shared).save(folder / "person2/shared.jpg", quality=80)
    out = tmp_path / "out"
    words = ["convert", f"--data={folder}", f"--out={out}", f"--dedupe-against={benchmark}"]
    main.run(words)
    assert "1 exact and 1 near duplicates" in capsys.readouterr().out
    found = [json.loads(line) for line in (out / "duplicates.jsonl").read_text().splitlines()]
    assert [(d["kind"], d["image"]) for d in found] == [("exact", 7), ("near", 7)]
    assert len(open_source(str(out))) == 6
    main.run(words)  # finished: the same again
    assert len(open_source(str(out))) == 6


def test_the_doctor_s_exit_code(tmp_path):
    folder = folder_of(tmp_path / "set")
    (folder / "person0/broken.jpg").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stopped:
        main.run(["doctor", f"--data={folder}", f"--out={tmp_path / 'doctor'}"])
    assert stopped.value.code == 1
    assert (tmp_path / "doctor/doctor.json").exists()
    main.run(["doctor", "--data=faces:identities=30,images=4", f"--out={tmp_path / 'well'}"])
    assert (tmp_path / "well/mean_face.png").exists()


def spoil_pack(pack):
    (pack / "train.rec").write_bytes((pack / "train.rec").read_bytes()[:-40])


def spoil_index(pack):
    (pack / "train.idx").unlink()


def spoil_shard(raw):
    path = raw / "images-00000-of-00002.raw"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("form", "spoil", "words"),
    [
        ("pack", spoil_pack, "one is cut short: copy the pack again"),
        ("pack", spoil_index, r"needs its index"),
        ("raw", spoil_shard, r"images-00000-of-00002\.raw: its content differs"),
        ("raw", lambda raw: os.truncate(raw / "images-00001-of-00002.raw", 7), "7 bytes, but"),
        ("raw", lambda raw: (raw / "labels-00000-of-00002.raw").unlink(), "missing"),
        ("raw", lambda raw: (raw / "manifest.json").write_text("{"), "damaged"),
        ("raw", lambda raw: (raw / "manifest.json").rename(raw / "plan.json"), "interrupted"),
        ("tfds", lambda tfds: next(tfds.glob("*-00001-of-*")).unlink(), "missing"),
        ("tfds", lambda tfds: os.truncate(next(tfds.glob("*-00001-of-*")), 99), "99 bytes, but"),
        ("prepared", lambda tfds: next(tfds.glob("*-00001-of-*")).unlink(), "No such file"),
        ("prepared", lambda tfds: (tfds / "features.json").write_text("{"), "TFDS cannot read"),
    ],
)
def test_the_doctor_finds_data_that_cannot_be_used(tmp_path, capsys, form, spoil, words):
    """A finding and exit code 1, not an error in the arguments."""
    folder = tmp_path / "pack"
    folder.mkdir()
    spec = str(write_insightface(folder, [[encode(picture(n))] for n in range(4)]))
    if form != "pack":
        folder = tmp_path / "out"
        kind = "raw" if form == "raw" else "tfds"
        main.run(["convert", f"--data={spec}", f"--out={folder}", f"--format={kind}",
                  "--shard-images=2"])  # fmt: skip
        spec = str(folder)
    if form == "prepared":  # by TFDS alone: no checksums
        (folder / "manifest.json").unlink()
    spoil(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main.run(["doctor", f"--data={spec}+faces", f"--out={tmp_path / 'doctor'}"])
    assert stopped.value.code == 1
    record = json.loads((tmp_path / "doctor/doctor.json").read_text())
    assert record["spoils"]
    (finding,) = record["findings"]
    assert (finding["name"], finding["severity"]) == ("unusable", "error")
    assert re.search(words, finding["text"])
    assert finding["text"] in capsys.readouterr().out


@pytest.mark.parametrize(
    "data",
    ["{}/none.rec", "{}/pack", "{}/none", "facez", "tfds:none", "tfds:{}/out:test", "faces:seed=x",
     "{}/pack/train.rec+"],
)  # fmt: skip
def test_the_doctor_s_bad_arguments(tmp_path, data):
    (tmp_path / "pack").mkdir()
    spec = write_insightface(tmp_path / "pack", [[encode(picture(0))]])
    main.run(["convert", f"--data={spec}", f"--out={tmp_path / 'out'}", "--format=tfds"])
    with pytest.raises(InputError):
        main.run(["doctor", f"--data={data.format(tmp_path)}", f"--out={tmp_path / 'doctor'}"])
    assert not (tmp_path / "doctor").exists()


def test_the_doctor_s_threads(tmp_path, monkeypatch):
    given = []
    pool = duplicates.ThreadPoolExecutor
    monkeypatch.setattr(duplicates, "ThreadPoolExecutor", lambda n: given.append(n) or pool(n))
    prepare.doctor("faces:identities=15,images=2", "", tmp_path / "out", workers=3)
    assert given == [3]
