"""crfr holdout: people, photos and pairs of the benchmark, and what is left for the training."""

import collections
import itertools
import json
import pickle

import numpy as np
import pytest
from packs import encode, picture, write_insightface
from PIL import Image

from crfr import main
from crfr.data.benchmarks import load_benchmark
from crfr.data.holdout import hold_out, to_bin
from crfr.data.images import decode
from crfr.data.packs import Pack
from crfr.data.records import open_source
from crfr.errors import InputError
from crfr.prepare import read_names, write_names

# Six people; the first has one photo twice, the last one photo only.
COUNTS = [5, 7, 4, 6, 5, 1]
STARTS = np.cumsum([0, *COUNTS])
JPEGS = [encode(picture(seed)) for seed in range(sum(COUNTS))]
PEOPLE = [JPEGS[a:b] for a, b in itertools.pairwise(STARTS)]
# the same pixels in another file
PEOPLE[0] = [*PEOPLE[0], PEOPLE[0][0][:2] + b"\xff\xfe\0\4ab" + PEOPLE[0][0][2:]]
OWNER = {jpeg: person for person, jpegs in enumerate(PEOPLE) for jpeg in jpegs}


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> str:
    return str(write_insightface(tmp_path_factory.mktemp("pack"), PEOPLE))


def held(pack: str, **changes):
    settings = {"identities": 3, "pairs": 20, "seed": 0, "drop": frozenset()} | changes
    return hold_out(Pack(pack), pack, **settings)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_of_the_people_that_they_claim(pack, seed):
    found = held(pack, seed=seed)
    owners = np.array([OWNER[image] for image in found.images])
    assert {str(owner) for owner in owners} == set(found.names)
    assert len(found.names) == 3
    assert "5" not in found.names  # one photo makes no pair
    first, second = owners[found.pairs].T
    np.testing.assert_array_equal(first == second, found.same)
    np.testing.assert_array_equal(found.same, [True, False] * 10)
    assert len({frozenset(pair) for pair in found.pairs.tolist()}) == 20  # in either order
    assert all(a != b for a, b in found.pairs.tolist())
    # ten positive pairs over three people, each of whom has at least six
    assert sorted(collections.Counter(first[found.same]).values()) == [3, 3, 4]
    assert 0 < (found.pairs[:, 0] < found.pairs[:, 1]).mean() < 1


def test_depends_on_the_seed_alone(pack):
    same, other = held(pack), held(pack, seed=1)
    np.testing.assert_array_equal(held(pack).pairs, same.pairs)
    assert same.images == held(pack).images
    assert same.names != other.names or not np.array_equal(same.pairs, other.pairs)


def test_one_photo_in_two_files_counts_once(pack):
    found = held(pack, identities=5, pairs=40)
    assert len(found.images) == sum(COUNTS[:5])


def test_who_is_dropped_is_not_drawn(pack):
    for seed in range(5):
        assert not {"1", "3"} & set(held(pack, seed=seed, drop=frozenset({"1", "3"})).names)


def test_the_file_is_insightfaces(pack):
    found = held(pack)
    bins, same = pickle.loads(to_bin(found))
    assert bins[0::2] == [found.images[a] for a in found.pairs[:, 0]]
    assert bins[1::2] == [found.images[b] for b in found.pairs[:, 1]]
    assert same == [True, False] * 10


def test_benchmark_and_rest_share_nobody(pack, tmp_path, capsys):
    out = tmp_path / "there" / "mine.bin"
    main.run(["holdout", f"--data={pack}", "--identities=3", "--pairs=20", f"--out={out}"])
    names = out.with_suffix(".identities")
    assert f"--drop-identities={names}" in capsys.readouterr().out
    benchmark = load_benchmark(str(out))
    assert (benchmark.name, len(benchmark.pairs)) == ("mine", 20)
    rest = tmp_path / "rest"
    main.run(["convert", f"--data={pack}", f"--drop-identities={names}", f"--out={rest}"])
    source = open_source(str(rest))
    assert source.classes == 3
    left = {source[i]["image"].tobytes() for i in range(len(source))}
    assert not left & {image.tobytes() for image in benchmark.images}
    kept = json.loads((rest / "manifest.json").read_text())["identities"]
    assert sorted([*kept, *names.read_text().split()]) == list("012345")


def test_any_name_is_left_out_as_it_is(tmp_path):
    """Names that are folders': with a comment's mark, a JSON string's, spaces, line breaks."""
    names = {
        "#3",
        '"quoted"',
        '"',
        " lead",
        "trail ",
        "two\nlines",
        "a\x85b",
        "\ufeffmark",
        "\udcff",
        "plain",
        "Zoë #1",
    }
    path = tmp_path / "names.txt"
    write_names(path, names)
    assert read_names(path) == names
    path.write_text('# by hand\n\n"half a quote\n  ada  \n"\\u00e9ve"\n')
    assert read_names(path) == {'"half a quote', "ada", "\u00e9ve"}


def test_people_whose_names_look_like_comments_are_left_out(tmp_path):
    for name in ("#3", "#4", "plain"):
        for photo in range(2):
            (tmp_path / "people" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (112, 112), (40 * photo, len(name), 0)).save(
                tmp_path / "people" / name / f"{photo}.png"
            )
    write_names(tmp_path / "names", {"#3"})
    words = ["convert", f"--data={tmp_path / 'people'}", f"--out={tmp_path / 'rest'}"]
    main.run([*words, f"--drop-identities={tmp_path / 'names'}"])
    manifest = json.loads((tmp_path / "rest/manifest.json").read_text())
    assert manifest["identities"] == ["#4", "plain"]


def test_arrays_are_stored_without_loss():
    source = open_source("faces:identities=4,images=3")
    found = hold_out(source, "faces", identities=4, pairs=10, seed=0, drop=frozenset())
    drawn = {source[index]["image"].tobytes() for index in range(len(source))}
    assert {decode(image, "test").tobytes() for image in found.images} == drawn


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--identities=6"], "5 identities with two or more photos, fewer than --identities=6"),
        (["--identities=1"], "--identities=1: a pair of two people"),
        (["--pairs=400", "--identities=2"], "pairs of one person among 2 identities, fewer"),
        (["--pairs=21"], "--pairs=21: give an even number from 10 on"),
        (["--pairs=8"], "--pairs=8: give an even number from 10 on"),
        (["--out=mine"], "--out=mine: give a file ending in .bin"),
    ],
)
def test_bad_requests_are_named_and_write_nothing(pack, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        main.run(
            ["holdout", f"--data={pack}", "--identities=3", "--pairs=20", "--out=x.bin", *flags]
        )
    assert not list(tmp_path.iterdir())


def test_too_few_pairs_of_two_people():
    class Two:
        classes = 2

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return {"image": encode(picture(50 + index)), "label": index // 6}

        def where(self, index):
            return f"item {index}"

        def identity(self, label):
            return "ab"[label]

    # 6 and 2 photos: 16 positive pairs, 12 negative ones
    with pytest.raises(InputError, match="12 pairs of two people among 2 identities, too few"):
        hold_out(Two(), "two", identities=2, pairs=20, seed=0, drop=frozenset())
