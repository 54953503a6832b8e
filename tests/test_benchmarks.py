"""crfr.data.benchmarks, crfr.data.unpickle: pairs of distinct images, pickles not trusted."""

import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
from packs import encode, picture
from serve import serve

from crfr.data import benchmarks, faces
from crfr.data.benchmarks import load_benchmark, load_benchmarks
from crfr.data.images import decode
from crfr.data.unpickle import unpickle
from crfr.errors import InputError

JPEGS = [encode(picture(seed), quality=30) for seed in range(8)]
# Twelve pairs of eight images: slots 2i and 2i + 1 are pair i.
SLOTS = [0, 1, 2, 1, 3, 4, 0, 0, 5, 6, 6, 5, 7, 2, 1, 3, 4, 4, 2, 7, 0, 6, 3, 5]
# In order of first occurrence these are 0..7 already.
TRUTHS = [i % 3 == 0 for i in range(12)]
BINS = [JPEGS[slot] for slot in SLOTS]


def write(path, content, protocol: int = 4):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return str(path)


def check(benchmark) -> None:
    assert benchmark.images.shape == (8, 112, 112, 3)
    for index, jpeg in enumerate(JPEGS):
        assert np.array_equal(benchmark.images[index], decode(jpeg, ""))
    assert benchmark.pairs.tolist() == np.reshape(SLOTS, (12, 2)).tolist()
    assert benchmark.pairs.dtype == np.int32
    assert benchmark.same.tolist() == TRUTHS
    assert benchmark.same.dtype == bool


def array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "content",
    [
        (BINS, TRUTHS),
        [tuple(BINS), tuple(TRUTHS)],
        ([array(b) for b in BINS], np.array(TRUTHS)),
        ([array(b)[:, None] for b in BINS], [np.bool_(t) for t in TRUTHS]),
        ([array(b)[:, None].copy("F") for b in BINS], [np.int64(t) for t in TRUTHS]),
        ([np.stack([array(b)] * 2, 1)[:, 0] for b in BINS], [int(t) for t in TRUTHS]),
        ([bytearray(b) for b in BINS], np.array(TRUTHS, ">i4")),
    ],
    ids=["bytes", "tuples", "n", "n1", "fortran", "strided", "bytearray"],
)
def test_every_layout_and_protocol(tmp_path, content, protocol):
    if isinstance(content[0][0], bytearray) and protocol < 5:
        content = ([bytes(b) for b in content[0]], content[1])
    check(load_benchmark(write(tmp_path / "small.bin", content, protocol)))
    if protocol < 4:  # names are text here: NumPy 1's, of the same length as nothing else
        old = pickle.dumps(content, protocol).replace(b"numpy._core.", b"numpy.core.")
        check(load_benchmark(write(tmp_path / "old.bin", old)))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_keep_shape_order_and_type(protocol):
    image = picture(0)
    arrays = [image, image.T, image[::2, 3:], np.arange(6, dtype=">i8"), np.array(True)]
    arrays += [np.linspace(0, 1, 5), np.zeros((0, 2), np.uint16)]
    for read, given in zip(unpickle("x.bin", pickle.dumps(arrays, protocol)), arrays, strict=True):
        assert np.array_equal(read.value, given)
        assert read.value.dtype == given.dtype
        assert read.value.shape == given.shape


def python2(images: list[bytes], arrays: bool) -> bytes:
    """What Python 2's pickle, protocol 2, writes: strings are bytes; NumPy 1's arrays."""
    parts = [b"\x80\x02]("]
    for image in images:
        string = b"T" + struct.pack("<i", len(image)) + image
        if arrays:
            minus_one = b"J\xff\xff\xff\xff"
            dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
            dtype += b"(K\x03U\x01|NNN" + minus_one + minus_one + b"K\x00tb"
            parts.append(
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
                b"(K\x01J" + struct.pack("<i", len(image)) + b"K\x01\x86" + dtype + b"\x89" + string
                + b"tb"
            )  # fmt: skip
        else:
            parts.append(string)
    return (
        b"".join(parts) + b"e](" + b"".join(b"\x88" if t else b"\x89" for t in TRUTHS) + b"e\x86."
    )


@pytest.mark.parametrize("arrays", [False, True])
def test_pickles_of_python_2(tmp_path, arrays):
    content = python2(BINS, arrays)
    if arrays:  # the hand-made bytes are what NumPy itself reads
        assert pickle.loads(content, encoding="bytes")[0][3].tobytes() == BINS[3]
    benchmark = load_benchmark(write(tmp_path / "py2.bin", content))
    assert benchmark.name == "py2"
    check(benchmark)


def test_distinct_images_that_look_alike_stay_apart(tmp_path):
    # The same pixels encoded twice are two images: equal bytes are one image, nothing else is.
    again = [encode(decode(JPEGS[0], ""), "PNG"), *BINS[1:]]
    benchmark = load_benchmark(write(tmp_path / "a.bin", (again, TRUTHS)))
    assert len(benchmark.images) == 9
    assert np.array_equal(benchmark.images[0], benchmark.images[5])


class Call:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def asks_for(module: str, name: str, arguments: bytes = b")") -> bytes:
    """A protocol 4 pickle that calls module.name, which may be dotted, with `arguments`."""
    names = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x04" + names + b"\x93" + arguments + b"R."


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    trace = tmp_path / "trace"
    content = (BINS, [*TRUTHS[:-1], Call(os.system, f"touch {trace}")])
    data = pickle.dumps(content, protocol)
    with pytest.raises(
        InputError, match=r"evil\.bin: refused before it ran: .*'(posix|nt).system'"
    ):
        load_benchmark(write(tmp_path / "evil.bin", data))
    assert not trace.exists()
    pickle.loads(data)  # it is as hostile as it seems: without protection it runs
    assert trace.exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (pickle.dumps(Call(eval, "1/0")), "builtins.eval"),
        (pickle.dumps(Call(eval, "1/0"), 2), "__builtin__.eval"),
        (pickle.dumps(Call(getattr, 1, "real")), "builtins.getattr"),
        (pickle.dumps(Call(np.load, "x")), "numpy.load"),
        (pickle.dumps(Call(np.fromfile, "x")), "numpy.fromfile"),
        (pickle.dumps(np.float32), "numpy.float32"),
        (asks_for("os", "path.join"), "os.path.join"),
        (asks_for("numpy", "ndarray.tofile"), "numpy.ndarray.tofile"),
        (asks_for("numpy", "dtype.__init__"), "numpy.dtype.__init__"),
        (asks_for("numpy.core.multiarray", "_reconstruct.__globals__"), "_reconstruct.__globals__"),
        (asks_for("numpy._core.numpy._core.multiarray", "scalar"), "multiarray.scalar"),
        (asks_for("copyreg", "_reconstructor"), "copyreg._reconstructor"),
        (asks_for("copyreg", "__newobj__"), "copyreg.__newobj__"),
        (asks_for("crfr.data.unpickle", "unpickle"), "crfr.data.unpickle.unpickle"),
        (b"(S'touch x'\nios\nsystem\n.", "os.system"),  # INST: protocol 0's own way to call
        (pickle.dumps(bytearray(b"12"), 4), "builtins.bytearray"),
        (pickle.dumps(np.array([1, None]), 4), "numpy"),  # object arrays
    ],
)
def test_any_other_name_is_refused(data, name):
    with pytest.raises(InputError, match=r"^x\.bin: ") as error:
        unpickle("x.bin", data)
    refused = "refused before it ran" in str(error.value)
    assert refused or name == "numpy"
    assert name in str(error.value) or "'O8' where one of" in str(error.value)


DTYPE = b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02u1\x89\x88\x87R"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x80\x02Nr\xff\xff\xff\xff.", "memo index 4294967295 after 2 opcodes"),
        (b"Np99999999\n.", "memo index 99999999"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "expected 9223372036854775807 bytes"),
        (asks_for("_codecs", "encode", b"\x8c\x01x\x8c\x04zlib\x86"), "'zlib' where one of"),
        (asks_for("_codecs", "encode", b"\x8c\x01xN\x86"), "a NoneType where one of"),
        (asks_for("numpy", "dtype", b"\x8c\x01O\x85"), "'O' where one of"),
        (asks_for("numpy", "dtype", b"]\x94(h\x00h\x00e\x85"), "a list where one of"),
        (asks_for("numpy", "ndarray", b"J\xff\xff\xff\x7f\x85\x85"), "not callable"),
        # A dtype forged so that bytes pass for pointers.
        (b"\x80\x04" + DTYPE + b"(K\x03\x8c\x01ONNNK\x08K\x01K\x00tb.", "'O' where one of"),
        # State for what is looked up, not made: no attribute may be left behind.
        (asks_for("numpy", "dtype")[:-3] + b"N}\x8c\x04code\x8c\x01xs\x86b.", "TypeError"),
        (asks_for("_codecs", "encode")[:-3] + b"N}\x8c\x04code\x8c\x01xs\x86b.", "AttributeError"),
    ],
)
def test_hostile_arguments_are_harmless(data, words):
    with pytest.raises(InputError, match=f"^x.bin: not a sound pickle .*{words}"):
        unpickle("x.bin", data)
    check_arrays = ([array(b) for b in BINS], np.array(TRUTHS))
    assert unpickle("x.bin", pickle.dumps(check_arrays, 2))[0][0].value.tobytes() == BINS[0]


def test_text_encoded_over_and_over_does_not_fill_memory():
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00"
    call = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    assert len(unpickle("x.bin", b"\x80\x02" + text + call + b".")) == 100_000
    with pytest.raises(InputError, match="expands to more than its own size"):
        unpickle("x.bin", b"\x80\x02" + text + call * 3 + b".")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ((BINS[:-1], TRUTHS), "23 images and 12 pairs"),
        ((BINS, TRUTHS[:-1]), "24 images and 11 pairs"),
        ((BINS[:18], TRUTHS[:9]), "9 pairs, but accuracy over ten folds needs 10"),
        (([], []), "0 pairs"),
        ((BINS, [True] * 12), "all 12 pairs are of one person"),
        ((BINS, [False] * 12), "all 12 pairs are of two people"),
        ((BINS, TRUTHS, 0), r"holds no \(images, truths\)"),
        (BINS, r"holds no \(images, truths\)"),
        ({"bins": BINS}, r"holds no \(images, truths\)"),
        ((BINS, "yes"), "truths are no list but str"),
        ((dict.fromkeys(BINS), TRUTHS), "images are no list but dict"),
        ((np.zeros(24, np.uint8), TRUTHS), "images are no list but PickledArray"),
        ((BINS, [*TRUTHS[:3], 2, *TRUTHS[4:]]), "pair 3: 2 is neither true nor false"),
        ((BINS, [*TRUTHS[:3], None, *TRUTHS[4:]]), "pair 3: a NoneType is neither"),
        ((BINS, [*TRUTHS[:3], 10**5000, *TRUTHS[4:]]), "pair 3: a int is neither"),
        ((BINS, np.zeros((12, 2), bool)), "pair 0: a list is neither"),
        ((BINS, np.zeros((), bool)), "truths are no list but bool"),
        (([*BINS[:5], "text", *BINS[6:]], TRUTHS), r"image 5 \(pair 2\): a str, not bytes"),
        (([*BINS[:5], np.zeros(9), *BINS[6:]], TRUTHS), r"image 5 \(pair 2\): .*float64"),
        (([*BINS[:5], b"", *BINS[6:]], TRUTHS), r"image 5 \(pair 2\): 0 bytes that do not"),
        (([*BINS[:5], b"junk", *BINS[6:]], TRUTHS), r"image 5 \(pair 2\): 4 bytes that do not"),
        (([*BINS[:5], BINS[5][:-99], *BINS[6:]], TRUTHS), r"image 5 \(pair 2\): .* do not decode"),
        (([*BINS[:5], encode(picture(0)[:96]), *BINS[6:]], TRUTHS), r"image 5 .* is 112x96 px"),
    ],
    ids=range(23),
)
def test_what_is_no_benchmark_is_named(tmp_path, content, words):
    path = write(tmp_path / "a.bin", content)
    with pytest.raises(InputError, match=rf"a\.bin.*{words}") as error:
        load_benchmark(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("arrays", [False, True])
def test_damaged_pickles_are_input_errors_or_harmless(tmp_path, protocol, arrays):
    tiny = [encode(picture(seed, 112)[:9, :9], quality=5) for seed in range(8)]
    bins = [array(tiny[slot]) if arrays else tiny[slot] for slot in SLOTS]
    sound = pickle.dumps((bins, TRUTHS), protocol)
    with pytest.raises(InputError, match="is 9x9 px"):
        load_benchmark(write(tmp_path / "a.bin", sound))
    rng = np.random.default_rng(protocol)
    # Where the opcodes are; flips of the images' bytes meet the decoder, tested elsewhere.
    opcodes = [at for *_, at in pickletools.genops(sound)]
    refused = 0
    for _ in range(1500):
        damaged = bytearray(sound)
        at = rng.choice(opcodes) + rng.integers(0, 4)
        damaged[min(at, len(sound) - 1)] ^= 1 << rng.integers(8)
        try:
            content = unpickle("x.bin", bytes(damaged))
        except InputError as error:
            message = str(error)
            refused += 1
            assert message.startswith("x.bin: ")
            assert "\n" not in message
            assert len(message) < 500
        else:
            assert content is not None
    assert 150 < refused < 1500
    for size in (0, 1, 2, *rng.integers(3, len(sound) - 1, 60)):
        with pytest.raises(InputError, match=r"^x\.bin: not a sound pickle"):
            unpickle("x.bin", sound[:size])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("face", "unknown benchmark 'face': did you mean 'faces'"),
        ("lfw", "unknown benchmark 'lfw'"),
        ("{folder}/empty", r"empty: is a folder without \.bin files"),
        ("{folder}/some.npz", "is not a benchmark; name a .bin"),
        ("{folder}/sone.bin", r"no such file; did you mean .*/some\.bin\?"),
        ("faces:identities=2,images=2", "4 pairs, fewer than 10"),
        ("faces:identity=2", "identities"),
    ],
)
def test_specs_that_name_nothing(tmp_path, spec, words):
    write(tmp_path / "some.bin", (BINS, TRUTHS))
    (tmp_path / "some.npz").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        load_benchmark(spec.format(folder=tmp_path))


def folder_of(tmp_path, *names: str) -> str:
    for name in names:
        write(tmp_path / name, (BINS, TRUTHS))
    return str(tmp_path)


def test_folders_and_lists_of_benchmarks(tmp_path, monkeypatch):
    folder = folder_of(tmp_path, "vgg2_fp.bin", "cplfw.bin", "agedb_30.bin", "a.bin", "lfw.bin")
    (tmp_path / "train.rec").write_bytes(b"")
    monkeypatch.setattr(benchmarks, "KNOWN", dict.fromkeys(benchmarks.KNOWN, 12))
    found = load_benchmarks(folder)
    assert [b.name for b in found] == ["lfw", "agedb_30", "cplfw", "a", "vgg2_fp"]
    for benchmark in found:
        check(benchmark)
    with pytest.raises(InputError, match=r"names 5 benchmarks; name one: .*/lfw\.bin, .*/agedb_30"):
        load_benchmark(folder)
    spec = f"{folder}/a.bin,faces:identities=5,images=3,seed=2,{folder}/lfw.bin"
    assert [b.name for b in load_benchmarks(spec)] == [
        "a",
        "faces:identities=5,images=3,seed=2",
        "lfw",
    ]
    with pytest.raises(InputError, match="names 3 benchmarks"):
        load_benchmark(spec)
    with pytest.raises(InputError, match="2 benchmarks are called 'a'"):
        load_benchmarks(f"{folder}/a.bin,{folder}/a.bin")
    for spec in (f"{folder}/a.bin,", ""):
        with pytest.raises(InputError, match="nothing before or after a comma"):
            load_benchmarks(spec)


def test_a_folder_of_one_benchmark_and_names_with_commas(tmp_path):
    (tmp_path / "a,b").mkdir()
    folder = folder_of(tmp_path / "a,b", "one.bin")
    check(load_benchmark(folder))
    check(load_benchmark(f"{folder}/one.bin"))
    assert [b.name for b in load_benchmarks(folder)] == ["one"]


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("lfw", 6000), ("agedb_30", 6000), ("cfp_fp", 7000), ("calfw", 6000), ("cplfw", 6000)],
)
def test_the_usual_benchmarks_have_their_pairs(tmp_path, name, pairs):
    with pytest.raises(
        InputError, match=rf"{name}\.bin: 12 pairs, but {name} has {pairs:,}; .*cut"
    ):
        load_benchmark(write(tmp_path / f"{name}.bin", (BINS, TRUTHS)))
    whole = (JPEGS[:2] * pairs, [True, False] * (pairs // 2))
    assert len(load_benchmark(write(tmp_path / f"{name}.bin", whole)).pairs) == pairs


def test_benchmarks_at_urls(tmp_path, monkeypatch):
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "far").mkdir()
    folder = folder_of(tmp_path / "far", "one.bin", "two.bin")
    (tmp_path / "far/train.rec").write_bytes(b"large")
    benchmark = load_benchmark(f"file://{folder}/one.bin")
    assert benchmark.name == "one"
    check(benchmark)
    assert [b.name for b in load_benchmarks(f"file://{folder}")] == ["one", "two"]
    assert not list((tmp_path / "cache").rglob("train.rec"))
    (tmp_path / "far/a.npz").write_bytes(b"")
    with pytest.raises(InputError, match="is not a benchmark"):
        load_benchmark(f"file://{folder}/a.npz")


def test_a_benchmark_at_a_signed_url(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp", reason="fsspec reads http:// through aiohttp")
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "far").mkdir()
    folder_of(tmp_path / "far", "one.bin", "two.bin")
    with serve(tmp_path / "far") as (root, _):
        spec = f"{root}/one.bin?sig=a%2Cb&se=2030,{root}/two.bin?sig=c"
        assert [b.name for b in load_benchmarks(spec)] == ["one", "two"]


def test_procedural_benchmark():
    benchmark = load_benchmark("faces:identities=5,images=3,seed=2")
    assert benchmark.name == "faces:identities=5,images=3,seed=2"
    assert benchmark.images.shape == (15, 112, 112, 3)
    pairs, same = faces.face_pairs(5, 3, 2)
    assert np.array_equal(benchmark.pairs, pairs)
    assert np.array_equal(benchmark.same, same)
    # Evaluation people, in the order that the pairs count in.
    source = faces.Faces(5, 3, 2, split="eval")
    assert np.array_equal(benchmark.images[7], source[7]["image"])
    assert not np.array_equal(benchmark.images[7], faces.Faces(5, 3, 2)[7]["image"])


def test_real_benchmark(shared_data):
    path = shared_data / "lfw/lfw.bin"
    benchmark = load_benchmark(str(path))
    assert benchmark.name == "lfw"
    assert benchmark.images.shape == (7701, 112, 112, 3)
    assert benchmark.pairs.shape == (6000, 2)
    assert benchmark.same.reshape(10, 2, 300).all(2).tolist() == [[True, False]] * 10
    bins, truths = pickle.loads(path.read_bytes())
    assert benchmark.same.tolist() == truths
    for slot in range(0, 12_000, 997):
        image = benchmark.images[benchmark.pairs[slot // 2, slot % 2]]
        assert np.array_equal(image, decode(bins[slot], ""))
