"""crfr.data.pairs: lists of pairs in LFW's format, images in folders and in TFDS's lfw."""

import hashlib

import fsspec
import jax
import numpy as np
import pytest
from packs import encode, picture
from serve import serve

from crfr.data import pairs
from crfr.data.benchmarks import load_benchmark
from crfr.data.images import crop_centre, decode
from crfr.errors import InputError

PEOPLE = {"Ann_B": 4, "Bo": 2, "Carl_von_C": 3}
SAME = [("Ann_B", 1, 2), ("Ann_B", 4, 3), ("Bo", 1, 2), ("Carl_von_C", 3, 1)]
DIFFERENT = [("Ann_B", 1, "Bo", 2), ("Bo", 1, "Carl_von_C", 2), ("Ann_B", 4, "Carl_von_C", 3)]
# A fold: two pairs of one person, two of two; ten folds.
LINES = [
    "\t".join(map(str, kind[(fold + i) % len(kind)]))
    for fold in range(10)
    for kind in (SAME, DIFFERENT)
    for i in range(2)
]


def photo(name: str, number: int, size: int = 112) -> np.ndarray:
    return picture(1000 * sorted(PEOPLE).index(name) + number, size)


def stem(name: str, number: int) -> str:
    return f"{name}/{name}_{number:04d}"


@pytest.fixture
def folder(tmp_path):
    """PATH/pairs.txt and its images."""
    write_images(tmp_path)
    write_list(tmp_path / "pairs.txt", ["10\t2", *LINES])
    return tmp_path


def write_images(folder, size: int = 112, form: str = "PNG", end: str = ".png") -> None:
    for name, count in PEOPLE.items():
        (folder / name).mkdir(parents=True)
        for number in range(1, count + 1):
            path = folder / (stem(name, number) + end)
            path.write_bytes(encode(photo(name, number, size), form))


def write_list(path, lines: list[str], newline: str = "\n") -> str:
    path.write_text(newline.join(lines) + newline, newline="")
    return str(path)


def expected_pair(line: str) -> tuple[np.ndarray, np.ndarray, bool]:
    fields = line.split()
    first = photo(fields[0], int(fields[1]))
    return (
        first,
        photo(fields[-2] if len(fields) == 4 else fields[0], int(fields[-1])),
        len(fields) == 3,
    )


def check(benchmark, lines: list[str] = LINES) -> None:
    assert len(benchmark.pairs) == len(lines)
    assert len(np.unique(benchmark.images.reshape(len(benchmark.images), -1), axis=0)) == len(
        benchmark.images
    )
    for pair, same, line in zip(benchmark.pairs, benchmark.same, lines, strict=True):
        first, second, truth = expected_pair(line)
        assert np.array_equal(benchmark.images[pair[0]], first)
        assert np.array_equal(benchmark.images[pair[1]], second)
        assert same == truth


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("first", [["10\t2"], ["20"], ["10 2"], []])
def test_pairs_keep_their_order(folder, first, newline):
    benchmark = load_benchmark(write_list(folder / "pairs.txt", first + LINES, newline))
    assert benchmark.name == f"{folder.name}-pairs"
    assert benchmark.pairs.dtype == np.int32
    assert benchmark.same.dtype == bool
    assert len(benchmark.images) == 9
    check(benchmark)


def test_spaces_and_images_elsewhere(folder, tmp_path):
    (tmp_path / "lists").mkdir()
    spaced = [line.replace("\t", "  ") for line in LINES]
    path = write_list(tmp_path / "lists/xqlfw_pairs.txt", ["", *spaced, ""])
    benchmark = load_benchmark(f"{path}:images={folder}")
    assert benchmark.name == "xqlfw_pairs"
    check(benchmark)
    with pytest.raises(InputError, match=r"line 2: no .*lists/Ann_B/Ann_B_0001\.jpg .*images="):
        load_benchmark(path)


def test_a_list_is_never_called_as_one_of_the_usual_bins(folder):
    for name, called in (("lfw", "lfw-pairs"), ("cfp_fp", "cfp_fp-pairs"), ("mine", "mine")):
        path = write_list(folder / f"{name}.txt", LINES)
        assert load_benchmark(path).name == called
        assert load_benchmark(f"{path}:crop=112").name == f"{called}-crop112"


@pytest.mark.parametrize("first", [["10\t2"], []])
def test_a_byte_order_mark_is_no_part_of_a_list(folder, first):
    path = write_list(folder / "pairs.txt", ["\ufeff" + "\n".join([*first, *LINES])])
    check(load_benchmark(path))


@pytest.mark.parametrize(("form", "end"), [("JPEG", ".jpg"), ("JPEG", ".jpeg"), ("PNG", ".png")])
def test_endings(tmp_path, form, end):
    write_images(tmp_path, form=form, end=end)
    benchmark = load_benchmark(write_list(tmp_path / "pairs.txt", LINES))
    encoded = (tmp_path / (stem("Ann_B", 1) + end)).read_bytes()
    assert np.array_equal(benchmark.images[0], decode(encoded, ""))


def test_crops(tmp_path):
    write_images(tmp_path, 250)
    path = write_list(tmp_path / "pairs.txt", LINES)
    exact = load_benchmark(f"{path}:crop=112")
    assert exact.name == f"{tmp_path.name}-pairs-crop112"
    assert np.array_equal(exact.images[0], photo("Ann_B", 1, 250)[69:181, 69:181])
    resized = load_benchmark(f"{path}:crop=150,images={tmp_path}")
    centre = photo("Ann_B", 1, 250)[50:200, 50:200].astype(np.float32)
    wanted = np.asarray(jax.image.resize(centre, (112, 112, 3), "cubic", antialias=True))
    difference = np.abs(resized.images[0] - np.clip(wanted, 0, 255))
    assert difference.max() < 2
    assert difference.mean() < 0.5
    with pytest.raises(InputError, match=r"Ann_B_0001\.png: the image is 250x250 px .*112x112"):
        load_benchmark(path)
    with pytest.raises(InputError, match=r"Ann_B_0001\.png: crop=251 is larger .* 250x250"):
        load_benchmark(f"{path}:crop=251")


def test_odd_crops_are_central():
    image = picture(0, 113)
    assert np.array_equal(crop_centre(image, 112, "x"), image[:112, :112])
    wide = np.concatenate([image[:112], image[:112]], axis=1)  # 112 high, 226 wide
    assert np.array_equal(crop_centre(wide, 112, "x"), wide[:, 57:169])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["10\t3", *LINES], "40 pairs, but its first line announces 60"),
        (["20", *LINES[:-1]], "39 pairs, but its first line announces 40"),
        (["5\t4", *LINES], "a list of 5 folds, but accuracy is taken over 10"),
        (LINES[:9], "9 pairs, but accuracy over ten folds needs 10"),
        ([], "0 pairs, but"),
        (["10\t2"], "0 pairs, but its first line announces 40"),
        ([line for line in LINES if line.count("\t") == 2], "all 20 pairs are of one person"),
        ([line for line in LINES if line.count("\t") == 3], "all 20 pairs are of two people"),
        ([*LINES, "Ann_B 1"], r"line 41: 'Ann_B 1' is not 'name n1 n2'"),
        ([*LINES, "Ann_B 1 2 Bo 1"], "line 41: .* is not 'name n1 n2'"),
        ([*LINES, "Ann_B one 2"], "line 41: 'one' is not the number"),
        ([*LINES, "Ann_B 1 -2"], "line 41: '-2' is not the number"),
        ([*LINES, "Ann_B 1 Ann_B 2"], "line 41: names 'Ann_B' as two people"),
        ([*LINES, "Ann_B 1 5"], r"line 41: no .*Ann_B/Ann_B_0005\.jpg \(or"),
        ([*LINES, "Nobody 1 2"], r"line 41: no .*Nobody/Nobody_0001\.jpg"),
        ([*LINES, "../x 1 2"], r"line 41: the name '\.\./x' leads elsewhere; refused"),
        ([*LINES, ".. 1 2"], r"line 41: the name '\.\.' leads elsewhere"),
        ([*LINES, "Bo 1 /etc/x 2"], "line 41: the name '/etc/x' leads elsewhere"),
        ([*LINES, "Bo 1 a\\b 2"], "line 41: the name .* leads elsewhere"),
        ([*LINES, "Bo 1 \0 2"], "line 41: the name .* leads elsewhere"),
    ],
    ids=range(20),
)
def test_what_is_no_list_is_named(folder, lines, words):
    path = write_list(folder / "pairs.txt", lines)
    with pytest.raises(InputError, match=rf"pairs\.txt.*{words}") as error:
        load_benchmark(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{folder}/pair.txt", r"no such file; did you mean .*/pairs\.txt"),
        ("{folder}/pairs.txt:image=x", "unknown setting of .*pairs.txt 'image': did you mean"),
        ("{folder}/pairs.txt:images=", "images has no value"),
        ("{folder}/pairs.txt:crop", "crop has no value"),
        ("{folder}/pairs.txt:crop=0", "crop=0 is not a side in px"),
        ("{folder}/pairs.txt:crop=1.5", r"crop=1\.5 is not a side in px"),
        ("{folder}/pairs.txt:images=/nowhere", "/nowhere: no such folder of images"),
        ("{folder}/pairs.txt:images={folder}/pairs.txt", "no such folder of images"),
    ],
)
def test_mistaken_specs(folder, spec, words):
    with pytest.raises(InputError, match=words):
        load_benchmark(spec.format(folder=folder))


def test_damaged_images_are_named(folder):
    (folder / (stem("Bo", 2) + ".png")).write_bytes(b"junk")
    with pytest.raises(InputError, match=r"Bo/Bo_0002\.png: 4 bytes that do not decode"):
        load_benchmark(f"{folder}/pairs.txt")


def test_lists_at_urls(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "cache"))
    spec = f"file://{folder}/pairs.txt:images={folder}"
    assert pairs.parse_pairs(spec) == (f"file://{folder}/pairs.txt", str(folder), None)
    check(load_benchmark(spec))


def test_a_list_on_an_object_store_brings_the_images_beside_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for path in [folder / "pairs.txt", *folder.glob("*/*.png")]:
        memory.pipe(f"/bucket/lfw/{path.relative_to(folder)}", path.read_bytes())
    memory.pipe("/bucket/lfw/train.rec", b"no image, not to be copied")
    try:
        for spec in ("memory://bucket/lfw/pairs.txt", "memory://bucket/lfw/pairs.txt:crop=112"):
            benchmark = load_benchmark(spec)
            check(benchmark)
            assert benchmark.name == f"lfw-pairs{'-crop112' if 'crop' in spec else ''}"
        assert not list((tmp_path / "cache").rglob("*.rec"))
        assert len(list((tmp_path / "cache").rglob("*.png"))) == sum(PEOPLE.values())
    finally:
        memory.store.clear()


def test_a_list_on_a_web_server_says_to_name_the_images(folder, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp", reason="fsspec reads http:// through aiohttp")
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lists").mkdir()
    (folder / "pairs.txt").rename(tmp_path / "lists/pairs.txt")
    with serve(tmp_path) as (root, _):
        with pytest.raises(InputError, match=rf"{root}/lists/pairs\.txt:images=FOLDER") as error:
            load_benchmark(f"{root}/lists/pairs.txt?signature=secret")
        assert "secret" not in str(error.value)
        benchmark = load_benchmark(f"{root}/lists/pairs.txt?signature=secret:images={folder}")
    check(benchmark)
    assert benchmark.name == "lists-pairs"


class Prepared:
    """TFDS's lfw as a source: names and images in the order of the hashes of keys."""

    def __init__(self, salt: str = "train"):
        keys = [f"{stem(n, i)}.jpg" for n, count in PEOPLE.items() for i in range(1, count + 1)]
        self.keys = sorted(keys, key=lambda key: hashlib.md5((salt + key).encode()).hexdigest())
        self.names = sorted(PEOPLE)
        self.classes = len(self.names)

    def __len__(self):
        return len(self.keys)

    def __getitem__(self, index):
        name, number = self.keys[index][:-8].split("/")[0], int(self.keys[index][-8:-4])
        return {"image": encode(photo(name, number), "PNG"), "label": self.names.index(name)}

    def where(self, index):
        return f"tfds:lfw, record {index}"

    def identity(self, label):
        return self.names[label]


def test_numbers_of_tfds_records(folder, monkeypatch):
    monkeypatch.setattr(pairs, "open_source", lambda spec: Prepared())
    spec = f"{folder}/pairs.txt:images=tfds:lfw"
    check(load_benchmark(spec))
    write_list(folder / "pairs.txt", [*LINES, "Ann_B\t1\t5"])
    with pytest.raises(InputError, match=r"line 41: tfds:lfw has no Ann_B/Ann_B_0005\.jpg"):
        load_benchmark(spec)


def test_a_list_with_the_lfw_that_tfds_prepared(folder, tmp_path, monkeypatch):
    """A dataset `lfw` as TFDS's own writer stores it: features, shards and their order are its."""
    tfds = pytest.importorskip("tensorflow_datasets")
    writing = pytest.importorskip("tensorflow_datasets.core.writer")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    home = tmp_path / "tfds/lfw/0.1.1"
    home.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {"label": tfds.features.Text(), "image": tfds.features.Image(shape=(250, 250, 3))}
    )
    template = tfds.core.ShardedFileTemplate(
        data_dir=home, dataset_name="lfw", split="train", filetype_suffix="array_record"
    )
    writer = writing.Writer(
        serializer=tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info()),
        filename_template=template,
        hash_salt="train",
        disable_shuffling=False,
        example_writer=writing.ExampleWriter(tfds.core.FileFormat.ARRAY_RECORD),
        shard_config=tfds.core.utils.shard_utils.ShardConfig(num_shards=2),
    )
    for name, count in PEOPLE.items():
        for number in range(1, count + 1):
            image = encode(photo(name, number, 250), "PNG")
            writer.write(
                f"{stem(name, number)}.jpg",
                features.encode_example({"label": name, "image": image}),
            )
    lengths, size = writer.finalize()
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=lengths, num_bytes=size, filename_template=template
    )
    tfds.folder_dataset.write_metadata(
        data_dir=home, features=features, split_infos=[split], version="0.1.1",
        filename_template=template, check_data=False,
    )  # fmt: skip
    assert len(list(home.glob("lfw-train.array_record-*-of-00002"))) == 2
    benchmark = load_benchmark(f"{folder}/pairs.txt:images=tfds:lfw,crop=112")
    assert benchmark.name == f"{folder.name}-pairs-crop112"
    for pair, same, line in zip(benchmark.pairs, benchmark.same, LINES, strict=True):
        fields = line.split()
        other = fields[-2] if len(fields) == 4 else fields[0]
        for index, name, number in ((pair[0], *fields[:2]), (pair[1], other, fields[-1])):
            whole = photo(name, int(number), 250)
            assert np.array_equal(benchmark.images[index], whole[69:181, 69:181])
        assert same == (len(fields) == 3)


def test_tfds_records_in_another_order_are_refused(folder, monkeypatch):
    monkeypatch.setattr(pairs, "open_source", lambda spec: Prepared("test"))
    with pytest.raises(InputError, match=r"tfds:lfw: its records are not in the order .*FOLDER"):
        load_benchmark(f"{folder}/pairs.txt:images=tfds:lfw")


def test_the_hash_is_tfds_own():
    hashing = pytest.importorskip("tensorflow_datasets.core.hashing")
    key = hashing.Hasher("train").hash_key("Bo/Bo_0001.jpg")
    assert int.from_bytes(pairs._key_hash("Bo/Bo_0001"), "big") == key
