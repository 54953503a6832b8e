"""crfr.data.records: images and labels of packs and procedural faces, and errors that name them."""

import io
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from packs import (
    encode,
    payload,
    picture,
    with_magics,
    write_insightface,
    write_records,
)
from PIL import Image

from crfr.data.images import decode
from crfr.data.packs import layout, slack
from crfr.data.recordio import Record, RecordFile
from crfr.data.records import open_source, read_example
from crfr.errors import InputError

JPEGS = [encode(picture(seed)) for seed in range(6)]
PEOPLE = [JPEGS[:2], JPEGS[2:3], JPEGS[3:]]
LABELS = [0, 0, 1, 2, 2, 2]


def pillow(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def contents(source) -> list[tuple[bytes, int]]:
    return [(source[i]["image"], source[i]["label"]) for i in range(len(source))]


def drop_line(path, key: int) -> None:
    index = path.with_suffix(".idx")
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(line for line in lines if not line.startswith(f"{key}\t")))


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("with_property", [False, True])
def test_insightface_pack(tmp_path, vector, with_property):
    path = write_insightface(tmp_path, PEOPLE, with_property, vector)
    source = open_source(str(path))
    assert (len(source), source.classes) == (6, 3)
    assert contents(source) == list(zip(JPEGS, LABELS, strict=True))
    assert source.where(5) == f"{path}, key 6"
    assert source[np.int64(3)]["label"] == 2
    for index in (-1, 6):
        with pytest.raises(IndexError):
            source[index]
    with pytest.raises(TypeError):
        source[1.0]


def test_images_split_at_magics_are_whole(tmp_path):
    images = [with_magics(image) for image in JPEGS]
    path = write_insightface(tmp_path, [images[:2], images[2:]])
    source = open_source(str(path))
    assert path.read_bytes().count(struct.pack("<I", 0xCED7230A)) > 10 + 3 * 6
    for index in range(6):
        assert source[index]["image"] == images[index]
        assert np.array_equal(read_example(source, index)["image"], pillow(JPEGS[index]))


@pytest.mark.parametrize("first", [0, 7])
def test_im2rec_pack_every_key_is_an_image(tmp_path, first):
    payloads = {
        first + 2 * i: payload(image, label)
        for i, (image, label) in enumerate(zip(JPEGS, LABELS, strict=True))
    }
    path = write_records(tmp_path / "a.rec", dict(sorted(payloads.items(), key=lambda p: -p[0])))
    source = open_source(str(path))  # no property: the records are scanned
    assert source.classes == 3
    assert contents(source) == list(zip(JPEGS, LABELS, strict=True))
    assert source.where(1) == f"{path}, key {first + 2}"
    (tmp_path / "property").write_text("4,112,112\n")
    assert open_source(str(path)).classes == 4


def test_an_image_with_two_labels_at_key_0_is_no_metadata(tmp_path):
    payloads = {i: payload(image, labels=(1, 9)) for i, image in enumerate(JPEGS)}
    source = open_source(str(write_records(tmp_path / "a.rec", payloads)))
    assert (len(source), source.classes, source[0]["label"]) == (6, 2, 1)


def test_a_pack_without_identity_records(tmp_path):
    payloads = {1 + i: payload(image, LABELS[i]) for i, image in enumerate(JPEGS)}
    payloads[0] = payload(b"", labels=(7, 7))
    source = open_source(str(write_records(tmp_path / "a.rec", payloads)))
    assert contents(source) == list(zip(JPEGS, LABELS, strict=True))
    assert source.classes == 3


@pytest.mark.parametrize("label", [-1.0, 0.5, 3.0, 2.0**24, float("nan"), float("inf")])
def test_labels_out_of_range_are_named(tmp_path, label):
    payloads = {i: payload(image, LABELS[i]) for i, image in enumerate(JPEGS)}
    payloads[4] = payload(JPEGS[4], label)
    (tmp_path / "property").write_text("3,112,112")
    source = open_source(str(write_records(tmp_path / "a.rec", payloads)))
    assert source[3]["label"] == 2
    with pytest.raises(
        InputError, match=rf"a\.rec, key 4: label {label:.9g} is .* 0\.\.2"
    ) as error:
        source[4]
    assert "property" in str(error.value)


def test_a_bad_label_is_named_while_classes_are_counted(tmp_path):
    payloads = {i: payload(image, -i) for i, image in enumerate(JPEGS)}
    path = write_records(tmp_path / "a.rec", payloads)
    with pytest.raises(InputError, match=r"a\.rec, key 1: label -1 "):
        open_source(str(path))


@pytest.mark.parametrize(
    "text",
    ["", "3", "3,112", "x,112,112", "0,112,112", "-3,112,112", "16777217,112,112", "3.0,1,1"],
)
def test_a_malformed_property_is_named(tmp_path, text):
    path = write_insightface(tmp_path, PEOPLE)
    (tmp_path / "property").write_text(text)
    with pytest.raises(InputError, match=f"{tmp_path}/property: .*classes,height,width"):
        open_source(str(path))


def test_a_property_with_too_few_classes_is_named(tmp_path):
    path = write_insightface(tmp_path, PEOPLE)
    (tmp_path / "property").write_text("2,112,112")
    with pytest.raises(InputError, match=r"property: 2 classes, .* has 3 identities"):
        open_source(str(path))


@pytest.mark.parametrize("key", [1, 3, 6, 7, 9])
def test_a_key_that_the_index_lacks_is_named(tmp_path, key):
    path = write_insightface(tmp_path, PEOPLE)
    drop_line(path, key)
    with pytest.raises(InputError, match=rf"keys 1 to 9 \(6 images, 3 .*it lacks: {key}\)"):
        open_source(str(path))


def test_a_key_out_of_sequence_is_named(tmp_path):
    path = write_insightface(tmp_path, PEOPLE)
    index = path.with_suffix(".idx")
    index.write_text(index.read_text().replace("\n6\t", "\n16\t"))
    with pytest.raises(InputError, match=r"lists 9 keys up to 16 \(the first it lacks: 6\)"):
        open_source(str(path))


def test_identity_records_that_are_images_are_named(tmp_path):
    payloads = {1 + i: payload(image, LABELS[i]) for i, image in enumerate(JPEGS)}
    payloads[0] = payload(b"", labels=(5, 7))
    path = write_records(tmp_path / "a.rec", payloads)
    with pytest.raises(InputError, match="identity records begin at key 5, but they do not"):
        open_source(str(path))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((7,), "has labels"),
        ((7, 10, 1), "has labels"),
        ((7, float("nan")), "has labels"),
        ((7.5, 10), "has labels"),
        ((10, 7), "has labels"),
        ((-7, 10), "has labels"),
        ((7, 11), "announces the keys 1 to 10"),
        ((6, 10), "begin at key 6"),
        ((8, 10), "begin at key 8"),
        ((10, 10), "begin at key 10"),
    ],
)
def test_metadata_that_contradict_the_records_are_named(tmp_path, labels, words):
    path = write_insightface(tmp_path, PEOPLE)
    assert len(open_source(str(path))) == 6
    index = path.with_suffix(".idx")
    key, offset = index.read_text().splitlines()[-1].split()
    assert key == "0"
    records = path.read_bytes()[: int(offset)]
    write_records(tmp_path / "meta.rec", {0: payload(b"", labels=labels)})
    path.write_bytes(records + (tmp_path / "meta.rec").read_bytes())
    with pytest.raises(InputError, match=rf"train\.rec, key 0: .*{words}"):
        open_source(str(path))


class LargePack(RecordFile):
    """A pack larger than tests can write, as far as `layout` looks at it."""

    def __init__(self, images: int, identities: int):
        self.images = images
        self.keys = range(images + identities + 1)
        ends = np.array([images + 1, images + 1 + identities], np.float32).tolist()
        self.meta = Record(2, tuple(ends), b"")

    def __len__(self):
        return len(self.keys)

    def where(self, position):
        return f"key {position}"

    def record(self, position):
        if position == 0:
            return self.meta
        return Record(0, (0.0,), b"x") if position <= self.images else Record(2, (0.0, 0.0), b"")


def test_layout_beyond_the_whole_numbers_of_float32():
    assert [slack(n) for n in (1, 2**24 - 1, 2**24, 2**24 + 1, 2**25)] == [0, 0, 1, 1, 2]
    for images in (2**24 - 2, 2**24 - 1, 2**24, 2**24 + 1, 17_091_657, 17_091_658, 40_000_003):
        for identities in (1, 7, 360_232):
            assert layout(LargePack(images, identities)) == (1, images, identities)
    off = LargePack(17_091_657, 7)
    off.images -= 4
    with pytest.raises(InputError, match="identity records begin at key 17091658"):
        layout(off)


def test_packs_without_images_are_named(tmp_path):
    path = write_insightface(tmp_path, [])
    (tmp_path / "property").unlink()
    with pytest.raises(InputError, match="holds no images"):
        open_source(str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match="train"):
        open_source(str(path))
    path.with_suffix(".idx").write_text("")
    with pytest.raises(InputError, match="lists no records"):
        open_source(str(path))


def test_a_record_without_image_is_named(tmp_path):
    payloads = {i: payload(image) for i, image in enumerate(JPEGS)}
    payloads[2] = payload(b"")
    source = open_source(str(write_records(tmp_path / "a.rec", payloads)))
    with pytest.raises(InputError, match=r"a\.rec, key 2: the record holds no image"):
        source[2]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("face:identities=3", "unknown source 'face': did you mean 'faces'"),
        ("webface", "unknown source 'webface'"),
        ("{folder}", r"name the pack in it: .*train\.rec"),
        ("{folder}/train.idx", r"is none of the forms.*\.rec"),
        ("{folder}/trian.rec", r"no such file; did you mean .*/train\.rec\?"),
        ("/no/where.rec", "no folder /no"),
        ("faces:identities=x", "identities"),
    ],
)
def test_specs_that_name_nothing(tmp_path, spec, words):
    write_insightface(tmp_path, PEOPLE)
    with pytest.raises(InputError, match=words):
        open_source(spec.format(folder=tmp_path))


def test_faces_are_a_source():
    source = open_source("faces:identities=3,images=2,seed=1")
    assert (len(source), source.classes) == (6, 3)
    assert [source[i]["label"] for i in range(6)] == [0, 0, 1, 1, 2, 2]
    assert read_example(source, 4)["image"].shape == (112, 112, 3)
    default = open_source("faces")
    assert (len(default), default.classes) == (150 * 16, 150)


@pytest.mark.parametrize("size", [112, 113])
def test_jpegs_decode_as_pillow_decodes_them(size):
    image = picture(0, size)
    for options in ({}, {"quality": 30}, {"progressive": True}, {"subsampling": 0}):
        encoded = encode(image, **options)
        decoded = decode(encoded, "here")
        assert decoded.shape == (size, size, 3)
        assert np.array_equal(decoded, pillow(encoded))
        assert np.abs(decoded.astype(int) - image).mean() < 12  # and it is RGB, not BGR
    grey = encode(image[..., 0])
    assert np.array_equal(decode(grey, "here"), pillow(grey))


def test_lossless_formats_decode_exactly():
    image = picture(0)
    for form, options in (("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})):
        assert np.array_equal(decode(encode(image, form, **options), "here"), image)
    grey = decode(encode(image[..., 0], "PNG"), "here")
    assert np.array_equal(grey, np.repeat(image[..., :1], 3, axis=2))
    alpha = np.concatenate([image, image[..., :1]], axis=2)
    assert np.array_equal(decode(encode(alpha, "PNG"), "here"), image)
    file, palette = io.BytesIO(), Image.fromarray(image).quantize(16)
    palette.save(file, "PNG", transparency=b"\0\x80")
    assert np.array_equal(decode(file.getvalue(), "here"), np.asarray(palette.convert("RGB")))
    assert decode(image, "here") is image


def huge_jpeg() -> bytes:
    """A JPEG whose header claims 65,500 px a side."""
    at = JPEGS[0].index(b"\xff\xc0")
    return JPEGS[0][: at + 5] + struct.pack(">HH", 65500, 65500) + JPEGS[0][at + 9 :]


def cut_idat(png: bytes) -> bytes:
    """The PNG with the length of its image data understated, so that no chunk follows."""
    at = png.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", png, at)
    return png[:at] + struct.pack(">I", length // 2) + png[at + 4 :]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "0 bytes that do not decode"),
        (b"\xff\xd8", "2 bytes that do not decode"),
        (b"hello", "5 bytes that do not decode"),
        (JPEGS[0][:-200], "do not decode"),
        (JPEGS[0][:100], "do not decode"),
        (huge_jpeg(), "65500x65500 px is too large"),
        (encode(picture(0), "PNG")[:-2000], "do not decode"),
        (cut_idat(encode(picture(0), "PNG")), "broken PNG file"),  # Pillow's SyntaxError
        (encode(picture(0), "GIF"), "do not decode"),
        (encode(np.zeros((112, 112), np.uint16), "PNG"), "mode I;16, not 8 bits"),
        (np.zeros((112, 112, 3), np.float32), r"float32 \[112, 112, 3\]"),
        (np.zeros((112, 112), np.uint8), r"uint8 \[112, 112\]"),
    ],
    ids=range(12),
)
def test_undecodable_images_are_named(image, words):
    with pytest.raises(InputError, match=f"^here: .*{words}") as error:
        decode(image, "here")
    assert "\n" not in str(error.value)


def test_images_of_another_size_are_named(tmp_path):
    wide = picture(0)[:96]
    source = open_source(str(write_insightface(tmp_path, [[JPEGS[0], encode(wide)]])))
    assert read_example(source, 0)["image"].shape == (112, 112, 3)
    with pytest.raises(InputError, match=r"train\.rec, key 2: the image is 112x96 px .*112x112"):
        read_example(source, 1)["image"]


def test_pickled_sources_read_the_same(tmp_path):
    source = open_source(str(write_insightface(tmp_path, PEOPLE)))
    copy = pickle.loads(pickle.dumps(source))
    assert contents(copy) == contents(source)
    assert copy.classes == 3


def read_all(path) -> int:
    """Opens and reads a pack that may be damaged; the number of errors, all of them InputError."""
    messages = []
    try:
        source = open_source(str(path))
        for index in range(len(source)):
            try:
                assert read_example(source, index)["image"].shape == (112, 112, 3)
                assert 0 <= source[index]["label"] < source.classes
            except InputError as error:
                messages.append(str(error))
    except InputError as error:
        messages.append(str(error))
    for message in messages:
        assert message.startswith(str(path.parent))
        assert "\n" not in message
    return len(messages)


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "property"])
def test_flipped_bits_are_input_errors_or_harmless(tmp_path, name):
    jpegs = [with_magics(encode(picture(seed), quality=10)) for seed in range(3)]
    path = write_insightface(
        tmp_path, [jpegs, [encode(picture(9), form) for form in ("PNG", "WEBP")]]
    )
    assert read_all(path) == 0
    target = tmp_path / name
    sound = target.read_bytes()
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        flipped = np.frombuffer(sound, np.uint8).copy()
        # Every other time where structure is: the first 400 bytes hold heads, headers and tables.
        at = rng.integers(len(flipped) if rng.random() < 0.5 else min(400, len(flipped)))
        flipped[at] ^= 1 << rng.integers(8)
        target.write_bytes(flipped.tobytes())
        found += read_all(path) > 0
    assert 40 < found <= 400
    for _ in range(40):
        target.write_bytes(sound[: rng.integers(len(sound) - 1)])  # more than a final newline
        assert read_all(path) > 0 or name == "property"


def test_reading_data_starts_no_jax():
    code = (
        "import sys, crfr.data.benchmarks as b, crfr.data.records as r\n"
        "r.read_example(r.open_source('faces'), 0)\n"
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_real_pack(shared_data):
    source = open_source(str(shared_data / "pins90/train.rec"))
    assert (len(source), source.classes) == (12_669, 90)
    counts = np.bincount([source[i]["label"] for i in range(len(source))])
    # The identity records, keys N + 1 and up, say which keys are whose.
    spans = [source._records.record(12_670 + label).labels for label in range(90)]
    assert counts.tolist() == [end - start for start, end in spans]
    image = read_example(source, 12_668)["image"]
    assert np.array_equal(image, pillow(source[12_668]["image"]))
