"""What a report refuses: damaged sweeps, and numbers that do not belong together."""

import json
from pathlib import Path

import numpy as np
import pytest
from report_page import report_page
from sweeps import RESOLUTIONS, write_analysis, write_lines, write_sweep

from crfr.errors import InputError
from crfr.report import models
from crfr.report.page import write_report

SMALL = {"pairs": 60, "samples": False, "resolutions": (7, 28, 112)}


def change_line(path: Path, number: int, **changes) -> None:
    """Changes keys of a line of a JSON-lines file, counted from 1; "gone" takes the key away."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[number - 1] |= changes
    records[number - 1] = {k: v for k, v in records[number - 1].items() if v != "gone"}
    write_lines(path, records)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("template") / "a", matrix=True, **SMALL)


@pytest.fixture
def sweep(template, tmp_path) -> Path:
    """A directory to damage; its first four rows are CR_A, CR_B, ER and CR at 112 px."""
    target = tmp_path / "a"
    for file in template.rglob("*.*"):
        copy = target / file.relative_to(template)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return target


def refused(sweep: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        models.read_report([sweep])
    assert "\n" not in str(caught.value)
    assert str(sweep) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1}, r"rows\.jsonl line 3: schema 1, but this crfr reads 2"),
        ({"schema": "gone"}, r"line 3: schema None"),
        ({"threshold": "gone"}, r"line 3: no threshold: "),
        ({"threshold": None}, r"line 3: threshold is None"),
        ({"accuracy": float("nan")}, r"line 3: accuracy is nan, not a finite number"),
        ({"negative_distance": float("inf")}, r"line 3: negative_distance is inf"),
        ({"accuracy": 97.3}, r"line 3: 97\.3 among accuracy, TAR, EER, AUC, no fraction"),
        ({"tar": {"0.1": 1}}, r"line 3: tar at \['0\.1'\], not at"),
        ({"tar": [1]}, r"line 3: tar is \[1\], not dict"),
        ({"accuracy": "0.9"}, r"line 3: accuracy is '0\.9', not float"),
        ({"accuracy": True}, r"line 3: accuracy is True, not float"),
        ({"resolution": 7.5}, r"line 3: resolution is 7\.5, not int"),
        ({"resolution": 0}, r"line 3: resolution 0"),
        ({"resolution": None}, r"line 3: ER with resolution None"),
        ({"drawn": "seeded"}, r"line 3: ER with drawn 'seeded'"),
        ({"scenario": "low_res"}, r"line 3: low_res with resolution 112"),
        ({"pairs": True}, r"line 3: pairs is True, not int"),
        ({"flip": 0}, r"line 3: flip is 0, not bool"),
        ({"scenario": "CRA"}, r"line 3: unknown scenario 'CRA': did you mean 'CR"),
        ({"average_of": ["lfw"]}, r"line 3: benchmark 'lfw' with average_of \['lfw'\]"),
        ({"benchmark": "average"}, r"line 3: benchmark 'average' with average_of None"),
        ({"benchmark": "cfp_fp"}, r"sweep\.json: no fingerprint of 'cfp_fp'"),
        ({"model": "runs/other"}, r"more than one model: 'runs/baseline', 'runs/other'"),
        ({"scenario": "CR_A"}, r"line 3: the same benchmark, .* as in line 1: delete one"),
    ],
)
def test_bad_rows(sweep, changes, message):
    change_line(sweep / "rows.jsonl", 3, **changes)  # ER at 112 px
    refused(sweep, message)


def test_damaged_files(sweep):
    rows = (sweep / "rows.jsonl").read_bytes()
    about = (sweep / "sweep.json").read_bytes()
    log = (sweep / "metrics.jsonl").read_bytes()
    lines = rows.splitlines(keepends=True)
    torn = b"".join(lines[:4]) + lines[4][:40]
    changed = json.loads(about)
    for name, content, message in [
        ("rows.jsonl", torn, r"rows\.jsonl line 5: not JSON"),
        ("rows.jsonl", b"[1]\n" + rows, r"rows\.jsonl line 1: not a JSON object"),
        ("rows.jsonl", rows + b"\xff\n", r"rows\.jsonl: not UTF-8"),
        ("rows.jsonl", b"\n", r"rows\.jsonl is empty"),
        ("sweep.json", about[:-3], r"sweep\.json: not JSON"),
        ("sweep.json", b"[]", r"sweep\.json: not a JSON object"),
        ("sweep.json", json.dumps(changed | {"schema": 7}).encode(), "schema 7"),
        ("sweep.json", json.dumps(changed | {"step": 1}).encode(), "more than one step"),
        ("sweep.json", json.dumps(changed | {"training": []}).encode(), r"training is \[\]"),
        ("sweep.json", json.dumps(changed | {"calls": "x"}).encode(), "calls is 'x'"),
        ("sweep.json", json.dumps(changed | {"calls": [{}]}).encode(), r"calls hold \{\}"),
        ("sweep.json", json.dumps(changed | {"calls": []}).encode(), "calls hold None"),
        ("sweep.json", json.dumps(changed | {"benchmarks": {}}).encode(), "no fingerprint"),
        ("sweep.json", json.dumps({"schema": 2}).encode(), "no model, method"),
        ("metrics.jsonl", log + b'{"step"', r"metrics\.jsonl line \d+: not JSON"),
        ("metrics.jsonl", b'{"loss": 1}', r"metrics\.jsonl line 1: step is None"),
    ]:
        whole = (sweep / name).read_bytes()
        (sweep / name).write_bytes(content)
        refused(sweep, message)
        (sweep / name).write_bytes(whole)
    for name, remedy in (
        ("rows.jsonl", "of a matrix alone, sweep --scenarios=CR,ER too"),
        ("sweep.json", "give --sweep what"),
    ):
        whole = (sweep / name).read_bytes()
        (sweep / name).unlink()
        refused(sweep, rf"{name} is missing \(unfinished\): .*{remedy}")
        (sweep / name).write_bytes(whole)
    with pytest.raises(InputError, match="no such directory"):
        models.read_report([sweep.parent / "none"])
    with pytest.raises(InputError, match="no sweep directory"):
        models.read_report([])
    models.read_report([sweep])


def change_arrays(path: Path, **changes) -> None:
    with np.load(path) as file:
        arrays = dict(file.items())
    arrays |= changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"same": None}, "no array same"),
        (lambda a: {"ER": None}, "no distances of 60 pairs, ER at 112 px"),
        (
            lambda a: {"CR_A": a["CR_A"][:, :-1]},
            r"CR_A is float32 \[3, 59\], not numbers \[3, 60\]",
        ),
        (lambda a: {"CR_A": a["CR_A"].astype(str)}, r"CR_A is <U\d+ \[3, 60\], not numbers"),
        (lambda a: {"CR_A": a["CR_A"] + 2}, r"CR_A from 2\..* not within -0\.0001 to 2\.0001"),
        (lambda a: {"CR_A": a["CR_A"] - 2}, r"CR_A from -"),
        (
            lambda a: {"ER": np.where(a["same"], np.nan, a["ER"])},
            "no distances of 60 pairs, ER at 112",
        ),
        (lambda a: {"ER": a["ER"] + 0.01}, "ER at 112 px has other mean distances than rows"),
        (lambda a: {"ER": a["ER"] * [[1], [np.nan], [1]]}, "no distances of 60 pairs, ER at 28 px"),
        (lambda a: {"resolutions": np.array([7, 28, 112])}, "do not fall"),
        (lambda a: {"resolutions": np.array([112, 28, 0])}, "resolutions from 0"),
        (lambda a: {"same": np.ones(60, bool)}, "all pairs are of one kind"),
        (lambda a: {"same": np.full(60, 2)}, "same from 2"),
    ],
)
def test_damaged_distances(sweep, change, message):
    path = sweep / "pairs" / "lfw.npz"
    with np.load(path) as file:
        change_arrays(path, **change(dict(file.items())))
    refused(sweep, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"accuracy": None}, "no array accuracy"),
        (lambda a: {"accuracy": a["accuracy"][:2]}, r"accuracy is float64 \[2, 3\]"),
        (lambda a: {"accuracy": a["accuracy"] * 100}, "accuracy from .* not within 0 to 1"),
        (lambda a: {"threshold": a["threshold"] * np.nan}, "threshold from nan"),
    ],
)
def test_damaged_matrices(sweep, change, message):
    path = sweep / "matrix" / "lfw-exact.npz"
    with np.load(path) as file:
        change_arrays(path, **change(dict(file.items())))
    refused(sweep, message)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_files_that_are_no_arrays(sweep, content):
    for name in ("pairs/lfw.npz", "matrix/lfw-exact.npz"):
        whole = (sweep / name).read_bytes()
        for damaged in (content, whole[: len(whole) // 2]):
            (sweep / name).write_bytes(damaged)
            refused(sweep, rf"{name}: damaged \(")
        (sweep / name).write_bytes(whole)


def test_a_file_of_pickles_is_not_loaded(sweep):
    np.savez(sweep / "pairs/lfw.npz", same=np.array([{}], object), resolutions=np.array([112]))
    refused(sweep, r"pairs/lfw\.npz: damaged \(")


def test_damaged_samples(tmp_path):
    path = write_sweep(tmp_path / "a", resolutions=(7, 112), pairs=60)
    folder = path / "samples" / "lfw"
    whole = (folder / "pairs.json").read_bytes()
    (folder / "pairs.json").write_text("[{}]")
    refused(path, r"pairs\.json: damaged")
    listed = json.loads(whole)
    listed[0]["pair"] = 11  # of two people
    (folder / "pairs.json").write_text(json.dumps(listed))
    with pytest.raises(InputError, match="sample pair 11 of 'lfw' is not that of the distances"):
        write_report([path], tmp_path / "r.html")
    (folder / "pairs.json").write_text(json.dumps(json.loads(whole) * 2))
    with pytest.raises(InputError, match=r"112\.png: 896 x 112 px, too small for 8 pairs"):
        write_report([path], tmp_path / "r.html")
    (folder / "pairs.json").write_bytes(whole)
    (folder / "7.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"7\.png: no readable image"):
        write_report([path], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    assert not (tmp_path / "r_files").exists()


@pytest.mark.parametrize("name", ["degradation", "flip"])
def test_numbers_measured_in_different_ways_are_kept_apart(tmp_path, name):
    other = {"flip": True}.get(name, "other")
    a = write_sweep(tmp_path / "a", "baseline", **SMALL)
    b = write_sweep(tmp_path / "b", "bt-m", changes={name: other}, **SMALL)
    with pytest.raises(InputError) as caught:
        write_report([a, b], tmp_path / "report.html")
    message = str(caught.value)
    assert name in message
    assert f" in {a}" in message
    assert f"{other!r} in {b}" in message
    assert "\n" not in message
    assert not (tmp_path / "report.html").exists()


def test_precision_and_pixels_may_differ_and_are_said(tmp_path):
    a = write_sweep(tmp_path / "a", "baseline", **SMALL)
    b = write_sweep(tmp_path / "b", "onnx", changes={"pixels": "uint8"}, **SMALL)
    page = report_page(tmp_path, [a, b])
    facts = next(text for text in page.texts["p"] if "pairs ·" in text)
    assert "precision differs: float32 (baseline); model (sface)" in facts
    assert "pixels differs: float32 (baseline); uint8 (sface)" in facts


def test_other_numbers_of_pairs_are_kept_apart(tmp_path):
    a = write_sweep(tmp_path / "a", "baseline", **SMALL)
    b = write_sweep(tmp_path / "b", "bt-m", **(SMALL | {"pairs": 80}))
    with pytest.raises(InputError, match="differ in number of pairs of 'lfw'"):
        models.read_report([a, b])


def test_pairs_that_differ_are_kept_apart(tmp_path):
    a = write_sweep(tmp_path / "a", "baseline", **SMALL)
    b = write_sweep(tmp_path / "b", "bt-m", **SMALL)
    path = b / "pairs" / "lfw.npz"
    with np.load(path) as file:
        arrays = dict(file.items())
    turned = {name: arrays[name][:, ::-1] for name in ("CR_A", "CR_B", "ER")}
    change_arrays(path, same=arrays["same"][::-1], **turned)
    with pytest.raises(InputError, match="pairs of 'lfw' differ between sweeps"):
        models.read_report([a, b])


def test_two_models_or_benchmarks_of_one_name_are_kept_apart(tmp_path):
    a = write_sweep(tmp_path / "a", **SMALL)
    b = write_sweep(tmp_path / "b", model_fingerprint="other", **SMALL)
    with pytest.raises(InputError, match=r"fingerprint of model 'runs/baseline', step"):
        models.read_report([a, b])
    benchmarks = {"lfw": {"fingerprint": "fedcba", "images": 1, "pairs": 60}}
    c = write_sweep(tmp_path / "c", "bt-m", **SMALL)
    about = json.loads((c / "sweep.json").read_text()) | {"benchmarks": benchmarks}
    (c / "sweep.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"differ in fingerprint of benchmark 'lfw': '0123.*fed"):
        models.read_report([a, c])


def test_averages_over_other_benchmarks_are_kept_apart(tmp_path):
    a = write_sweep(tmp_path / "a", benchmarks=("lfw", "cfp_fp"), **SMALL)
    b = write_sweep(tmp_path / "b", "bt-m", benchmarks=("lfw", "calfw"), **SMALL)
    with pytest.raises(InputError, match=r"benchmarks of 'average': 'cfp_fp, lfw' in .*calfw, lfw"):
        models.read_report([a, b])


def test_sweeps_of_one_model_are_one_model(tmp_path):
    lfw = write_sweep(tmp_path / "a", **SMALL)
    again = write_sweep(tmp_path / "b", **SMALL)  # the same rows
    cfp = write_sweep(tmp_path / "c", benchmarks=("cfp_fp",), **SMALL)
    report = models.read_report([lfw, again, cfp])
    assert report.benchmarks == ("lfw", "cfp_fp")
    assert [model.label for model in report.models] == ["baseline"]
    page = report_page(tmp_path, [lfw, again, cfp])
    assert page.texts["h2"][:3] == ["lfw", "cfp_fp", "All benchmarks"]
    assert page.texts["h3"][-3:] == ["baseline"] * 3  # each sweep has its card
    other = write_sweep(tmp_path / "d", seed=1, **SMALL)
    with pytest.raises(InputError, match=r"at 112 is there twice with different values"):
        models.read_report([lfw, other])


def test_the_mode_of_thresholds_is_chosen(tmp_path):
    all_three = write_sweep(tmp_path / "a", modes=("exact", "insightface", "knoche"), **SMALL)
    exact = write_sweep(tmp_path / "b", "bt-m", modes=("exact",), **SMALL)
    knoche = write_sweep(tmp_path / "c", "st-m1", modes=("knoche",), **SMALL)
    both = write_sweep(tmp_path / "d", "st-7", modes=("insightface", "knoche"), **SMALL)

    def mode(*dirs: Path, thresholds: str | None = None) -> str:
        return models.read_report(list(dirs), thresholds=thresholds).thresholds

    assert mode(all_three) == "exact"
    assert mode(all_three, exact) == "exact"
    assert mode(knoche) == "knoche"
    assert mode(all_three, knoche, both, thresholds="knoche") == "knoche"
    with pytest.raises(InputError, match=rf"{knoche}: no rows of thresholds 'exact', only of kno"):
        mode(all_three, knoche)
    with pytest.raises(InputError, match="insightface, knoche: choose with --thresholds"):
        mode(both)
    with pytest.raises(InputError, match="no rows of thresholds 'exakt'"):
        mode(exact, thresholds="exakt")


def test_a_dataset_analysis_that_does_not_belong_is_refused(tmp_path, template):
    data = write_analysis(tmp_path / "data")
    whole = json.loads((data / "dataset.json").read_text())
    lfw = whole["benchmarks"]["lfw"]

    def content(**changes) -> dict:
        return whole | {"benchmarks": {"lfw": lfw | changes}}

    for about, message in [
        (whole | {"schema": 2}, "schema 2, but this crfr reads 1"),
        (whole | {"degradation": "area"}, "degradation 'area', but the sweeps have 'bicubic'"),
        (whole | {"resolutions": "7"}, "resolutions is '7'"),
        (content(fingerprint="other"), "'lfw' has other images than the sweeps'"),
        (content(mean_absolute_difference={}), "'lfw' is damaged"),
        (content(mean_absolute_difference={str(r): 1e999 for r in (7, 14, 28, 56)}), "not finite"),
    ]:
        (data / "dataset.json").write_text(json.dumps(about))
        with pytest.raises(InputError, match=message):
            models.read_report([template], data)
    (data / "dataset.json").write_text(json.dumps(whole))
    (data / "lfw" / "mean.png").unlink()
    with pytest.raises(InputError, match=r"mean\.png is missing: run `crfr dataset` again"):
        write_report([template], tmp_path / "r.html", dataset=data)
    with pytest.raises(InputError, match=r"dataset\.json is missing: give --dataset what"):
        models.read_report([template], tmp_path)


def test_the_template_is_sound(sweep):
    models.read_report([sweep])
    assert RESOLUTIONS[0] == 5


def test_protocols_of_other_draws_do_not_stand_in_one_report(tmp_path):
    first = write_sweep(tmp_path / "a", protocols={"seeded": 2}, **SMALL)
    other = write_sweep(tmp_path / "b", protocols={"seeded": 2}, **(SMALL | {"method": "bt-m"}))
    models.read_report([first, other])
    lines = (other / "rows.jsonl").read_text().replace('"source": "seed 0"', '"source": "seed 1"')
    (other / "rows.jsonl").write_text(lines)
    with pytest.raises(InputError, match="sweeps differ in resolutions of 'lfw', low_res, seeded"):
        models.read_report([first, other])
