"""Trainings that differ only in their seed are one model of a report."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from known_sweeps import config_of, write_known, wrong_pairs
from report_page import Page, report_page
from sweeps import write_lines, write_sweep

from crfr.report import differences, figures, models, tables, training
from crfr.report.drawing import styles

# shares of wrong pairs by resolution
BASELINE = ({7: 0.40, 112: 0.02}, {7: 0.35, 112: 0.02}, {7: 0.45, 112: 0.02})
ST_M1 = ({7: 0.10, 112: 0.05}, {7: 0.10, 112: 0.06}, {7: 0.10, 112: 0.04})


@pytest.fixture(scope="module")
def dirs(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("seeds")
    found = [write_known(root, "baseline", s, w) for s, w in enumerate(BASELINE)]
    found += [write_known(root, "st-m1", s, w) for s, w in enumerate(ST_M1)]
    found += [write_known(root, "bt-7", 1, {7: 0.08, 112: 0.03})]
    options = {"resolutions": (7, 112), "pairs": 400, "samples": False}
    return [*found[::-1], write_sweep(root / "onnx", "onnx", **options)]


@pytest.fixture(scope="module")
def report(dirs) -> models.Report:
    return models.read_report(dirs)


@pytest.fixture(scope="module")
def written(dirs, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("page")
    report_page(root, dirs)
    return root / "report.html"


@pytest.fixture(scope="module")
def page(written) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def labels(dirs: list[Path]) -> list[str]:
    return [model.legend for model in models.read_report(dirs).models]


def test_seeds_of_one_recipe_are_one_model(report):
    assert [m.legend for m in report.models] == [
        *("baseline, 3 seeds", "BT-7", "ST-M1, 3 seeds", "sface")
    ]
    assert [run.label for run in report.models[0].runs] == [f"baseline, seed {s}" for s in range(3)]
    assert [run.seed for run in report.models[0].runs] == [0, 1, 2]  # whatever the order given
    assert report.models[1].singles == (report.models[1],)
    assert report.models[2].one is report.models[2].runs[0]
    assert report.reference is report.models[0]


def test_other_recipes_steps_and_equal_seeds_are_apart(tmp_path):
    wrong = {7: 0.1, 112: 0.0}
    first = write_known(tmp_path / "a", "bt-m", 0, wrong)
    other = config_of("bt-m", 1, batch=64)
    other = write_known(tmp_path / "b", "bt-m", 1, wrong, config=other)
    assert labels([first, other]) == ["BT-M (bt-m-seed-0)", "BT-M (bt-m-seed-1)"]
    # another key of `run` is no other recipe: write_known gives each seed its own
    second = write_known(tmp_path / "c", "bt-m", 1, wrong)
    assert labels([first, second]) == ["BT-M, 2 seeds"]
    names = ["BT-M (bt-m-seed-1 and 1 more), 2 seeds", "BT-M (bt-m-seed-7)"]
    apart = write_known(tmp_path / "d", "bt-m", 7, wrong, config=config_of("bt-m", 7, batch=64))
    third = write_known(tmp_path / "e", "bt-m", 2, wrong)
    assert labels([second, third, apart]) == names
    same = {"model": "runs/again"}
    again = write_known(tmp_path / "f", "bt-m", 1, wrong, changes=same)
    assert labels([second, again, third]) == [
        *("BT-M (bt-m-seed-1)", "BT-M (again)", "BT-M (bt-m-seed-2)")
    ]
    earlier = {"model": "runs/bt-m-seed-2", "step": 1000}
    earlier = write_known(tmp_path / "g", "bt-m", 2, wrong, changes=earlier)
    assert labels([first, earlier]) == ["BT-M (bt-m-seed-2)", "BT-M (bt-m-seed-0)"]
    unknown = write_known(tmp_path / "h", "bt-m", 3, wrong, config={"method": "bt-m"})
    assert labels([unknown, first]) == ["BT-M (bt-m-seed-3)", "BT-M (bt-m-seed-0)"]


def test_rows_are_means_with_sample_standard_deviations(report):
    row = report.models[0].cells["lfw", "CR", 7]
    assert row.accuracy == pytest.approx(0.60)
    assert row.seeds == 3
    assert row.std["accuracy"] == pytest.approx(0.05)  # of 0.60, 0.65, 0.55, n - 1
    # wrong pairs are 0.9 apart, half of all pairs are of one person
    positive = [0.2 + 0.7 * 2 * share for share in (0.40, 0.35, 0.45)]
    assert row.positive_distance == pytest.approx(np.mean(positive))
    assert row.std["positive_distance"] == pytest.approx(0.07)
    assert row.negative_distance == pytest.approx(0.8)
    assert row.std["negative_distance"] == pytest.approx(0, abs=1e-7)
    assert row.threshold == pytest.approx(0.5)
    assert row.tar["0.01"] is None  # of one seed: of the mean
    # t s / sqrt(3) = 0.1242 beside the seeds' intervals over pairs, 1.96 sqrt(p (1 - p) / 400)
    over_pairs = np.mean([1.96 * math.sqrt(a * (1 - a) / 400) for a in (0.60, 0.65, 0.55)])
    half = math.hypot(0.1242069, over_pairs)
    assert row.accuracy_low == pytest.approx(0.60 - half, abs=1e-6)
    assert row.accuracy_high == pytest.approx(0.60 + half, abs=1e-6)
    assert report.models[1].cells["lfw", "CR", 7].std is None


def test_tables_have_the_mean_and_the_spread(page, report):
    accuracy = page.table("CR accuracy on lfw")
    assert accuracy[1] == ["baseline 3 seeds", "60.00 ± 5.00", "98.00 ± 0.00"]
    assert accuracy[2][0] == "BT-7"
    assert re.fullmatch(r"92\.00 89\.34–94\.66", accuracy[2][1])
    assert accuracy[3] == ["ST-M1 3 seeds", "90.00 ± 0.00", "95.00 ± 1.00"]
    thresholds = page.table("CR thresholds on lfw")
    assert thresholds[1][1] == "0.500 ± 0.000 0.760 ± 0.070 | 0.800 ± 0.000"
    ours = next(row for row in page.table("Table 2") if row[:2] == ["ST-M1", "ours 3 seeds"])
    assert ours[2] == "95.00 ± 1.00"
    gap = page.table("Table 2")[page.table("Table 2").index(ours) + 1]
    assert gap[2] == "-2.40"  # 95.00 - 97.40
    rates = page.table("CR error rates on lfw")
    assert [row[0] for row in rates[1:3]] == ["baseline 3 seeds", "baseline"]
    assert rates[2][6] == "40.00 ± 5.00"
    assert "Numbers are means over training seeds of baseline (3) and ST-M1 (3)." in page.texts["p"]
    facts = next(text for text in page.texts["p"] if "pairs ·" in text)
    assert "mean over 3 seeds: baseline, ST-M1" in facts
    assert "Seeds, ±" in page.texts["dt"]
    assert "baseline, 3 seeds" in [text.strip() for text in page.texts["li"]]
    assert tables.summary_table([s.path for s in report.sweeps]).splitlines()[2].split() == [
        *("baseline,", "3", "seeds", "60.00", "98.00")
    ]


def test_every_training_stays_reachable(written, page):
    with (written.with_name("report_files") / "rows.csv").open(newline="") as file:
        lines = [row for row in csv.DictReader(file) if row["scenario"] == "CR"]
    at_7 = [row for row in lines if row["resolution"] == "7" and row["label"] == "baseline"]
    assert [(row["seed"], float(row["accuracy"])) for row in at_7] == [
        *(("0", 0.6), ("1", 0.65), ("2", 0.55))
    ]
    assert {row["seed"] for row in lines if row["label"] == "sface"} == {""}
    cards = page.texts["h3"][-8:]
    assert set(cards) == {
        *(f"baseline, seed {s}" for s in range(3)),
        *(f"ST-M1, seed {s}" for s in range(3)),
        *("BT-7", "sface"),
    }
    table = (written.with_name("report_files") / "tables/accuracy-CR-lfw.csv").read_text()
    head, first, *_ = csv.reader(table.splitlines())
    assert head[1] == "model: seeds"
    assert first[:4] == ["baseline", "3 seeds", "60.00", "± 5.00"]


def test_distributions_are_of_one_named_seed(page):
    panels = page.texts["h4"]
    assert {"baseline, seed 0, CR", "baseline, seed 0, ER", "BT-7, CR"} <= set(panels)
    assert "baseline, seed 1, CR" not in panels
    captions = [text for text in page.texts["figcaption"] if "as named" in text]
    assert len(captions) == 1  # of the distributions; there is no matrix


def test_figures_have_bands_of_the_spread(report):
    rows = report.models[0].curve("lfw", "CR")
    band = figures.accuracy_curve(rows, "#000000", "o", equal=False).band
    assert band[7] == pytest.approx((55, 65))
    single = report.models[1].curve("lfw", "CR")
    band = figures.accuracy_curve(single, "#000000", "o", equal=False).band
    assert band[7] == pytest.approx((89.34, 94.66), abs=0.01)


def test_a_seed_that_lacks_a_resolution_is_said(tmp_path):
    dirs = [write_known(tmp_path, "bt-m", s, {7: 0.1 + s / 10, 112: 0.0}) for s in (0, 1)]
    dirs += [write_known(tmp_path, "bt-m", 2, {112: 0.0})]
    report = models.read_report(dirs)
    table = tables.accuracy_table(report, "lfw", "CR")
    assert table.rows[0][1][:2] == ("85.00", "± 7.07; 2 seeds")
    assert table.rows[0][2][:2] == ("100.00", "± 0.00")


def test_training_curves_are_thin_for_seeds_and_bold_for_their_mean(tmp_path):
    dirs = [write_known(tmp_path, "bt-m", s, {7: 0.1, 112: 0.0}) for s in (0, 1)]
    logs = [
        [
            {"step": s, "epoch": s / 4, "loss": 2.0 + k + s, "images_per_second": 50.0 / (1 + k)}
            for s in range(1, 9)
        ]
        for k in (0, 1)
    ]
    logs[1][3]["loss"] = float("nan")
    for path, log in zip(dirs, logs, strict=True):
        write_lines(path / "metrics.jsonl", log)
    report = models.read_report(dirs)
    drawn = training.training_figures(list(report.models), styles(report.models))
    svg = {drawing.title: drawing.svg for drawing in drawn}["Loss"]
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg, re.DOTALL)
    curves = [(d, s) for d, s in paths if "stroke: var(--c1" in s and d.count(" ") > 10]
    assert ["stroke-opacity: 0.5" in s for _, s in curves] == [True, True, False]
    assert [d.count("M") for d, _ in curves] == [1, 2, 2]  # the mean has the gap of the seed
    ys = [[float(y) for y in re.findall(r"[ML] \S+ (\S+)", d)] for d, _ in curves]
    np.testing.assert_allclose(ys[2], np.mean([ys[0][:3] + ys[0][4:], ys[1]], axis=0), atol=0.02)
    # 4 and 8 seconds an epoch
    assert training.epoch_seconds(report.models[0]) == pytest.approx(6.0)


def known_gap(first: list[float], second: list[float]) -> tuple[float, float, float]:
    """(mean, sample std, error over pairs) of seeds' differences from shares of wrong pairs."""
    gaps = np.zeros((len(first), 400))
    for gap, a, b in zip(gaps, first, second, strict=True):
        gap[wrong_pairs(b)] += 1
        gap[wrong_pairs(a)] -= 1
    means = gaps.mean(axis=1)
    std = means.std(ddof=1) if len(means) > 1 else 0.0
    return float(means.mean()), std, gaps.mean(axis=0).std(ddof=1) / 20


def test_differences_are_paired_by_seed(report, page):
    baseline, bt, st, foreign = report.models
    gap = differences.accuracy_gap(report, "lfw", st, baseline, [7])
    mean, std, error = known_gap([0.10] * 3, [0.40, 0.35, 0.45])
    assert (mean, std) == (pytest.approx(0.30), pytest.approx(0.05))
    half = math.hypot(4.302653 * std / math.sqrt(3), 1.96 * error)
    assert gap.difference.value == pytest.approx(0.30)
    assert gap.difference.half == pytest.approx(half, abs=1e-7)
    assert (gap.first, gap.second) == (pytest.approx(0.90), pytest.approx(0.60))
    # BT-7 has seed 1 alone: over pairs
    gap = differences.accuracy_gap(report, "lfw", bt, baseline, [7])
    mean, _, error = known_gap([0.08], [0.35])
    assert gap.difference.value == pytest.approx(mean)
    assert gap.difference.half == pytest.approx(1.96 * error, abs=1e-9)
    assert (gap.second, gap.difference.seeds) == (pytest.approx(0.65), 1)
    assert len(differences.matched(foreign, baseline)) == 3
    # the mean over resolutions: 0.30 and -0.03, of each seed and pair
    gap = differences.accuracy_gap(report, "lfw", st, baseline, [7, 112])
    assert gap.difference.value == pytest.approx(0.135)
    each = [0.30 - 0.03, 0.25 - 0.04, 0.35 - 0.02]
    assert np.mean(each) / 2 == pytest.approx(0.135)
    assert gap.difference.half > 4.302653 * np.std(each, ddof=1) / 2 / math.sqrt(3)

    rows = {row[0]: row[1:] for row in page.table("Differences over seeds on lfw")}
    assert rows["ST-M1 − baseline 3 seeds"][0] == f"+30.00 ± {100 * half:.2f}"
    assert rows["BT-7 − baseline 1 seed"][0].startswith("+27.00 ± ")
    assert list(rows) == [
        "difference",
        *("BT-7 − baseline 1 seed", "ST-M1 − baseline 3 seeds", "sface − baseline 3 seeds"),
    ]
    caption = next(c for c in page.tables if c.startswith("Differences over seeds"))
    assert "leaves out the randomness of training" in caption
    bold = page.bold[caption]
    assert {"+30.00", "+27.00"} <= set(bold)
    assert not page.has_table("Difference from")  # that of single trainings


def test_which_resolutions_and_models_are_compared(tmp_path):
    wrong = {r: 0.1 for r in (5, 7, 8, 10, 14, 16, 28, 32, 56, 64, 112)}
    dirs = [write_known(tmp_path, method, s, wrong) for method in ("bt-7", "st-7") for s in (0, 1)]
    report = models.read_report(dirs)
    assert differences.shown(report, "lfw") == list(wrong)  # tables would leave out 7 and 10 px
    # the reference first, and no pair twice
    assert [(a.label, b.label) for a, b in differences.pairings(report)] == [("ST-7", "BT-7")]
    table = differences.seed_table(report, "lfw")
    assert table.heads == ("difference", *(f"{r} px" for r in wrong))
    more = dict.fromkeys(range(5, 113, 7), 0.1)
    report = models.read_report([write_known(tmp_path / "b", "bt-7", s, more) for s in (0, 1)])
    assert differences.shown(report, "lfw") == tables.columns(list(more))
    assert tables.columns(list(range(5, 113))) == list(tables.COLUMNS)


def test_models_without_a_seed_in_common_are_not_compared(tmp_path):
    dirs = [write_known(tmp_path, "baseline", s, {7: 0.4, 112: 0.0}) for s in (0, 1)]
    dirs += [write_known(tmp_path, "bt-7", 5, {7: 0.1, 112: 0.0})]
    report = models.read_report(dirs)
    assert differences.matched(report.models[1], report.models[0]) == []
    assert differences.seed_table(report, "lfw") is None
    assert differences.accuracy_gap(report, "lfw", *report.models[::-1], [7]) is None
    one = models.read_report([dirs[0], dirs[2]])  # two single trainings are compared as before
    assert len(differences.matched(*one.models)) == 1
    assert differences.pairings(one) == []


def test_distances_that_are_not_kept_are_read_again(tmp_path):
    wrong = {r: 0.01 * r for r in (5, 6, 7, 8, 9, 10, 14, 28, 56, 112) if r < 40} | {112: 0.0}
    path = write_known(tmp_path, "bt-m", 0, wrong)
    pairs = models.read_report([path]).models[0].pairs["lfw"]
    assert 9 not in pairs.distances["CR_A"]
    with np.load(path / "pairs" / "lfw.npz") as file:
        expected = file["CR_A"][list(file["resolutions"]).index(9)]
    np.testing.assert_array_equal(pairs.at("CR_A", 9), expected)
    np.testing.assert_array_equal(pairs.at("CR_A", 7), pairs.distances["CR_A"][7])
    assert pairs.at("CR_A", 11) is None
    assert all(v.base is None for v in pairs.distances["CR_A"].values())  # no view of the file


def test_rows_of_a_mean_are_not_read_from_a_file(tmp_path):
    path = write_known(tmp_path, "bt-m", 0, {7: 0.1, 112: 0.0})
    rows = [json.loads(line) for line in (path / "rows.jsonl").read_text().splitlines()]
    write_lines(path / "rows.jsonl", [row | {"seeds": 3, "std": {"accuracy": 0.1}} for row in rows])
    row = models.read_report([path]).models[0].cells["lfw", "CR", 7]
    assert (row.seeds, row.std) == (1, None)
