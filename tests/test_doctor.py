"""crfr.data.doctor: sets that are sound, and sets spoilt on purpose."""

import json

import numpy as np
import pytest
from packs import encode, payload, write_insightface, write_records
from PIL import Image

from crfr.data.alignment import judge
from crfr.data.benchmarks import load_benchmark
from crfr.data.doctor import Findings, examine
from crfr.data.duplicates import scan
from crfr.data.faces import Faces
from crfr.data.images import decode
from crfr.data.records import open_source
from crfr.data.sheet import CAPTION, COLUMNS, SIDE, TITLE, Strip, contact_sheet
from crfr.errors import InputError

PEOPLE, IMAGES = 32, 3


class Changed:
    """A source whose images pass through `change(image, random generator)`."""

    def __init__(self, source, change):
        self.source, self.change, self.classes = source, change, source.classes
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        example = self.source[index]
        image = decode(example["image"], "")
        return {"image": np.ascontiguousarray(self.change(image, self.rng))} | {
            "label": example["label"]
        }

    def where(self, index):
        return self.source.where(index)

    def identity(self, label):
        return self.source.identity(label)


class Images:
    """Pictures in memory as a source; of one person each, unless labels are given."""

    def __init__(self, images, labels=None):
        self.images = images
        self.labels = range(len(images)) if labels is None else labels
        self.classes = max(self.labels) + 1

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}

    def where(self, index):
        return f"image {index}"

    def identity(self, label):
        return str(label)


@pytest.fixture(scope="module")
def faces() -> Faces:
    return Faces(identities=PEOPLE, images=IMAGES, seed=1)


@pytest.fixture(scope="module")
def encoded(faces) -> list[list[bytes]]:
    """PNG images of each person."""
    images = [encode(faces[index]["image"], "PNG") for index in range(len(faces))]
    return [images[at : at + IMAGES] for at in range(0, len(images), IMAGES)]


def doctor(source, tmp_path, **options) -> Findings:
    return examine(source, "the set", tmp_path / "out", threads=2, **options)


def pack(tmp_path, people: list[list[bytes]]):
    return open_source(str(write_insightface(tmp_path, people)))


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def errors(findings: Findings) -> list[str]:
    return [f.name for f in findings.findings if f.severity == "error"]


def named(findings: Findings, name: str):
    (found,) = [f for f in findings.findings if f.name == name]
    return found


def affine(image, scale=1.0, right=0.0, down=0.0, degrees=0.0):
    """Enlarged and turned clockwise about the middle, then shifted by px."""
    turn, middle = np.deg2rad(degrees), 55.5
    a, b = np.cos(turn) / scale, np.sin(turn) / scale
    x, y = middle + right, middle + down
    data = (a, b, middle - a * x - b * y, -b, a, middle + b * x - a * y)
    form, kind = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).transform((112, 112), form, data, kind))


MISALIGNED = {
    "lower": lambda image, rng: affine(image, down=8),
    "higher": lambda image, rng: affine(image, down=-8),
    "left": lambda image, rng: affine(image, right=-8),
    "smaller": lambda image, rng: affine(image, scale=0.8),
    "turned": lambda image, rng: affine(image, degrees=15),
    "turned back": lambda image, rng: affine(image, degrees=-15),
    "upside down": lambda image, rng: image[::-1],
    "anywhere": lambda image, rng: affine(image, 1, *rng.uniform(-20, 20, 2)),
}


def test_a_sound_set_has_no_errors(tmp_path, faces, capsys):
    findings = doctor(faces, tmp_path, benchmarks=[load_benchmark("faces:identities=4,images=8")])
    assert not findings.spoils
    assert {f.severity for f in findings.findings} == {"ok", "info"}
    assert named(findings, "identities").count == PEOPLE
    assert "3 / 3 / 3 images" in named(findings, "identities").text
    assert findings.images == PEOPLE * IMAGES

    out = tmp_path / "out"
    record = json.loads((out / "doctor.json").read_text())
    assert record["spoils"] is False
    assert record["data"] == "the set"
    assert {"command", "commit", "versions", "time"} <= set(record)
    assert [f["name"] for f in record["findings"]] == [f.name for f in findings.findings]
    sheet, picture, marked = (
        pixels(out / name)
        for name in ("contact_sheet.png", "mean_face.png", "mean_face_points.png")
    )
    assert sheet.shape == (TITLE + 4 * (SIDE + CAPTION), 16 * SIDE, 3)
    assert marked.shape == (448, 448, 3)
    mean = np.mean([faces[index]["image"] for index in range(len(faces))], axis=0)
    assert np.abs(picture - mean).max() <= 0.5 + 1e-9
    assert capsys.readouterr().out == findings.table() + "\n"


def test_unreadable_images_and_labels(tmp_path, encoded):
    people = [*encoded, [b"no image", encoded[0][0][:500]]]
    findings = doctor(pack(tmp_path, people), tmp_path)
    assert "unreadable" in errors(findings)
    assert named(findings, "unreadable").count == 2
    assert f"key {PEOPLE * IMAGES + 1}: 8 bytes" in named(findings, "unreadable").examples[0]
    assert named(findings, "label_gaps").count == 1  # its images are all damaged


def test_labels_out_of_range_are_unreadable(tmp_path, encoded):
    images = [image for images in encoded for image in images]
    payloads = {key: payload(image, key // IMAGES) for key, image in enumerate(images)}
    (tmp_path / "property").write_text(f"{PEOPLE - 1},112,112")
    findings = doctor(open_source(str(write_records(tmp_path / "a.rec", payloads))), tmp_path)
    assert errors(findings) == ["unreadable"]
    assert named(findings, "unreadable").count == IMAGES
    assert "label 31 is not a whole number in 0..30" in named(findings, "unreadable").examples[0]


def test_nothing_readable(tmp_path):
    findings = doctor(pack(tmp_path, [[b"1"], [b"2"]]), tmp_path)
    assert errors(findings) == ["unreadable"]
    assert named(findings, "alignment").severity == "info"


def test_wrong_sizes(tmp_path, encoded, faces):
    tall = encode(np.zeros((120, 96, 3), np.uint8), "PNG")
    findings = doctor(pack(tmp_path, [*encoded, [tall]]), tmp_path)
    assert errors(findings) == ["wrong_size"]
    path = f"{tmp_path}/train.rec"
    assert named(findings, "wrong_size").examples == [
        f"{path}, key {PEOPLE * IMAGES + 1}: 96x120 px"
    ]


@pytest.mark.parametrize(("classes", "severity"), [(32, "ok"), (33, "warning"), (36, "error")])
def test_label_gaps(tmp_path, encoded, classes, severity):
    source = pack(tmp_path, encoded)
    source.classes = classes
    finding = named(doctor(source, tmp_path), "label_gaps")
    assert (finding.severity, finding.count) == (severity, classes - PEOPLE)
    assert finding.examples == [f"label {label}" for label in range(PEOPLE, classes)]


def test_identities_with_one_image(tmp_path, encoded):
    few = [images if label > 4 else images[:1] for label, images in enumerate(encoded)]
    finding = named(doctor(pack(tmp_path, few), tmp_path), "single_images")
    assert (finding.severity, finding.count) == ("info", 5)
    finding = named(
        doctor(pack(tmp_path, [images[:1] for images in encoded]), tmp_path), finding.name
    )
    assert (finding.severity, finding.count) == ("warning", PEOPLE)


def test_swapped_colours(tmp_path, faces):
    findings = doctor(Changed(faces, lambda image, rng: image[..., ::-1]), tmp_path)
    assert errors(findings) == ["swapped_colours"]
    assert named(findings, "swapped_colours").count == PEOPLE * IMAGES


def test_a_few_swapped_images(tmp_path, faces):
    def swap(image, rng):
        return image[..., ::-1] if np.array_equal(image, faces[7]["image"]) else image

    findings = doctor(Changed(faces, swap), tmp_path)
    finding = named(findings, "bluish_images")
    assert (errors(findings), finding.severity, finding.indices) == ([], "info", [7])


def test_grey_sets_have_no_colours_to_swap(tmp_path, faces):
    grey = Changed(faces, lambda image, rng: np.repeat(image[..., 1:2], 3, axis=2))
    findings = doctor(grey, tmp_path)
    assert errors(findings) == []
    assert named(findings, "swapped_colours").severity == "info"
    assert named(findings, "grey_images").severity == "warning"
    assert named(findings, "grey_images").count == PEOPLE * IMAGES


def test_dark_bright_and_flat_images(tmp_path, faces):
    spoilt = {4: lambda x: x // 12, 5: lambda x: 245 + x // 26, 6: lambda x: 100 + x // 20}

    def change(image, rng):
        for index, how in spoilt.items():
            if np.array_equal(image, faces[index]["image"]):
                return how(image).astype(np.uint8)
        return image

    findings = doctor(Changed(faces, change), tmp_path)
    assert errors(findings) == []
    assert named(findings, "dark_images").indices == [4]
    assert named(findings, "bright_images").indices == [5]
    assert {5, 6} <= set(named(findings, "flat_images").indices) <= {4, 5, 6}


def test_one_picture_under_two_identities(tmp_path, encoded):
    people = [[*images] for images in encoded]
    people[11].append(people[3][1])
    findings = doctor(pack(tmp_path, people), tmp_path)
    assert errors(findings) == ["label_noise"]
    finding = named(findings, "label_noise")
    assert finding.count == 2
    path = f"{tmp_path}/train.rec, key"
    assert finding.examples == [f"{path} 11 (label 3) = {path} 37 (label 11)"]
    assert named(findings, "repeated_images").count == 0


def test_little_label_noise_is_a_warning(tmp_path):
    images = [np.full((8, 8, 3), (i % 250, i // 250, 9), np.uint8) for i in range(2100)]
    images[700] = images[5]
    for people, severity in ((2100, "warning"), (1000, "error")):
        source = Images(images[:people], [index % 10 // 4 for index in range(people)])
        finding = named(doctor(source, tmp_path), "label_noise")
        assert (finding.severity, finding.count) == (severity, 2)
        assert finding.examples == ["image 5 (label 1) = image 700 (label 0)"]


def test_repeated_images(tmp_path, encoded):
    people = [[*images] for images in encoded]
    people[3] += [people[3][0], people[3][0]]
    findings = doctor(pack(tmp_path, people), tmp_path)
    assert errors(findings) == []
    assert named(findings, "repeated_images").count == 2
    assert named(findings, "repeated_images").severity == "warning"  # 3 % of the images


def test_benchmark_images(tmp_path, encoded, faces):
    bench = load_benchmark("faces:identities=4,images=8")
    people = [*encoded, [encode(bench.images[9], quality=60), encode(bench.images[2], "PNG")]]
    findings = doctor(pack(tmp_path, people), tmp_path, benchmarks=[bench])
    assert errors(findings) == ["benchmark"]
    finding = named(findings, "benchmark")
    first, second = PEOPLE * IMAGES, PEOPLE * IMAGES + 1
    assert finding.indices == [second, first]
    path = f"{tmp_path}/train.rec, key"
    assert finding.examples[0] == f"{path} {second + 1} is {bench.name}, image 2 (exact, 1.000)"
    assert finding.examples[1].startswith(f"{path} {first + 1} is {bench.name}, image 9 (near, 0.9")
    height = len(pixels(tmp_path / "out/contact_sheet.png"))
    assert height == 3 * TITLE + 6 * (SIDE + CAPTION)  # 64 at random, two copies, two originals


@pytest.mark.parametrize("change", MISALIGNED)
def test_misaligned_sets(tmp_path, change):
    source = Faces(identities=60, images=2, seed=1)
    findings = doctor(Changed(source, MISALIGNED[change]), tmp_path)
    assert errors(findings) == ["alignment"]


def test_misalignment_is_described():
    source = Faces(identities=60, images=2, seed=2)
    images = [source[index]["image"] for index in range(len(source))]

    def judged(**change):
        return judge(np.mean([affine(image, **change) for image in images], axis=0))

    sound = judged()
    assert sound.aligned
    assert (sound.scale, sound.angle) == (1, 0)
    lower = judged(down=8, right=3)
    assert np.abs(np.subtract(lower.shift, sound.shift) - (3, 8)).max() <= 1
    assert judged(scale=0.8).scale == 0.8
    assert judged(degrees=20).angle == 20
    assert judged(degrees=180).angle == 180


def test_few_images_have_no_mean_face(tmp_path):
    source = Changed(Faces(identities=2, images=5), MISALIGNED["upside down"])
    findings = doctor(source, tmp_path)
    assert not findings.spoils
    assert "not judged: 10 images" in named(findings, "alignment").text


def test_few_people_have_an_unusual_mean_face(tmp_path):
    source = Changed(Faces(identities=10, images=5), MISALIGNED["upside down"])
    findings = doctor(source, tmp_path)
    assert not findings.spoils
    assert named(findings, "alignment").severity == "warning"


def test_samples(tmp_path, faces):
    findings = doctor(faces, tmp_path, sample=30)
    assert (findings.images, findings.spoils) == (30, False)
    assert {"label_gaps", "single_images"}.isdisjoint(f.name for f in findings.findings)
    assert doctor(faces, tmp_path, sample=10_000).images == PEOPLE * IMAGES
    with pytest.raises(InputError, match="sample=0"):
        doctor(faces, tmp_path, sample=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: File exists; name a folder"):
        examine(faces, "faces", tmp_path / "file")


def test_other_exceptions_are_not_swallowed():
    def work(index):
        return 1 // index

    assert list(scan([1, 2], work, 2, "")) == [(1, 1), (2, 0)]
    with pytest.raises(ZeroDivisionError):
        list(scan([1, 0], work, 2, ""))


def test_contact_sheet_shows_images_where_they_belong():
    colours = [np.full((112, 112, 3), 10 * i, np.uint8) for i in range(COLUMNS + 2)]
    colours[1] = np.full((56, 224, 3), 10, np.uint8)
    sheet = np.asarray(contact_sheet([Strip("title", colours, ["É"] * len(colours))]))
    assert sheet.shape == (TITLE + 2 * (SIDE + CAPTION), COLUMNS * SIDE, 3)
    for number in range(len(colours)):
        row, column = divmod(number, COLUMNS)
        at = TITLE + row * (SIDE + CAPTION) + 10, column * SIDE + 50
        assert sheet[at].tolist() == [10 * number] * 3


@pytest.fixture(scope="module")
def photographs(shared_data) -> list[Images]:
    """100 images of pins90 and of LFW."""
    pins = open_source(str(shared_data / "pins90/train.rec"))
    some = [decode(pins[index]["image"], "") for index in range(0, len(pins), 127)]
    lfw = load_benchmark(str(shared_data / "lfw/lfw.bin")).images[::77]
    return [Images(some), Images(lfw)]


@pytest.mark.parametrize("change", ["none", *MISALIGNED, "swapped"])
def test_photographs(tmp_path, photographs, change):
    changes = MISALIGNED | {"swapped": lambda image, rng: image[..., ::-1]}
    expected = {"none": [], "swapped": ["swapped_colours"]}.get(change, ["alignment"])
    for source in photographs:
        spoilt = source if change == "none" else Changed(source, changes[change])
        assert errors(doctor(spoilt, tmp_path)) == expected
