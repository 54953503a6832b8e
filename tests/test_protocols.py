"""The paper's protocols: as published, as drawn, and what has to be embedded for them."""

import numpy as np
import pytest

from crfr.data.benchmarks import Benchmark
from crfr.errors import InputError
from crfr.evaluate.protocols import (
    PROTOCOLS,
    Protocol,
    draw_protocols,
    needed,
    read_protocols,
    write_protocols,
)


def made_up(pairs, name="lfw", images=6):
    same = np.arange(len(pairs)) % 2 == 0
    blank = np.zeros((images, 112, 112, 3), np.uint8)
    return Benchmark(name, blank, np.array(pairs, np.int32), same)


@pytest.fixture
def benchmark():
    rng = np.random.default_rng(0)
    return made_up(rng.integers(0, 6, (400, 2)))


def test_draws_keep_to_their_ranges_and_reach_all_of_them(benchmark):
    protocols = draw_protocols(benchmark, 3, seed=5)
    assert [p.name for p in protocols] == list(PROTOCOLS)
    for protocol in protocols:
        low, high, _ = PROTOCOLS[protocol.name]
        assert protocol.resolutions.shape == (3, 400, 2)
        assert (protocol.resolutions[..., 0] == 112).all()
        drawn = protocol.resolutions[..., 1]
        assert (drawn.min(), drawn.max()) == (low, high)
        # equally likely: chi-square over the range, 99.9 % bound for that many degrees of freedom
        counts = np.bincount(drawn.ravel() - low, minlength=high - low + 1)
        expected = 1200 / (high - low + 1)
        degrees = high - low
        assert ((counts - expected) ** 2 / expected).sum() < degrees + 4 * np.sqrt(2 * degrees)
        assert not np.array_equal(drawn[0], drawn[1])


def test_a_draw_depends_on_seed_benchmark_and_number_alone(benchmark):
    three, one = draw_protocols(benchmark, 3, seed=5), draw_protocols(benchmark, 1, seed=5)
    for a, b in zip(three, one, strict=True):
        np.testing.assert_array_equal(a.resolutions[:1], b.resolutions)
    other = draw_protocols(benchmark, 1, seed=6)
    assert not np.array_equal(one[0].resolutions, other[0].resolutions)
    renamed = made_up(benchmark.pairs, "calfw")
    assert not np.array_equal(one[0].resolutions, draw_protocols(renamed, 1, 5)[0].resolutions)


def test_written_protocols_are_read_back_and_have_the_published_layout(benchmark, tmp_path):
    paths = write_protocols(tmp_path, benchmark, seed=5)
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == [f"LFW/{file}" for _, _, file in PROTOCOLS.values()]
    text = paths[0].read_bytes()
    assert text.startswith(b"112,")
    assert text.endswith(b"\r\n")
    assert text.count(b"\n") == 1
    assert len(text.split(b",")) == 800
    for read, drawn in zip(
        read_protocols(tmp_path, benchmark), draw_protocols(benchmark, 1, 5), strict=True
    ):
        assert (read.name, read.drawn) == (drawn.name, "file")  # nobody's published draw
        assert drawn.source == "seed 5"
        assert read.source.startswith("sha256 ")
        np.testing.assert_array_equal(read.resolutions, drawn.resolutions)


def test_the_published_files_are_read(shared_data):
    folder = shared_data / "btm_stm_protocols"
    for name, pairs in (("lfw", 6000), ("agedb_30", 6000), ("cfp_fp", 7000)):
        benchmark = made_up(np.zeros((pairs, 2), np.int32), name)
        for protocol in read_protocols(folder, benchmark):
            assert protocol.drawn == "published"
            low, high, _ = PROTOCOLS[protocol.name]
            assert (protocol.resolutions[..., 0] == 112).all()
            drawn = protocol.resolutions[..., 1]
            assert (drawn.min(), drawn.max()) == (low, high), protocol.name
    # the head of LFW's low_res_focus.csv, as the file has it
    lfw = read_protocols(folder, made_up(np.zeros((6000, 2), np.int32)))[0]
    assert lfw.resolutions[0, :5, 1].tolist() == [7, 10, 6, 8, 6]


def test_damaged_protocols_are_refused(benchmark, tmp_path):
    with pytest.raises(InputError, match=r"LFW.*low_res_focus\.csv: No such file"):
        read_protocols(tmp_path, benchmark)
    path = write_protocols(tmp_path, benchmark, seed=5)[0]
    good = path.read_text()
    path.write_text(good.rpartition(",")[0])
    with pytest.raises(InputError, match="799 values, but 400 pairs of lfw need 800"):
        read_protocols(tmp_path, benchmark)
    for bad in ("0", "113", "-7", "7.0", "", "1e9", "٧"):
        path.write_text(",".join(["112", bad, *good.strip().split(",")[2:]]), encoding="utf-8")
        with pytest.raises(InputError, match=r"value 2, of image B of pair 1, is|no text"):
            read_protocols(tmp_path, benchmark)
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="no text"):
        read_protocols(tmp_path, benchmark)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "low_res",
            (100, 7),
            r"value 5, of image A of pair 3, is '100', but in low_res it is of 1",
        ),
        (
            "low_res",
            (112, 11),
            r"value 6, of image B of pair 3, is '11', but in low_res it is in 5",
        ),
        ("low_res", (112, 40), r"is '40', but in low_res it is in 5\.\.10 px; copy the file again"),
        ("mid_res", (112, 10), r"is '10', but in mid_res it is in 11\.\.39 px"),
        ("mid_res", (112, 40), r"is '40', but in mid_res it is in 11\.\.39 px"),
        ("high_res", (112, 39), r"is '39', but in high_res it is in 40\.\.112 px"),
        ("all_res", (112, 4), r"is '4', but in all_res it is in 5\.\.112 px"),
        ("all_res", (7, 112), r"image A of pair 3, is '7', but in all_res it is of 112 px"),
    ],
)
def test_a_file_of_another_protocol_is_refused(benchmark, tmp_path, file, values, message):
    write_protocols(tmp_path, benchmark, seed=5)
    path = tmp_path / "LFW" / PROTOCOLS[file][2]
    words = path.read_text().strip().split(",")
    words[4:6] = map(str, values)
    path.write_text(",".join(words))
    with pytest.raises(InputError, match=rf"{path.name}, line 1: .*{message}"):
        read_protocols(tmp_path, benchmark)


def test_only_what_a_scenario_needs_is_asked_for():
    """By hand: four images, three pairs, the last image in no pair."""
    benchmark = made_up([[0, 1], [1, 2], [0, 2]], images=4)
    everyone, low = [True, True, True, False], [False, True, True, False]

    def asked(scenarios, resolutions, protocols=()):
        found = needed(benchmark, scenarios, resolutions, protocols)
        assert list(found) == sorted(found, reverse=True)
        return {r: mask.tolist() for r, mask in found.items()}

    assert asked(["CR"], [7]) == {112: everyone, 7: everyone}
    assert asked(["ER"], [7]) == {7: everyone}
    assert asked(["matrix"], [7, 9]) == {9: everyone, 7: everyone}
    assert asked([], [7]) == {}
    # image B of the pairs is 1, 2, 2; image A is 0, 1, 0
    drawn = np.array([[[112, 5], [112, 6], [112, 5]]], np.int32)
    protocol = Protocol("low_res", "published", "sha256 0", drawn)
    full = [True, True, False, False]
    assert asked([], [], [protocol]) == {112: full, 6: [False, False, True, False], 5: low}
    assert asked(["ER"], [6], [protocol])[6] == everyone
