"""Thresholds over two resolutions: a cell, the table, what it declines and refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from scipy import stats

import crfr
from crfr import main
from crfr.data.benchmarks import Benchmark, load_benchmark
from crfr.errors import InputError
from crfr.evaluate.statistics import far_threshold, roc_figures
from crfr.evaluate.verification import fold_of, kfold
from crfr.use.calibrate import judge, tabulate, wilson
from crfr.use.decide import decide
from crfr.use.text import decision_lines
from crfr.use.thresholds import (
    BEST,
    FIGURES,
    Calibration,
    parse_calibration,
    read_calibration,
    table_path,
)

rng = np.random.default_rng(0)
SAME = np.tile([True, False], 300)


def normal(gap=1.5, pairs=600):
    """Distances of pairs [p], of one person and of two in turns."""
    same = np.tile([True, False], pairs // 2)
    return (0.8 + 0.1 * (rng.standard_normal(pairs) - gap * same)).astype(np.float32)


def cell(distance, far=None, same=SAME):
    return judge(distance, same, fold_of(len(same)), far)


def test_a_cell_of_one_order_is_what_a_sweep_says():
    distance = normal()
    found, wanted = cell(distance[:, None]), kfold(distance, SAME)
    assert found["threshold"] == pytest.approx(wanted.threshold, abs=1e-12)
    assert found["accuracy"] == pytest.approx(wanted.accuracy)
    accepted = wanted.correct == SAME
    assert found["far"] == pytest.approx(accepted[~SAME].mean())
    assert found["frr"] == pytest.approx(1 - accepted[SAME].mean())
    roc = roc_figures(distance, SAME)["far_threshold"]["0.1"]
    assert cell(distance[:, None], 0.1)["threshold"] == roc


def test_far_threshold_is_the_sweep_s_with_ties_too():
    distance = np.sort(np.round(normal(), 2).astype(np.float64))
    same = rng.random(600) < 0.5
    wanted = roc_figures(distance, same)["far_threshold"]["0.1"]
    assert far_threshold(distance, same, 0.1) == wanted
    accepted = (distance < wanted)[~same].mean()
    above = distance[distance > wanted].min() + 1e-9
    assert accepted <= 0.1 < (distance < above)[~same].mean()


def test_rates_are_of_held_out_pairs_by_hand():
    """Each fold by the threshold of the other nine, in plain loops."""
    distance, far = normal()[:, None], 0.1
    fold = fold_of(600)
    wrong = []
    for held_out in range(10):
        train = np.sort(distance[(fold != held_out) & ~SAME, 0])
        threshold = train[int(far * len(train))]  # accepts that many, which lie below it
        part = fold == held_out
        wrong.append((distance[part, 0] < threshold)[~SAME[part]])
    found = cell(distance, far)
    assert found["far"] == pytest.approx(np.concatenate(wrong).mean())


def test_both_orders_count_and_a_pair_once():
    first, second = normal(), normal()
    both = cell(np.stack([first, second], axis=1))
    swapped = cell(np.stack([second, first], axis=1))
    assert both == swapped
    doubled = cell(np.stack([first, first], axis=1))
    single = cell(first[:, None])
    assert doubled == pytest.approx(single, abs=1e-6)  # no narrower: nothing was added


def test_intervals_cover_the_truth():
    """Of 60 draws of pairs the interval of the FAR holds the truth in nearly all."""
    held = 0
    for _ in range(60):
        distance = normal(pairs=400)
        same = np.tile([True, False], 200)
        found = judge(distance[:, None], same, fold_of(400), None)
        # of normal distributions: the share of negatives below the threshold
        truth = 0.5 * (1 + np.vectorize(__import__("math").erf)((found["threshold"] - 0.8) / 0.1 / 2**0.5))  # fmt: skip  # noqa: E501
        held += found["far_low"] <= truth <= found["far_high"]
    assert held >= 48


@pytest.mark.parametrize(("wrong", "pairs"), [(0, 300), (1, 300), (2, 300), (7, 20), (20, 20)])
def test_intervals_are_wilson_s_by_scipy(wrong, pairs):
    wanted = stats.binomtest(wrong, pairs).proportion_ci(method="wilson")
    assert wilson(wrong / pairs, pairs) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_more_errors_give_higher_intervals():
    """Of half pairs too, which are one of two orders."""
    ends = np.array([wilson(halves / 600, 300) for halves in range(601)])
    assert (np.diff(ends, axis=0) > 0).all()
    assert wilson(0.0, 300)[0] == 0.0
    assert wilson(1.0, 300)[1] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("rate", "least"), [(0.01, 0.94), (0.05, 0.94), (0.3, 0.94)])
def test_intervals_hold_rare_rates_as_often_as_they_say(rate, least):
    """Exactly, over every number of errors among 300 pairs."""
    errors = np.arange(301)
    ends = np.array([wilson(k / 300, 300) for k in errors])
    holds = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
    assert stats.binom.pmf(errors, 300, rate)[holds].sum() >= least


def test_no_error_seen_is_not_no_error():
    found = cell(np.where(SAME, 0.1, 0.9).astype(np.float32)[:, None])
    assert (found["accuracy"], found["far"], found["frr"]) == (1, 0, 0)
    beyond = 1.96**2 / (300 + 1.96**2)
    assert found["far_high"] == found["frr_high"] == pytest.approx(beyond, rel=1e-4)
    assert found["far_low"] == 0
    assert found["accuracy_low"] == pytest.approx(600 / (600 + 1.96**2), rel=1e-4)
    one = np.where(SAME, 0.1, 0.9).astype(np.float32)
    one[np.flatnonzero(~SAME)[5]] = 0.2
    seen = cell(one[:, None])
    assert seen["far"] == pytest.approx(1 / 300)
    assert seen["far_high"] > found["far_high"]


def benchmark(name="one", pairs=600):
    return Benchmark(name, np.zeros((1, 2, 2, 3), np.uint8), np.zeros((pairs, 2), np.int32), np.tile([True, False], pairs // 2))  # fmt: skip  # noqa: E501


def test_fars_of_too_few_negatives_are_declined():
    distances = np.stack([normal() for _ in range(4)]).reshape(2, 2, 600)
    found = tabulate([benchmark()], [distances], [0.1, 0.01])
    assert [*found["objectives"]] == [BEST, "0.1"]
    assert found["declined"] == {"0.01": "FAR 0.01 of 300 negatives is 3 pairs, under 10"}
    # those of several benchmarks are taken together
    four = tabulate([benchmark(str(i)) for i in range(4)], [distances] * 4, [0.01])
    assert [*four["objectives"]] == [BEST, "0.01"]
    assert four["negatives"] == 1200


def test_a_table_is_symmetric_and_has_the_spread_of_impostors():
    distances = np.stack([normal() for _ in range(4)]).reshape(2, 2, 600)
    found = tabulate([benchmark()], [distances], [])
    for table in found["objectives"][BEST].values():
        assert np.array(table)[0, 1] == np.array(table)[1, 0]
    both = np.concatenate([distances[0, 1, ~SAME], distances[1, 0, ~SAME]])
    assert found["impostors"]["mean"][0][1] == pytest.approx(both.mean(dtype=float), abs=1e-6)
    assert found["impostors"]["std"][0][1] == pytest.approx(both.std(dtype=float), abs=1e-6)


def table_of(function, resolutions):
    """A calibration whose figures are a function of two resolutions."""
    grid = np.array([[function(a, b) for b in resolutions] for a in resolutions])
    about = {"declined": {"0.001": "too few"}, "model_fingerprint": "f", "model": "m", "step": None}
    about |= {"benchmarks": {"a": {}, "b": {}}, "negatives": 4321, "degradation": "area"}
    tables = {name: dict.fromkeys(FIGURES, grid) for name in (BEST, "0.01")}
    return Calibration(
        __import__("pathlib").Path("c.json"), about, np.array(resolutions, float), tables,
        {"mean": grid, "std": grid},
    )  # fmt: skip


def test_interpolation_is_bilinear_in_logarithms():
    """Exact for a + b log r1 + c log r2 + d log r1 log r2, at and between the resolutions."""

    def function(a, b):
        return 0.2 + 0.1 * np.log(a) + 0.1 * np.log(b) + 0.05 * np.log(a) * np.log(b)

    table = table_of(function, [7, 14, 40, 112])
    for a, b in ((7, 7), (112, 112), (7, 112), (9.3, 60), (13.99, 14.01), (100, 8)):
        assert table.at(a, b).threshold == pytest.approx(function(a, b), abs=1e-12)
        assert table.at(a, b) == table.at(b, a)
    sizes = np.array([8.0, 50.0])
    found = table.interpolate(table.impostors["mean"], 20.0, sizes)
    np.testing.assert_allclose(found, [function(20, 8), function(20, 50)])


def test_outside_of_the_table_nothing_is_decided():
    table = table_of(lambda a, b: 0.5, [7, 56])
    assert decide(table, 0.4, (7, 56)).same is True
    assert decide(table, 0.5, (7, 56)).same is False  # same iff d < t
    said = decision_lines(decide(table, 0.4, (7, 56)))
    assert said[-1] == "measured on a + b (4,321 negatives), area"
    for sizes, words in (
        ((6.9, 20), "6.9 px is outside the calibrated 7..56 px"),
        ((112, 5), "112 px and 5 px are outside"),
        ((112, 112), "112 px is outside"),
    ):
        found = decide(table, 0.4, sizes)
        assert found.same is None
        assert found.threshold is None
        assert words in found.reason


def test_fars_that_were_not_calibrated_are_named():
    table = table_of(lambda a, b: 0.5, [7, 56])
    assert decide(table, 0.4, (7, 7), 0.01).objective == "0.01"
    with pytest.raises(InputError, match=r"FAR 0\.001 \(too few\); calibrate with a larger"):
        decide(table, 0.4, (7, 7), 0.001)
    with pytest.raises(InputError, match=r"calibrated: 0\.01\); calibrate with --fars=0\.1"):
        decide(table, 0.4, (7, 7), 0.1)


def test_where_a_table_lies():
    assert str(table_path("runs/x", 3)) == "runs/x/calibration.json"
    assert str(table_path("a/b.onnx:preset=opencv", None)) == "a/b.onnx.calibration.json"
    assert str(table_path("a/b.stablehlo", None)) == "a/b.stablehlo.calibration.json"
    assert table_path("module:function", None) is None
    assert str(table_path("a.onnx/b.onnx:preset=opencv", None)) == "a.onnx/b.onnx.calibration.json"
    assert str(table_path("a.onnx.d/b.stablehlo", None)) == "a.onnx.d/b.stablehlo.calibration.json"
    assert table_path("a.onnxx", None) is None


def test_the_file_of_a_calibration(tiny):
    path = tiny / "runs/tiny/calibration.json"
    content = json.loads(path.read_text())
    encoder = crfr.load(tiny / "runs/tiny").encoder
    assert content["model_fingerprint"] == encoder.fingerprint
    assert content["step"] == 1
    assert content["resolutions"] == [7, 28, 112]
    assert content["degradation"] == "quantize"
    assert {"fingerprint", "images", "pairs"} == {*content["benchmarks"]["faces:identities=10,images=4"]}  # fmt: skip  # noqa: E501
    assert {"versions", "commit", "command", "time"} <= {*content}
    assert [*content["declined"]] == ["0.01"]
    assert not path.with_name("calibration.json.partial").exists()
    found = read_calibration(path)
    assert {*found.tables} == {BEST, "0.4"}
    before = json.dumps(content)
    parse_calibration(path, content)
    assert json.dumps(content) == before  # the caller's stays whole


def test_damaged_tables_and_those_of_another_model_are_refused(tiny, tmp_path):
    path = tmp_path / "c.json"
    content = json.loads((tiny / "runs/tiny/calibration.json").read_text())
    rows = content["objectives"][BEST]["threshold"]
    for change in (
        "{",
        "[]",
        {"schema": 9},
        {"resolutions": [7, 28]},
        {"resolutions": [28, 7, 112]},
        {"impostors": {}},
        {"objectives": {}},
        {"resolutions": [0, 28, 112]},
        {"resolutions": [-7, 28, 112]},
        {"resolutions": [0.5, 28, 112]},
        {"resolutions": [7, 28, float("inf")]},
        {"resolutions": [[7], [28], [112]]},
        {"negatives": "many"},
        {"declined": ["0.01"]},
        {"declined": None},
        {"benchmarks": 7},
        {"benchmarks": ["lfw"]},
        {"impostors": content["impostors"] | {"std": [[0.1, 0.1, 0.1]] * 2 + [[0.1, 0.1, 0.0]]}},
        {"impostors": content["impostors"] | {"std": [[-0.1] * 3] * 3}},
        {"objectives": {BEST: content["objectives"][BEST] | {"far": [[None] * 3] * 3}}},
        {"objectives": {BEST: content["objectives"][BEST] | {"threshold": rows[:2]}}},
    ):
        path.write_text(change if isinstance(change, str) else json.dumps(content | change))
        with pytest.raises(InputError, match=r"c\.json: .*make it again with crfr calibrate"):
            read_calibration(path)
    model = crfr.load(tiny / "runs/tiny", calibration=path)
    path.write_text(json.dumps(content | {"model_fingerprint": "other"}))
    with pytest.raises(
        InputError, match=r"has the thresholds of another model .*@1, fingerprint other"
    ):
        model.calibration  # noqa: B018
    absent = dataclasses.replace(model, table=tmp_path / "no.json")
    with pytest.raises(InputError, match=r"has no thresholds .*make them with crfr calibrate"):
        absent.calibration  # noqa: B018


def test_calibrate_goes_on_and_refuses_embeddings_of_something_else(
    tiny, tmp_path, monkeypatch, capsys
):
    """A kill between the embeddings and the table leaves what the next call begins with."""
    from crfr.use import calibrate

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny / "runs/tiny", "run")
    before = json.loads((tmp_path / "run/calibration.json").read_text())

    def stop(*_):
        raise KeyboardInterrupt

    words = ["calibrate", "--model=run", "--benchmark=faces:identities=10,images=4", "--batch=8"]
    words += ["--resolutions=7,28,112", "--fars=0.4,0.01"]
    with monkeypatch.context() as patch:
        patch.setattr(calibrate, "tabulate", stop)
        with pytest.raises(KeyboardInterrupt):
            main.run(words)
    kept = tmp_path / "run/calibration.json.partial"
    assert kept.is_dir()
    with pytest.raises(InputError, match="degradation='quantize', not 'area'"):
        main.run([*words, "--degradation=area"])
    with monkeypatch.context() as patch:
        patch.setattr(calibrate, "embed_missing", lambda e, b, missing, *_, **k: [
            pytest.fail("embeds again") for part in missing for w in part.values() if w.size
        ])  # fmt: skip
        main.run(words)
    assert not kept.exists()
    assert "replaces" not in capsys.readouterr().out  # its own
    after = json.loads((tmp_path / "run/calibration.json").read_text())
    assert after["objectives"] == before["objectives"]
    path = tmp_path / "run/calibration.json"
    path.write_text(json.dumps(after | {"model_fingerprint": "other", "step": 7}))
    main.run(words)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "run/calibration.json: replaces the thresholds of run@7, fingerprint other"


CALIBRATE = ["calibrate", "--benchmark=faces:identities=10,images=4", "--resolutions=7,112"]
COLLAPSED = """import numpy as np

def embed(images):
    noise = np.random.default_rng(0).standard_normal((len(images), 16))
    return np.ones((len(images), 16), np.float32) + images.std((1, 2, 3))[:, None] * noise * {noise}
"""


@pytest.mark.parametrize("noise", [0, 1e-8])
def test_a_collapsed_model_is_told_and_nothing_is_written(noise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"collapsed_{len(str(noise))}"
    (tmp_path / f"{name}.py").write_text(COLLAPSED.format(noise=noise))
    with pytest.raises(InputError, match="7 and 7 px are all alike: there the model, which has c"):
        main.run([*CALIBRATE, f"--model={name}:embed", "--out=thresholds.json"])
    assert not [*tmp_path.glob("thresholds*")]


def test_one_pair_of_two_people_is_no_spread(tiny, tmp_path, monkeypatch):
    whole = load_benchmark("faces:identities=5,images=4")
    kept = whole.same.copy()
    kept[np.flatnonzero(~whole.same)[0]] = True
    few = dataclasses.replace(whole, pairs=whole.pairs[kept], same=whole.same[kept])
    monkeypatch.setattr("crfr.apply.load_benchmarks", lambda *_: [few])
    out = tmp_path / "thresholds.json"
    with pytest.raises(InputError, match="one pair of two people has no spread of distances; give"):
        main.run([*CALIBRATE, f"--model={tiny}/runs/tiny", f"--out={out}"])
    assert not [*tmp_path.iterdir()]


def test_a_place_that_cannot_be_written_is_told_before_the_work(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("crfr.apply.load_benchmarks", None)  # a call would fail
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"--out=.*folder: is a folder; name the file in it"):
        main.run([*CALIBRATE, f"--model={tiny}/runs/tiny", f"--out={tmp_path}/folder"])
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_in_the_place_beside_the_model_is_told_before_the_work(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr("crfr.apply.measure_thresholds", None)
    shutil.copytree(tiny / "runs/tiny", tmp_path / "run")
    (tmp_path / "run/calibration.json").unlink()
    (tmp_path / "run/calibration.json").mkdir()
    with pytest.raises(InputError, match=r"calibration\.json: is a folder"):
        main.run([*CALIBRATE, f"--model={tmp_path}/run"])
    assert not [*tmp_path.glob("run/*.partial")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("calibrate --model=x", "--benchmark is missing"),
        ("calibrate --model=x --benchmark=faces --fars=2", "'2' is no share between 0 and 1"),
        ("calibrate --model=x --benchmark=faces --fars=a", "'a' is no share between 0 and 1"),
        ("calibrate --model=x --benchmark=faces --resolutions=7", "give two or more"),
        ("calibrate --model=x --benchmark=faces --resolutions=0,7", "outside 1..112"),
        ("calibrate --model=x --benchmark=faces --degradation=quantise", "mean 'quantize'"),
        ("verify --model=x a.png", "B is missing: crfr verify --flag=value ... A B; see"),
        ("verify --model=x", "A is missing"),
        ("verify a.png b.png", "--model is missing"),
        ("verify a.png b.png c.png --model=x", "unexpected argument 'c.png'; it takes A B and"),
        ("verify a.png b.png --modle=x", "Unknown command line flag 'modle'. Did you mean: model"),
        ("verify a.png --far=1 b.png --model=x", "'1' is no share between 0 and 1"),
        ("sweep x", "unexpected argument 'x'; flags are --name=value"),
        ("embed --model=x --out=y.npz", "DIR is missing"),
        ("search --model=x query.jpg", "INDEX is missing"),
        ("verfy", "did you mean 'verify'"),
    ],
)
def test_wrong_command_lines(words, message):
    with pytest.raises(InputError) as refusal:
        main.run(words.split())
    assert message in str(refusal.value)


def test_verify_says_how_sure_it_is(tiny, tmp_path, capsys, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name, side in (("a.png", 20), ("b.png", 112), ("tiny.png", 5)):
        noise = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(name)
    run = f"--model={tiny}/runs/tiny"
    model = crfr.load(tiny / "runs/tiny")
    decision = model.verify("a.png", "b.png")
    point = model.calibration.at(20, 112)
    assert decision.threshold == point.threshold
    assert decision.same is (decision.distance < point.threshold)

    def call(*words):
        try:
            main.run(["verify", *words])
            return 0
        except SystemExit as leave:
            return leave.code

    code = call("a.png", run, "b.png")
    assert code == (0 if decision.same else 3)
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["a.png   20 px", "b.png   112 px"]
    assert said[2] == f"distance   {decision.distance:.4f}"
    assert said[3] == f"threshold  {point.threshold:.4f}   best accuracy"
    assert said[4] == f"decision   {'same' if decision.same else 'different'}"
    assert said[6].startswith(f"FAR        {100 * point.far.value:.2f} %")
    assert call("a.png", "a.png", run, "--json", "--far=0.4") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["same"] is True
    assert record["objective"] == "0.4"
    assert record["resolution"] == [20, 20]
    assert record["faces"] == ["a.png", "a.png"]
    assert len(record["far"]) == 3
    assert record["benchmarks"] == ["faces:identities=10,images=4"]
    assert (record["negatives"], record["degradation"]) == (40, "quantize")
    assert said[8:] == [f"measured on {record['benchmarks'][0]} (40 negatives), quantize"]
    assert call("a.png", "tiny.png", run) == 4
    assert "declined: 5 px is outside the calibrated 7..112 px" in capsys.readouterr().out
    assert call("a.png", "tiny.png", run, "--json") == 4
    record = json.loads(capsys.readouterr().out)
    assert record["reason"] == "5 px is outside the calibrated 7..112 px"
    assert record["distance"] == pytest.approx(model.distance("a.png", "tiny.png"), abs=1e-6)
    assert (record["faces"], record["resolution"]) == (["a.png", "tiny.png"], [20, 5])
    for name in ("same", "threshold", "accuracy", "far", "frr"):
        assert record[name] is None
    assert call("--help") == 0
    assert "4  declined" in capsys.readouterr().out
