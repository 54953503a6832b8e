"""The figures of the report: what they draw, and which appear."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_page import Page, report_page
from sweeps import RESOLUTIONS, write_analysis, write_lines, write_sweep

from crfr.evaluate.statistics import paired_test, resampling
from crfr.evaluate.verification import kfold
from crfr.report import (
    comparison,
    figures,
    heatmap,
    models,
    pictures,
    specialised,
    tables,
    training,
    violins,
)
from crfr.report.drawing import INK, styles
from crfr.report.page import write_report
from crfr.report.render import VARIABLES

CR = ("CR_A", "CR_B")
EVERY = (*range(5, 19), 28, 56, 112)


@pytest.fixture(scope="module")
def dirs(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("figures")
    options = {"benchmarks": ("lfw", "cfp_fp"), "pairs": 200, "resolutions": EVERY}
    options |= {"matrix": True, "protocols": {"published": 1}}
    return [write_sweep(root / m, m, **options) for m in ("baseline", "bt-7", "st-m1")]


@pytest.fixture(scope="module")
def report(dirs) -> models.Report:
    return models.read_report(dirs)


@pytest.fixture(scope="module")
def page(dirs, tmp_path_factory) -> Page:
    root = tmp_path_factory.mktemp("page")
    return report_page(root, dirs, dataset=write_analysis(root / "data", ("lfw", "cfp_fp")))


def headings(page: Page) -> list[str]:
    return page.texts["h3"]


def test_every_figure_that_the_sweeps_allow_is_there(page):
    assert page.texts["h2"] == [
        "Average of 2 benchmarks",
        "lfw",
        "cfp_fp",
        "What reducing does to the images",
        "What the paper says",
        "The paper’s claims",
        "Training",
        "What was run",
        "What the words mean",
    ]
    labels = ["baseline", "BT-7", "ST-M1"]
    benchmark = ["Close up", "Sample pairs", "Mean distances", "Distributions of distances"]
    benchmark += ["Best thresholds", "Every pair of resolutions"]
    expected = ["Close up", "Benchmark by benchmark", *benchmark, *benchmark]
    assert headings(page)[:-3] == [*expected, "How resolution is reduced", "What is lost"]
    zoom = ["5 to 9 px", "10 to 18 px"]
    panels = [
        *(f"CR accuracy on {name}, {z}" for name in ("average",) for z in zoom),
        *labels,  # fig. 5
    ]
    for name in ("lfw", "cfp_fp"):
        panels += [f"CR accuracy on {name}, {z}" for z in zoom]
        panels += labels  # fig. 6
        panels += ["baseline, CR", "baseline, ER", "BT-7, CR", "ST-M1, CR"]  # figs 7, 10, 14
        panels += ["CR"]  # fig. 11
        panels += [f"{label}, {of}" for label in labels for of in ("accuracy, %", "threshold")]
    panels += ["Accuracy on lfw, 112 px, %"]  # fig. 15
    panels += [name for name, _ in training.TRAINING]
    assert page.texts["h4"] == panels
    # nothing is missing, so there is no list of it
    assert page.missing == ""
    for table in ("Table 1", "Table 2", "Protocols on average", "Difference from baseline on lfw"):
        assert page.has_table(table)


@pytest.mark.parametrize(
    ("options", "gone", "missing"),
    [
        ({"side": False}, "Distributions of distances", "Figs 7, 10 and 14"),
        ({"samples": False}, "Sample pairs", "Sample pairs"),
        ({"matrix": False}, "Every pair of resolutions", "--scenarios=CR,ER,matrix"),
        ({"resolutions": (7, 14, 112)}, "Close up", "Fig. 13"),
        ({"protocols": None}, None, "--scenarios=CR,ER,protocols"),
        ({"benchmarks": ("faces",)}, None, "no benchmark is called lfw"),
    ],
)
def test_what_the_sweeps_have_not_is_left_out_and_listed(tmp_path, options, gone, missing):
    whole = {"pairs": 60, "resolutions": (5, 7, 10, 14, 112), "matrix": True}
    whole |= {"protocols": {"seeded": 2}}
    page = report_page(tmp_path, [write_sweep(tmp_path / "a", "onnx", **(whole | options))])
    parts = {"Close up", "Sample pairs", "Distributions of distances", "Every pair of resolutions"}
    assert parts - set(headings(page)) == ({gone} if gone else set())
    assert missing in page.missing
    assert "crfr dataset" in page.missing
    assert "Figs 1, 9 and 12" in page.missing
    assert "Fig. 15" not in page.missing  # there is no training of it to show
    assert "Training" not in page.texts["h2"]


@pytest.mark.parametrize("kept", ["ER", "low_res"])
def test_sweeps_of_other_scenarios_alone(tmp_path, kept):
    names = ("lfw", "cfp_fp")
    sweep = write_sweep(tmp_path / "a", benchmarks=names, pairs=60, protocols={"seeded": 2})
    rows = [json.loads(line) for line in (sweep / "rows.jsonl").read_text().splitlines()]
    write_lines(sweep / "rows.jsonl", [row for row in rows if row["scenario"] == kept])
    for name in names:
        with np.load(sweep / "pairs" / f"{name}.npz") as file:
            arrays = dict(file.items())
        for half in ("CR_A", "CR_B", "ER"):
            # what the sweep leaves there of scenarios that it was not asked for
            if kept == "low_res":
                arrays[half] = arrays[half][:0]
            elif half != "ER":
                arrays[half][:, 0] = np.nan
        if kept == "low_res":
            arrays["resolutions"] = arrays["resolutions"][:0]
        np.savez(sweep / "pairs" / f"{name}.npz", **arrays)
    page = report_page(tmp_path, [sweep])
    assert page.texts["h1"] == ["baseline measured on average"]
    assert ("baseline, ER" in page.texts["h4"]) == (kept == "ER")
    assert "baseline, CR" not in page.texts["h4"]
    assert page.has_table("ER accuracy on lfw" if kept == "ER" else "Protocols on average")
    assert not page.has_table("CR accuracy")
    assert tables.summary_table([sweep]) == ""


def test_missing_metrics_leave_a_note(tmp_path):
    sweep = write_sweep(tmp_path / "a", "bt-m", pairs=60)
    (sweep / "metrics.jsonl").unlink()
    page = report_page(tmp_path, [sweep])
    assert "BT-M: no metrics.jsonl, so no curves." in page.texts["p"]
    assert "Fig. 15" in page.missing


def lines_of(svg: str, colour: str) -> list[tuple[str, str]]:
    """(path, style) of what is drawn as lines in a colour."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg, re.DOTALL)
    return [(d, s) for d, s in paths if f"stroke: {colour}" in s and s.startswith("fill: none")]


def heights(path: str) -> list[float]:
    return [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)]


def test_accuracy_figure_draws_cr_solid_with_its_interval_and_er_dotted(report):
    looks = styles(report.models)
    assert len(set(looks.values())) == 3
    svg = figures.accuracy_figure(report, "lfw", looks).svg
    for model in report.models:
        colour = VARIABLES[looks[model.label][0]]
        lines = [(d, s) for d, s in lines_of(svg, colour) if d.count("L") == len(EVERY) - 1]
        assert ["stroke-dasharray" in s for _, s in lines] == [True, False]  # ER below CR
        for (path, _), scenario in zip(lines, ("ER", "CR"), strict=True):
            # as far up the figure as the accuracies are, one scale for all
            values = [row.accuracy for row in model.curve("lfw", scenario).values()]
            slope, rest = np.polyfit(values, heights(path), 1)
            assert slope < 0
            np.testing.assert_allclose(heights(path), np.polyval([slope, rest], values), atol=0.02)
        use = re.search(rf'<use xlink:href="#(\w+)" x="\S+" y="(\S+)" style="fill: {re.escape(colour)}; fill-op', svg)  # fmt: skip  # noqa: E501
        path = re.search(rf'<path id="{use[1]}" d="([^"]*)"', svg)
        band = np.array(heights(path[1])) + float(use[2])
        rows = list(model.curve("lfw", "CR").values())
        top = np.polyval([slope, rest], [row.accuracy_high for row in rows])
        bottom = np.polyval([slope, rest], [row.accuracy_low for row in rows])
        for edge in (top, bottom):
            assert all(np.abs(band - y).min() < 0.02 for y in edge)


def test_files_have_title_and_legend_and_are_valid(report):
    drawing = figures.accuracy_figure(report, "lfw", styles(report.models))
    root = ET.fromstring(drawing.files[".svg"])
    words = "".join(root.itertext())
    for text in ("Verification accuracy on lfw", "ST-M1", "BT-7", "ER, both reduced", "guessing"):
        assert text in words
    assert b"var(--" not in drawing.files[".svg"]
    assert "ST-M1" not in drawing.svg  # the page has its own legend
    with Image.open(io.BytesIO(drawing.files[".png"])) as image:
        assert image.width == 1280
        assert image.getextrema()[0][0] < 100 < image.getextrema()[0][1]


def test_names_with_dollars_and_foreign_letters_are_drawn(tmp_path):
    changes = {"model": "runs/$x_1$ 面 <&>"}
    sweep = write_sweep(tmp_path / "a", "callable", pairs=60, changes=changes)
    report = models.read_report([sweep])
    assert report.models[0].label == "runs/$x_1$ 面 <&>"
    drawing = figures.accuracy_figure(report, "lfw", styles(report.models))
    assert "runs/$x_1$ 面 <&>" in "".join(ET.fromstring(drawing.files[".svg"]).itertext())


def test_one_resolution_and_perfect_accuracy_are_drawn(tmp_path):
    sweep = write_sweep(tmp_path / "a", resolutions=(112,), pairs=60, matrix=True)
    perfect = {"accuracy": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0}
    rows = [json.loads(line) | perfect for line in (sweep / "rows.jsonl").read_text().splitlines()]
    write_lines(sweep / "rows.jsonl", rows)
    write_lines(sweep / "metrics.jsonl", [{"step": 1, "loss": 2, "accuracy": 1}])
    page = report_page(tmp_path, [sweep])
    assert page.texts["h1"] == ["baseline measured on lfw"]
    assert page.table("CR accuracy on lfw")[1] == ["baseline", "100.00 100.00–100.00"]


def test_43_models_look_different_and_the_baseline_is_ink():
    many = [models.Model(f"m{i}", "baseline" if i == 3 else "bt-m", 1, (), {}) for i in range(43)]
    looks = styles(many)
    assert len(set(looks.values())) == len(many)
    assert [label for label, (colour, _) in looks.items() if colour == INK] == ["m3"]


def test_zooms_show_their_part(report):
    near_7, near_14 = figures.zoom_figures(report, "lfw", styles(report.models))
    for drawing, count in ((near_7, 5), (near_14, 9)):
        lines = [d for d, _ in lines_of(drawing.svg, "var(--ink)") if d.count("L") == count - 1]
        assert len(lines) == 1


def test_specialised_models_are_points_of_one_curve(tmp_path):
    options = {"resolutions": (7, 16, 112), "pairs": 60}
    dirs = [write_sweep(tmp_path / m, m, **options) for m in ("baseline", "bt-7", "bt-16", "st-7")]
    report = models.read_report(dirs)
    drawing = specialised.specialised_figure(report, "lfw")
    words = "".join(ET.fromstring(drawing.files[".svg"]).itertext())
    assert "bt-r, each at its own r" in words.lower()
    assert "st-r" not in words.lower()  # one model is no curve
    assert specialised.specialised_figure(models.read_report(dirs[:2]), "lfw") is None


def test_densities_follow_the_distances():
    rng = np.random.default_rng(0)
    distance = rng.normal(0.6, 0.1, 20_000)
    at, height = violins.density(distance)
    expected = np.exp(-0.5 * ((at - 0.6) / 0.1) ** 2)
    assert np.abs(height - expected).max() < 0.06
    for odd in (np.full(9, 0.5), np.array([0.1, 0.9])):  # all alike, and hardly any
        at, height = violins.density(odd)
        assert np.isfinite(height).all()
        assert 0.98 < height.max() <= 1


def test_distances_of_cr_are_those_of_both_directions(report):
    pairs = report.models[0].pairs["lfw"]
    both = violins.distances_at(pairs, "CR", 7)
    np.testing.assert_array_equal(both, np.r_[tuple(pairs.distances[n][7] for n in CR)])
    assert pairs.resolutions("CR") == [5, 7, 14, 28, 56, 112]  # of the 17 measured


def test_a_full_matrix_is_one_picture_that_keeps_its_cells():
    resolutions = list(range(5, 113))
    values = np.arange(108.0 * 108).reshape(108, 108)
    grid = heatmap._evenly(resolutions, values)
    octaves = np.linspace(np.log2(5), np.log2(112), len(grid))
    for i, j in ((0, 0), (50, 100), (len(grid) - 1, 3)):
        first, second = round(2 ** octaves[i]), round(2 ** octaves[j])
        assert grid[i, j] in {
            values[a, b]
            for a in (first - 6, first - 5, first - 4)
            for b in (second - 6, second - 5, second - 4)
            if 0 <= a < 108 and 0 <= b < 108
        }
    assert set(np.diag(values)[:30]) <= set(np.diag(grid))  # low resolutions are wide


def test_a_small_matrix_has_its_numbers(tmp_path):
    sweep = write_sweep(tmp_path / "a", pairs=60, matrix=True)
    (model,) = models.read_report([sweep]).models
    accuracy, threshold = heatmap.matrix_figures(model, "lfw")
    matrix = model.matrices["lfw"]
    for drawing, name, form in (
        (accuracy, "accuracy", "{:.1f}"),
        (threshold, "threshold", "{:.2f}"),
    ):
        shown = re.findall(r">(\d+\.\d+)</text>", drawing.svg)
        values = matrix.figures[name] * (100 if name == "accuracy" else 1)
        expected = [form.format(v) for v in values[::-1, ::-1].ravel()]
        assert shown[: len(expected)] == expected or shown[-len(expected) :] == expected
    assert 'xlink:href="data:image/png;base64,' in accuracy.svg


def test_paired_tests_are_those_of_the_held_out_verdicts(report, dirs):
    tests = comparison.paired_tests(report, "lfw")
    assert {t.model for t in tests} == {"BT-7", "ST-M1"}
    arrays = []
    for path in (dirs[2], dirs[0]):  # ST-M1 and the baseline
        with np.load(path / "pairs" / "lfw.npz") as file:
            arrays.append(dict(file.items()))
    place = list(arrays[0]["resolutions"]).index(14)
    scores = []
    for a in arrays:
        halves = [kfold(a[n][place], a["same"]).correct for n in CR]
        scores.append(np.mean(halves, axis=0))
    expected = paired_test(*scores, resampling(200))
    (found,) = [t for t in tests if t.model == "ST-M1" and t.resolution == 14]
    assert found.difference == expected["difference"]
    assert (found.low, found.high) == (expected["low"], expected["high"])
    assert found.p_value == expected["p_value"]
    assert found.corrected == comparison.holm([t.p_value for t in tests])[tests.index(found)]
    table = comparison.difference_table(report, "lfw", tests)
    row = next(r for r in table.rows if r[0] == ("ST-M1",))
    cell = row[table.heads.index("14 px")]
    assert cell[0] == f"{100 * expected['difference']:+.2f}"
    assert (cell[2:] == ("best",)) == (found.corrected < 0.05)


def test_without_a_baseline_the_first_model_is_the_reference(tmp_path):
    dirs = [write_sweep(tmp_path / m, m, pairs=60, resolutions=(7, 112)) for m in ("bt-m", "onnx")]
    tests = comparison.paired_tests(models.read_report(dirs), "lfw")
    assert [(t.model, t.resolution) for t in tests] == [("sface", 112), ("sface", 7)]
    assert comparison.paired_tests(models.read_report(dirs[:1]), "lfw") == []


def test_sample_pairs_have_their_distances_and_sides(report, dirs, page):
    table = pictures.sample_table(report, "lfw")
    listed = json.loads((dirs[0] / "samples/lfw/pairs.json").read_text())
    seen = set()
    for row in table.rows:
        label, pair, truth, resolution, distance, threshold, said, verdict = (c[0] for c in row)
        model = next(m for m in report.models if m.label == label)
        r = int(resolution.removesuffix(" px"))
        value = model.pairs["lfw"].distances["CR_B"][r][int(pair)]
        limit = model.curve("lfw", "CR_B")[r].threshold
        same = next(one["same"] for one in listed if one["pair"] == int(pair))
        assert distance == f"{value:.3f}"
        assert threshold == f"{limit:.3f}"
        assert truth == ("one person" if same else "two people")
        assert said == ("one person" if value < limit else "two people")
        assert verdict == ("right" if said == truth else "wrong")
        seen.add((label, pair, r))
    assert len(seen) == 3 * len(listed) * 6
    images = [a for tag, a in page.tags if tag == "img" and "pair" in a["alt"]]
    assert len(images) == 2 * len(listed) * 7
    # the tile is the second image of that pair at that resolution
    source = next(a["src"] for a in images if a["alt"] == f"second image of pair {listed[1]['pair']} at 7 px")  # fmt: skip  # noqa: E501
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))), float)
    strip = np.asarray(Image.open(dirs[0] / "samples/lfw/7.png").convert("RGB"), float)
    assert np.abs(shown - strip[:, 336:448]).mean() < 2  # JPEG


def test_the_dataset_analysis_is_shown(page):
    table = page.table("Mean absolute difference")
    assert table[0] == ["benchmark", "images", *(f"{r}\xa0px" for r in (56, 28, 14, 7))]
    assert table[1] == ["lfw", "7,701", *(f"{60 / r:.3f}" for r in (56, 28, 14, 7))]
    alts = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert {"mean of lfw", "difference of cfp_fp at 7 px", "reduced to 14 px"} <= set(alts)


def panel(report: models.Report, name: str) -> str:
    drawn = training.training_figures(list(report.models), styles(report.models))
    return {drawing.title: drawing.svg for drawing in drawn}[name]


def test_a_curve_has_a_gap_where_the_log_has_none(tmp_path):
    sweep = write_sweep(tmp_path / "a", pairs=60, resolutions=(7, 112))
    log = [{"step": s, "epoch": s / 10, "loss": 5.0 - s / 10} for s in range(1, 31)]
    log[9]["loss"], log[19]["loss"] = float("nan"), None
    write_lines(sweep / "metrics.jsonl", log)
    report = models.read_report([sweep])
    curves = [d for d, _ in lines_of(panel(report, "Loss"), "var(--ink)") if d.count("L") > 10]
    assert [line.count("M") for line in curves] == [3]  # three pieces, two gaps
    assert len(training.training_figures(list(report.models), styles(report.models))) == 1
    write_report([sweep], tmp_path / "r.html")
    assert "1 log lines without a finite loss" in (tmp_path / "r.html").read_text()


def test_a_method_without_a_distance_has_no_curve_of_it(report):
    svg = panel(report, "Distance of views")
    looks = styles(report.models)
    shown = {label for label, (c, _) in looks.items() if lines_of(svg, VARIABLES[c])}
    assert shown == {"ST-M1"}


def test_a_resumed_log_counts_once_and_ends_at_the_step_of_the_model(tmp_path):
    sweep = write_sweep(tmp_path / "a", pairs=60, changes={"step": 30})
    log = [{"step": s, "loss": 1.0} for s in (10, 20, 30, 40)]
    log += [{"step": s, "loss": 2.0} for s in (30, 40)]  # goes on from a checkpoint at 20
    write_lines(sweep / "metrics.jsonl", log)
    (model,) = models.read_report([sweep]).models
    records = training.training_records(model)
    assert [(r["step"], r["loss"]) for r in records] == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert training.epoch_seconds(model) is None


def test_seconds_an_epoch(report):
    seconds = {m.label: training.epoch_seconds(m) for m in report.models}
    assert seconds == pytest.approx({"baseline": 2.0, "BT-7": 2.0, "ST-M1": 4.0})


def test_seconds_an_epoch_are_without_verification_compilation_and_saves(tmp_path):
    """A log as the loop writes it: 1,000 images at 500 a second, verified in 3 s after each epoch,
    compiled in 9 s at the start and again by a second process after two epochs.
    """
    log, clock = [], 0.0
    for line in range(1, 17):
        about = {"step": 25 * line, "epoch": line / 4}
        took = 0.5 + 9 * (line in (1, 9)) + 0.7 * (line % 4 == 1)  # and a save of the line before
        clock += took
        rate = {"images_per_second": round(250 / took, 1), "seconds": clock}
        log.append(about | {"loss": 1.0} | rate)
        if line % 4 == 0:
            clock += 3
            verified = {"benchmark": "lfw", "verification_accuracy": 0.9, "seconds": clock}
            log.append(about | verified)

    def seconds(log, images=1000):
        starts = [{"step": step, "images": images} for step in (0, 200)]
        about = {"config": {"method": "bt-7", "seed": 1}, "run": starts, "seconds": clock}
        sweep = write_sweep(tmp_path / f"{len(log)}-{images}", "bt-7", pairs=60, training=about)
        write_lines(sweep / "metrics.jsonl", log)
        return training.epoch_seconds(models.read_report([sweep]).models[0])

    assert seconds(log) == pytest.approx(2.0)
    assert seconds(log[:2]) is None  # one of two may have compiled
    assert seconds(log, None) is None


def test_long_logs_are_thinned_to_means(tmp_path):
    sweep = write_sweep(tmp_path / "a", pairs=60, changes={"step": 5000})
    write_lines(sweep / "metrics.jsonl", [{"step": s, "loss": s % 2} for s in range(1, 5001)])
    svg = panel(models.read_report([sweep]), "Loss")
    (line,) = [d for d, _ in lines_of(svg, "var(--ink)") if d.count("L") > 5]
    assert training.POINTS / 2 < line.count("L") <= training.POINTS


def test_the_generator_draws_what_it_says(report):
    rows = report.models[0].curve("lfw", "CR")
    assert set(rows) == set(EVERY)
    assert rows[112].accuracy > 0.9 > rows[7].accuracy > 0.5
    assert set(RESOLUTIONS) <= set(EVERY)
