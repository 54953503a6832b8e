"""Datasets of TFDS and bare ArrayRecord files, without TensorFlow; errors that name them."""

import importlib.util
import json
import pickle
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from crfr.data import examples, tfexample
from crfr.data.examples import open_array_records
from crfr.data.prepared import find_versions, is_prepared, open_prepared
from crfr.data.records import Source, open_source
from crfr.data.tfexample import parse_example
from crfr.errors import InputError

array_record = pytest.importorskip("array_record.python.array_record_module")
IMAGES = [b"image %d" % i + bytes(i) for i in range(7)]
LABELS = [0, 2, 1, 1, 0, 2, 2]


def field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + number_bytes(len(body)) + body


def number_bytes(value: int) -> bytes:
    value %= 2**64
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def example(features: dict) -> bytes:
    """A tf.train.Example of bytes, integers or floats."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        elif isinstance(value, float):
            feature = field(2, field(1, struct.pack("<f", value)))
        else:
            feature = field(3, field(1, number_bytes(value)))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def write(path: Path, records: list[bytes]) -> Path:
    writer = array_record.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def write_shards(folder: Path, records: list[bytes], shards: int = 3):
    for shard in range(shards):
        write(folder / f"a.array_record-{shard:05d}-of-{shards:05d}", records[shard::shards])
    return folder


def records(image="image", label="label", labels=LABELS) -> list[bytes]:
    return [example({image: i, label: n}) for i, n in zip(IMAGES, labels, strict=True)]


def contents(source) -> list[tuple[bytes, int]]:
    return [(source[i]["image"], source[i]["label"]) for i in range(len(source))]


def outcome(opened, images: list[bytes] | None = None) -> str:
    """The InputError's message of opening and reading a source, or "" where both succeed."""
    try:
        found = [image for image, _ in contents(opened())]
    except InputError as error:
        message = str(error)
    else:
        assert images in (None, found)
        return ""
    assert "\n" not in message
    return message


EXPECTED = list(zip(IMAGES, LABELS, strict=True))


@pytest.mark.parametrize(
    ("image", "label"), [("image", "label"), ("image/encoded", "image/class/label")]
)
def test_bare_files(tmp_path, image, label):
    path = write(tmp_path / "a.array_record", records(image, label))
    source = open_array_records(str(path))
    assert isinstance(source, Source)
    assert (len(source), source.classes) == (7, 3)
    assert contents(source) == EXPECTED
    assert (source.where(np.int64(6)), source.identity(2)) == (f"{path}, record 6", "2")
    assert source[np.int32(3)]["label"] == 1
    for index in (-1, 7):
        with pytest.raises(IndexError):
            source[index]
        with pytest.raises(IndexError):
            source.where(index)
    with pytest.raises(TypeError):
        source[1.0]
    write(tmp_path / "b.array_record", records(image, label)[:2])
    (tmp_path / ".partial-c.array_record").write_bytes(b"of a writer at work")
    both = open_array_records(str(tmp_path))
    assert contents(both) == EXPECTED + EXPECTED[:2]
    assert both.where(8) == f"{tmp_path}/b.array_record, record 1"


@pytest.mark.parametrize("name", ["a.array_record-{}-of-00003", "a-{}-of-00003.array_record"])
def test_shards_are_one_set(tmp_path, name):
    for shard in range(3):
        write(tmp_path / name.format(f"{shard:05d}"), records()[shard * 3 : shard * 3 + 3])
    source = open_array_records(str(tmp_path))
    assert contents(source) == EXPECTED
    assert source.where(4) == f"{tmp_path}/{name.format('00001')}, record 1"
    extra = tmp_path / name.format("00003")
    shutil.copy(tmp_path / name.format("00000"), extra)
    with pytest.raises(InputError, match=rf"{extra.name} is no shard"):
        open_array_records(str(tmp_path))
    extra.unlink()
    (tmp_path / name.format("00001")).unlink()
    with pytest.raises(InputError, match=rf"1 of 3 .* missing.* {name.format('00001')}; copy"):
        open_array_records(str(tmp_path))
    for other in ("b.array_record", name.format("00001").replace("-of-00003", "-of-00004")):
        path = write(tmp_path / other, records())
        with pytest.raises(InputError, match=r"several sets of shards \(.*-of-0000.*own folder"):
            open_array_records(str(tmp_path))
        path.unlink()


def test_an_empty_shard_is_skipped(tmp_path):
    for shard, part in enumerate([records()[:2], [], records()[2:]]):
        write(tmp_path / f"a.array_record-{shard:05d}-of-00003", part)
    assert contents(open_array_records(str(tmp_path))) == EXPECTED


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"pixels": b"x", "label": 1}, "record 0: has the features label, pixels; an image is"),
        ({"image": b"x", "id": 1}, "record 0: has the features id, image; .* or image/class/label"),
        ({}, "record 0: has the features none"),
        ({"image": 5, "label": 1}, r"record 0: feature 'image' holds 5 where one of type bytes"),
        ({"image": b"x", "label": b"7"}, r"record 0: feature 'label' holds b'7' where .* int"),
        ({"image": b"x", "label": -1}, r"record 0: label -1 is not in 0\.\.2147483646"),
        ({"image": b"x", "label": 2**31}, "record 0: label 2147483648 is not in"),
    ],
)
def test_bare_records_without_image_or_label_are_named(tmp_path, features, words):
    write(tmp_path / "a.array_record", [example({**features, "f": 0.5}) or b"\n\0"])
    with pytest.raises(InputError, match=words) as error:
        open_array_records(str(tmp_path))[0]
    assert str(error.value).startswith(f"{tmp_path}/a.array_record, ")


def test_later_records_of_other_features_are_named(tmp_path):
    write(tmp_path / "a.array_record", [*records(), example({"image": b"x"})])
    with pytest.raises(InputError, match=r"record 7: feature 'label' holds 0 values .*: image\)"):
        open_array_records(str(tmp_path))


def test_files_that_are_not_there_or_empty(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.array_record files"):
        open_array_records(str(tmp_path))
    with pytest.raises(
        InputError, match=r"x\.array_record: No such file or directory; check the p"
    ):
        open_array_records(str(tmp_path / "x.array_record"))
    path = write(tmp_path / "x.array_record", [])
    with pytest.raises(InputError, match=r"x\.array_record: holds no records"):
        open_array_records(str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.array_record: 0 bytes that are no whole ArrayRecord"):
        open_array_records(str(path))
    (tmp_path / "y.array_record").mkdir()
    with pytest.raises(InputError, match=r"y\.array_record: Is a directory"):
        tfexample.open_file(str(tmp_path / "y.array_record"))


def test_too_many_open_files_are_named(tmp_path):
    resource = pytest.importorskip("resource")
    write_shards(tmp_path, records() * 20, 60)
    source = open_array_records(str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    copy = pickle.loads(pickle.dumps(source))
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
    try:
        with pytest.raises(InputError, match="Too many open files; raise `ulimit -n`"):
            contents(copy)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(contents(copy)) == 140


def test_files_cut_short_or_damaged_are_named(tmp_path):
    images = [np.random.default_rng(i).bytes(4000) for i in range(30)]
    path = write(tmp_path / "a.array_record", [example({"image": i, "label": 0}) for i in images])
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in [
        0,
        1,
        100,
        65536,
        len(sound) - 65536,
        len(sound) - 1,
        *rng.integers(2**17, size=9),
    ]:
        path.write_bytes(sound[:length])
        with pytest.raises(InputError, match=rf"{path}: {length} bytes .* cut short"):
            open_array_records(str(path))
    found = 0
    for turn in range(150):
        damaged = np.frombuffer(sound, np.uint8).copy()
        ends = (rng.integers(400), -1 - rng.integers(400), rng.integers(len(damaged)))
        damaged[ends[turn % 3]] ^= 1 << rng.integers(8)
        path.write_bytes(damaged.tobytes())
        message = outcome(lambda: open_array_records(str(path)), images)
        assert message == "" or (message.startswith(str(path)) and "copy the file again" in message)
        found += message != ""
    assert 30 < found < 150


def test_one_damaged_record_spares_the_others(tmp_path):
    images = [np.random.default_rng(i).bytes(4000) for i in range(20)]
    path = write(tmp_path / "a.array_record", [example({"image": i, "label": 0}) for i in images])
    source = open_array_records(str(path))
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(images[7]) + 99] ^= 1
    path.write_bytes(damaged)
    for _ in range(2):
        with pytest.raises(InputError, match=r"a\.array_record, record 7: .*hash mismatch"):
            source[7]
        assert source[8]["image"] == images[8]


def test_a_file_cut_short_while_open_is_named(tmp_path):
    path = write(tmp_path / "a.array_record", [example({"image": bytes(9), "label": 0})] * 9)
    source = open_array_records(str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.array_record, record 3: the record is empty"):
        source[3]


def test_threads_read_what_one_reads(tmp_path):
    images = [b"%d" % i * 900 for i in range(400)]
    shards = [example({"image": image, "label": i}) for i, image in enumerate(images)]
    source = open_array_records(str(write_shards(tmp_path, shards, 4)))
    order = [int(source[i]["label"]) for i in range(400)]
    source = pickle.loads(pickle.dumps(source))  # its files are opened by the threads
    start, wrong = threading.Barrier(8), []

    def read(seed: int) -> None:
        start.wait()
        for index in np.random.default_rng(seed).permutation(400):
            item = source[index]
            if item != {"image": images[order[index]], "label": order[index]}:
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pickles_hold_no_data(tmp_path):
    source = open_array_records(str(write_shards(tmp_path, records())))
    contents(source)
    pickled = pickle.dumps(source)
    assert contents(pickle.loads(pickled)) == contents(source)
    assert len(pickled) < 1500


def test_examples_parse():
    features = {"image": b"\xff" * 300, "n": -5, "big": 2**63 - 1, "f": 0.5, "é": 3}
    parsed = {"image": [b"\xff" * 300], "n": [-5], "big": [2**63 - 1], "é": [3]}
    assert parse_example(example(features)) == parsed
    packed = field(3, field(1, number_bytes(1) + number_bytes(-2)) + b"\x08\x07")
    reversed_entry = field(2, packed) + field(1, b"n")
    assert parse_example(field(1, field(1, reversed_entry))) == {"n": [1, -2, 7]}
    twice = example({"n": 1, "m": 2}) + example({"n": b"x", "m": 0.5})
    assert parse_example(twice) == {"n": [b"x"]}
    assert parse_example(field(1, field(1, field(1, b"n")))) == {}
    for damaged in (b"", b"\x0a", b"\x0a\x05a", b"\xff" * 12, b"\x0b", b"\x08\x01", b"\x12\0"):
        with pytest.raises(ValueError, match=r"empty|no"):
            parse_example(damaged)
    with pytest.raises(ValueError, match="two names or values"):
        parse_example(field(1, field(1, field(1, b"a") + field(1, b"b"))))


def test_damaged_examples_parse_as_protobuf_does():
    proto = pytest.importorskip("tensorflow_datasets.proto").tf_example_pb2
    error = pytest.importorskip("google.protobuf.message").DecodeError
    sound = example({"image": b"jpeg" * 9, "label": 300, "text": b"ab", "m": -1})
    rng = np.random.default_rng(0)
    agreed = 0
    for turn in range(4000):
        damaged = np.frombuffer(sound, np.uint8).copy()
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        record = damaged.tobytes()[: rng.integers(1, len(sound)) if turn % 4 == 0 else None]
        try:
            found = parse_example(record)
        except ValueError:
            continue  # this parser is the stricter one: protobuf skips unknown fields
        try:
            features = proto.Example.FromString(record).features.feature
        except error:
            assert len(found) < 4  # one became a list of floats, which is not looked into
            continue
        for name, values in found.items():
            feature = features[name]
            assert values == list(feature.bytes_list.value) + list(feature.int64_list.value)
        agreed += 1
    assert agreed > 800


tfds_only = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_datasets") is None,
    reason="tensorflow_datasets is not installed",
)
NAMES = ["ann", "bob", "cy"]


def write_dataset(folder: Path, features: dict, rows: list[dict], lengths=None) -> Path:
    """A dataset as TFDS prepares it, `lengths` examples in the shards of each split."""
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    feature_dict = tfds.features.FeaturesDict(features)
    serializer = tfds.core.example_serializer.ExampleSerializer(feature_dict.get_serialized_info())
    splits = []
    for name, counts in (lengths or {"train": [4, 3]}).items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name="d", split=name, filetype_suffix="array_record"
        )
        given = iter(rows)
        for path, count in zip(template.sharded_filepaths(len(counts)), counts, strict=True):
            encoded = [serializer.serialize_example(next(given)) for _ in range(count)]
            write(Path(path), encoded)
        splits.append(
            tfds.core.SplitInfo(
                name=name, shard_lengths=counts, num_bytes=0, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=feature_dict,
        split_infos=splits,
        version="1.0.0",
        filename_template=template,
        check_data=False,  # which needs TensorFlow
    )
    return folder


def kinds():
    return pytest.importorskip("tensorflow_datasets").features


def standard(folder: Path, labels=LABELS, lengths=None) -> Path:
    features = {
        "image": kinds().Image(shape=(None, None, 3)),
        "label": kinds().ClassLabel(names=NAMES),
    }
    rows = [{"image": i, "label": n} for i, n in zip(IMAGES, labels, strict=True)]
    return write_dataset(folder, features, rows, lengths)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@tfds_only
def test_prepared_folder(tmp_path):
    folder = standard(tmp_path / "d/1.0.0")
    source = open_prepared(str(folder))
    assert isinstance(source, Source)
    assert (len(source), source.classes) == (7, 3)
    assert contents(source) == EXPECTED
    assert source.where(5) == f"{folder}/d-train.array_record-00001-of-00002, record 1"
    assert [source.identity(label) for label in range(3)] == NAMES
    assert contents(pickle.loads(pickle.dumps(source))) == EXPECTED
    for spec in (tmp_path, tmp_path / "d", f"tfds:{folder}", f"tfds:{tmp_path}:train"):
        assert contents(open_prepared(str(spec))) == EXPECTED
    part = open_prepared(f"tfds:{folder}:train[2:-2]")
    assert contents(part) == EXPECTED[2:5]
    assert part.where(2) == f"{folder}/d-train.array_record-00001-of-00002, record 0"
    assert part.where(1) == f"{folder}/d-train.array_record-00000-of-00002, record 3"
    with pytest.raises(IndexError):
        part[3]


@tfds_only
def test_tfds_reads_the_same(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = standard(tmp_path / "d")
    theirs = tfds.builder_from_directory(folder).as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert [(theirs[i]["image"], theirs[i]["label"]) for i in range(7)] == EXPECTED
    assert contents(open_prepared(str(folder))) == EXPECTED


@tfds_only
def test_names_in_the_data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    standard(tmp_path / "d/small/1.0.0")
    for spec in ("d", "d/small", "d:1.0.0", "d/small:1.0.0:train", "d/small/1.0.0:train[:7]"):
        assert contents(open_prepared(f"tfds:{spec}")) == EXPECTED
    with pytest.raises(InputError, match=r"tfds:d:2\.0\.0: no dataset .*, version 2\.0\.0, in "):
        open_prepared("tfds:d:2.0.0")
    with pytest.raises(
        InputError,
        match=rf"tfds:e: no .* {tmp_path}/e \(set TFDS_DATA_DIR .*crfr\[tensorflow\]'.*'e'.*",
    ):
        open_prepared("tfds:e")
    standard(tmp_path / "d/large/1.1.0")
    with pytest.raises(InputError, match=r"several.*large/1\.1\.0, .*small/1\.0\.0; name one, as"):
        open_prepared("tfds:d")
    assert contents(open_prepared("tfds:d:1.1.0")) == EXPECTED
    with pytest.raises(InputError, match=r"is not tfds:NAME\[:SPLIT\]"):
        open_prepared("tfds::train")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "d"))
    with pytest.raises(InputError, match=rf"no .* {tmp_path}/d/tensorflow_datasets/small "):
        open_prepared("tfds:small")
    assert contents(open_prepared("tfds:~/small")) == EXPECTED


def test_folders_that_nobody_prepared(tmp_path):
    for number in range(150):
        (tmp_path / f"faces/{number}/1").mkdir(parents=True)
        (tmp_path / f"faces/{number}/1/dataset_info.json").write_text("{}")
    (tmp_path / "deep/a/b/c/d").mkdir(parents=True)
    (tmp_path / "deep/a/b/c/d/dataset_info.json").write_text("{}")
    for name in ("faces", "deep", "absent", "deep/a/b/c/d/e"):
        assert not is_prepared(tmp_path / name)
    assert find_versions(tmp_path / "deep/a") == [tmp_path / "deep/a/b/c/d"]
    with pytest.raises(InputError, match=r"faces: no dataset that TFDS prepared in .*faces; prep"):
        open_prepared(str(tmp_path / "faces"))


@tfds_only
def test_splits(tmp_path):
    both = standard(tmp_path / "a", lengths={"test": [2], "train": [3, 4]})
    assert contents(open_prepared(str(both))) == EXPECTED
    assert contents(open_prepared(f"tfds:{both}:test")) == EXPECTED[:2]
    only = standard(tmp_path / "b", lengths={"all_of_it": [7]})
    assert contents(open_prepared(str(only))) == EXPECTED
    neither = standard(tmp_path / "c", lengths={"one": [2], "two": [2], "none": [0]})
    with pytest.raises(InputError, match=r"/c: no split train; name one of none, one, two: tfds:/"):
        open_prepared(str(neither))
    for split in ("trian", "one[", "one[5:]", "one[:9]"):
        with pytest.raises(InputError, match=r"/c: no split '.*' \(.*\); it has: none, one, two"):
            open_prepared(f"tfds:{neither}:{split}")
    for split in ("none", "one[:0]"):
        with pytest.raises(InputError, match=r"/c: .*split '.*it has: none, one, two"):
            open_prepared(f"tfds:{neither}:{split}")


@tfds_only
@pytest.mark.parametrize("kind", ["number", "text", "no classes"])
def test_labels_that_are_counted(tmp_path, kind):
    texts = ["bo", "\u00e9va", "Ann"]
    label = {"number": np.int64, "text": kinds().Text(), "no classes": kinds().ClassLabel()}[kind]
    features = {"image": kinds().Image(), "label": label}
    labels = [texts[n].encode() for n in LABELS] if kind == "text" else LABELS
    rows = [{"image": i, "label": n} for i, n in zip(IMAGES, labels, strict=True)]
    source = open_prepared(str(write_dataset(tmp_path / "d", features, rows)))
    assert source.classes == 3
    if kind == "text":
        assert [source.identity(n) for n in range(3)] == ["Ann", "bo", "\u00e9va"]
        found = [source.identity(source[i]["label"]) for i in range(7)]
        assert found == [texts[n] for n in LABELS]
        assert contents(pickle.loads(pickle.dumps(source))) == contents(source)
    else:
        assert contents(source) == EXPECTED
        assert source.identity(2) == "2"


@tfds_only
def test_features_by_other_names(tmp_path):
    features = {
        "photo": kinds().Image(),
        "depth": kinds().Image(shape=(8, 8, 1), dtype=np.uint16),
        "identity_number": np.int32,
        "age": np.int64,
        "title": kinds().Text(),
    }
    rows = [
        {"photo": i, "depth": b"d", "identity_number": n, "age": 9, "title": b"t"}
        for i, n in EXPECTED
    ]
    source = open_prepared(str(write_dataset(tmp_path / "d", features, rows)))
    assert contents(source) == EXPECTED


@tfds_only
def test_features_by_the_usual_names_come_first(tmp_path):
    features = {
        "image": kinds().Image(),
        "mask": kinds().Image(),
        "label": np.int64,
        "other_label": kinds().ClassLabel(names=NAMES),
    }
    rows = [{"image": i, "mask": b"m", "label": n, "other_label": 0} for i, n in EXPECTED]
    source = open_prepared(str(write_dataset(tmp_path / "d", features, rows)))
    assert contents(source) == EXPECTED


@tfds_only
def test_features_that_are_no_image_and_label(tmp_path):
    image, number = kinds().Image(), np.int64
    cases = {
        "0 features may be the image": {"label": number},
        "2 features may be the image": {"a": image, "b": kinds().Image(), "label": number},
        r"0 features may be the label \(age: Tensor, image: Image\)": {
            "image": image,
            "age": number,
        },
        "2 features may be the label": {"image": image, "my_label": number, "identity": number},
        "0 features may be the label": {"image": image, "label": np.float32},
        r"0 .* label \(image: Image, label: Tensor\)": {
            "image": image,
            "label": kinds().Tensor(shape=(2,), dtype=np.int64),
        },
        r"0 .* image \(image: Image": {
            "image": kinds().Image(shape=(8, 8, 1), dtype=np.float32),
            "label": number,
        },
    }
    for number_of_case, (words, features) in enumerate(cases.items()):
        folder = write_dataset(tmp_path / str(number_of_case), features, [], {"train": [0]})
        with pytest.raises(InputError, match=f"{folder}: {words}"):
            open_prepared(str(folder))


@tfds_only
def test_labels_outside_the_classes_are_named(tmp_path):
    for bad in (-1, 3):
        folder = standard(tmp_path / str(bad), [*LABELS[:5], bad, 0])
        source = open_prepared(str(folder))
        assert source[4]["label"] == 0
        with pytest.raises(
            InputError, match=rf"00001-of-00002, record 1: label {bad} is not in 0\.\.2 \(3 cl"
        ):
            source[5]


@tfds_only
def test_shards_unlike_the_metadata_are_named(tmp_path):
    folder = standard(tmp_path / "d")
    second = folder / "d-train.array_record-00001-of-00002"
    sound = second.read_bytes()
    write(second, records()[:2])
    with pytest.raises(InputError, match=rf"{second}: holds 2 records where .* say 3; copy"):
        open_prepared(str(folder))
    second.write_bytes(sound[:-100])
    with pytest.raises(InputError, match=rf"{second}: {len(sound) - 100} bytes .* cut short"):
        open_prepared(str(folder))
    second.unlink()
    with pytest.raises(InputError, match=rf"{second}: No such file"):
        open_prepared(str(folder))


@tfds_only
@pytest.mark.parametrize("stored", ["tfrecord", "parquet", None])
def test_other_formats_are_named(tmp_path, stored):
    folder = standard(tmp_path / "d")
    edit(folder / "dataset_info.json", fileFormat=stored)
    with pytest.raises(
        InputError, match=rf"is stored as {stored or 'tfrecord'}, .*crfr\[tensorflow\]'.*array_rec"
    ):
        open_prepared(str(folder))
    edit(folder / "dataset_info.json", alternativeFileFormats=["array_record"])
    assert contents(open_prepared(str(folder))) == EXPECTED


@tfds_only
def test_damaged_metadata_are_named(tmp_path):
    folder = standard(tmp_path / "d")
    rng = np.random.default_rng(0)
    for name in ("dataset_info.json", "features.json"):
        path = folder / name
        sound = path.read_bytes()
        for text in ["", "{", "[]", "3", "{}", '{"a": 1}']:
            path.write_text(text)
            with pytest.raises(InputError, match=rf"{folder}: ") as error:
                open_prepared(str(folder))
            assert "\n" not in str(error.value)
        for _ in range(60):
            flipped = np.frombuffer(sound, np.uint8).copy()
            flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
            path.write_bytes(flipped.tobytes())
            outcome(lambda: open_prepared(str(folder)))
        path.write_bytes(sound)
    (folder / "features.json").unlink()
    with pytest.raises(InputError, match=r"/d: TFDS cannot read its dataset_info\.json and feat"):
        open_prepared(str(folder))


@tfds_only
def test_without_tensorflow_datasets(tmp_path, monkeypatch):
    folder = standard(tmp_path / "d")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"/d: reading it needs .*pip install 'crfr\[tfds\]'"):
        open_prepared(str(folder))


@tfds_only
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_without_tensorflow_errors_say_which_extra_to_install(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    folder = standard(tmp_path / "d/1.0.0")
    assert contents(open_source("tfds:d:1.0.0")) == EXPECTED  # what needs none goes without
    edit(folder / "dataset_info.json", fileFormat="tfrecord")
    extra = r"pip install 'crfr\[tensorflow\]', in Python .*file_format='array_record'"
    with pytest.raises(InputError, match=f"is stored as tfrecord, which .*{extra}"):
        open_source("tfds:d")
    with pytest.raises(InputError, match=f"tfds:lfw: no dataset that TFDS prepared .*{extra}"):
        open_source("tfds:lfw")  # which would have to be downloaded

    def needs_it(folder):
        import tensorflow  # noqa: F401  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(tfds, "builder_from_directory", needs_it)  # features that want it
    with pytest.raises(InputError, match=r"need TensorFlow .*; pip install 'crfr\[tensorflow\]'$"):
        open_source("tfds:d")


def test_without_array_record(tmp_path, monkeypatch):
    write(tmp_path / "a.array_record", records())
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    with pytest.raises(
        InputError, match=r"array_record cannot be imported .*pip install array-rec"
    ):
        open_array_records(str(tmp_path))


@tfds_only
def test_reading_imports_no_tensorflow(tmp_path):
    folder = standard(tmp_path / "d")
    code = (
        "import sys\n"
        "from crfr.data.prepared import open_prepared\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        f"open_prepared({str(folder)!r})[6]\n"
        "sys.exit('tensorflow' in sys.modules or 'jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_labels_are_int32():
    assert np.iinfo(np.int32).max == examples.LABEL_LIMIT
