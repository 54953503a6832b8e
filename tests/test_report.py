"""The report from made-up sweep directories: the page must say what the rows say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from report_page import Page, report_page
from sweeps import CALL, RESOLUTIONS, SHAPES, write_analysis, write_lines, write_sweep

from crfr.report import (
    beside,
    breaks,
    drawing,
    models,
    paper,
    provenance,
    tables,
)
from crfr.report.findings import findings
from crfr.report.page import write_report
from crfr.report.rows import PAIRED

METHODS = {"baseline": "baseline", "bt-7": "BT-7", "st-m1": "ST-M1"}  # the paper's order


def rows_of(path: Path, **wanted) -> list[dict]:
    """The rows of a sweep directory with these values, by rising resolution."""
    rows = [json.loads(line) for line in (path / "rows.jsonl").read_text().splitlines()]
    found = [row for row in rows if all(row[name] == v for name, v in wanted.items())]
    return sorted(found, key=lambda row: row["resolution"] or 0)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("sweeps")
    options = {"protocols": {"published": 1}, "matrix": True}
    return [write_sweep(root / m, m, **options) for m in ("st-m1", "baseline", "bt-7")]


@pytest.fixture(scope="module")
def text(sweeps, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    write_report(sweeps, out)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def by_method(sweeps: list[Path]) -> dict[str, Path]:
    return {path.name: path for path in sweeps}


@pytest.mark.parametrize("scenario", PAIRED)
def test_tables_have_the_numbers_of_the_rows(page, sweeps, scenario):
    heads = ["model", *(f"{r}\xa0px" for r in RESOLUTIONS)]
    accuracies, thresholds = [heads], [heads]
    for method, label in METHODS.items():
        rows = rows_of(by_method(sweeps)[method], scenario=scenario)
        accuracies.append(
            [label]
            + [
                f"{100 * r['accuracy']:.2f} {100 * r['accuracy_low']:.2f}–"
                f"{100 * r['accuracy_high']:.2f}"
                for r in rows
            ]
        )
        thresholds.append(
            [label]
            + [
                f"{r['threshold']:.3f} {r['positive_distance']:.3f} | {r['negative_distance']:.3f}"
                for r in rows
            ]
        )
    assert page.table(f"{scenario} accuracy on lfw") == accuracies
    assert page.table(f"{scenario} thresholds on lfw") == thresholds


def test_the_best_of_each_column_is_bold(page, sweeps):
    rows = [rows_of(path, scenario="CR") for path in sweeps]
    best = [max(c, key=lambda row: row["accuracy"]) for c in zip(*rows, strict=True)]
    expected = {f"{100 * row['accuracy']:.2f}" for row in best}
    caption = next(c for c in page.tables if c.startswith("CR accuracy on lfw"))
    assert set(page.bold[caption]) == expected


def accuracies(tmp_path: Path, half=0.001, **methods: dict[int, float]) -> models.Report:
    """A report of hand-made CR accuracies: method (bt_m for bt-m) -> resolution -> accuracy."""
    dirs = []
    for name, values in methods.items():
        method = name.replace("_", "-")
        path = tmp_path / method
        if not path.exists():
            write_sweep(path, method, resolutions=(7, 112), pairs=40, side=False, samples=False)
        template = rows_of(path, scenario="CR")[0]
        rows = [
            template
            | {"resolution": r, "accuracy": a}
            | {"accuracy_low": max(0.0, a - half), "accuracy_high": min(1.0, a + half)}
            for r, a in values.items()
        ]
        write_lines(path / "rows.jsonl", rows)
        dirs.append(path)
    return models.read_report(dirs)


def test_equal_as_printed_is_bold_alike_and_one_model_is_not_bold(tmp_path):
    both = accuracies(tmp_path, bt_m={7: 0.9, 112: 0.9}, st_m1={7: 0.900001, 112: 0.900001})
    table = tables.accuracy_table(both, "lfw", "CR")
    assert [cell[2:] for row in table.rows for cell in row[1:]] == [("best",)] * 4
    one = models.read_report([tmp_path / "bt-m"])
    table = tables.accuracy_table(one, "lfw", "CR")
    assert [cell[2:] for row in table.rows for cell in row[1:]] == [()] * 2


def test_findings_with_a_baseline(tmp_path):
    report = accuracies(
        tmp_path,
        baseline={5: 0.55, 7: 0.60, 28: 0.95, 112: 0.99},
        bt_m={5: 0.70, 7: 0.80, 28: 0.97, 112: 0.992},
        st_m1={5: 0.78, 7: 0.82, 28: 0.94, 112: 0.97},
    )
    headline, sentences = findings(report, "lfw")
    assert (
        headline
        == "From 112 px to 5 px, the baseline loses 44.0 points of accuracy; ST-M1 wins back 23.0"
    )
    assert sentences == [
        "The baseline, trained at 112 px alone, gets 99.0 % of the photo pairs right (one person "
        "or two?) when both photos have 112 px, and 55.0 % when one of the two has 5 px: a fall of "
        "44.0 points. Guessing gives 50 %.",
        "Against 112 px, the accuracy of the baseline falls by 1 point or more below 112 px, by 5 "
        "points or more below 28 px and by 10 points or more below 28 px (as far as the measured "
        "resolutions tell).",
        "It stays above guessing down to 5 px.",
        # (78 + 82) / 2 against (55 + 60) / 2
        "At 5 and 7 px, ST-M1 mends it best: 80.0 % against 57.5 % on average, 22.5 points more.",
        "At 112 px, ST-M1 is 2.0 points below the baseline (97.0 % against 99.0 %).",
        # (78 + 82 + 94 + 97) / 4; BT-M has 86.55
        "Averaged over 4 resolutions, ST-M1 has the highest accuracy (87.8 %).",
    ]


def test_findings_of_one_model_that_crfr_did_not_train(tmp_path):
    values = {5: 0.505, 7: 0.61, 14: 0.88, 28: 0.981, 56: 0.99, 112: 0.992}
    report = accuracies(tmp_path, half=0.01, onnx=values)
    headline, sentences = findings(report, "lfw")
    assert headline == "From 112 px to 5 px, sface loses 48.7 points of accuracy"
    assert sentences == [
        "sface, which crfr did not train, gets 99.2 % of the photo pairs right (one person or "
        "two?) when both photos have 112 px, and 50.5 % when one of the two has 5 px: a fall of "
        "48.7 points. Guessing gives 50 %.",
        "Against 112 px, the accuracy of sface falls by 1 point or more below 56 px, by 5 points "
        "or more below 28 px and by 10 points or more below 28 px (as far as the measured "
        "resolutions tell).",
        "At 5 px it is guessing: 50 % lies in the 95 % interval of its accuracy.",
    ]


def test_findings_without_a_baseline(tmp_path):
    report = accuracies(tmp_path, bt_m={7: 0.8, 112: 0.99}, st_m1={7: 0.85, 112: 0.97})
    headline, sentences = findings(report, "lfw")
    assert headline == "From 112 px to 7 px, ST-M1 loses 12.0 points of accuracy"
    assert sentences[3:5] == [
        "At 7 px, ST-M1 is the best of 2 models, 5.0 points ahead of BT-M (85.0 % against 80.0 %).",
        "At 112 px, ST-M1 is 2.0 points below BT-M (97.0 % against 99.0 %).",
    ]


def test_findings_claim_no_gain_that_is_none(tmp_path):
    worse = accuracies(tmp_path / "a", baseline={7: 0.6, 56: 0.9}, bt_m={7: 0.58, 56: 0.9})
    headline, sentences = findings(worse, "lfw")
    assert headline == "From 56 px to 7 px, the baseline loses 30.0 points of accuracy"
    assert "when one of the two has 56 px" in sentences[0]
    assert sentences[3] == (
        "At 7 px, no model mends it: BT-M comes closest with 58.0 % against 60.0 % of the baseline "
        "(-2.0 points)."
    )
    assert sentences[4] == ("At 56 px, BT-M is level with the baseline (90.0 % against 90.0 %).")
    noisy = accuracies(tmp_path / "b", 0.02, baseline={7: 0.6, 112: 0.9}, bt_m={7: 0.61, 112: 0.9})
    headline, sentences = findings(noisy, "lfw")
    assert "wins back" not in headline
    assert sentences[3].endswith(
        "1.0 points more, less than the 95 % interval (± 2.0), so no clear difference."
    )


def test_findings_of_what_cannot_be_compared(tmp_path):
    level = accuracies(tmp_path / "b", baseline={7: 0.9, 112: 0.9})
    assert findings(level, "lfw")[0] == "From 112 px to 7 px, the baseline loses nothing"
    assert "less than 1 point at all measured resolutions" in findings(level, "lfw")[1][1]
    apart = accuracies(tmp_path / "c", baseline={7: 0.6, 112: 0.9}, bt_m={14: 0.8, 112: 0.9})
    headline, sentences = findings(apart, "lfw")
    assert headline == "baseline and BT-M measured on lfw"
    assert "no fall to speak of" in sentences[0]


def test_where_a_model_breaks(tmp_path):
    values = {5: 0.505, 6: 0.503, 7: 0.61, 14: 0.892, 28: 0.9821, 56: 0.99, 112: 0.992}
    report = accuracies(tmp_path, half=0.01, onnx=values)
    found = breaks.find_break(report.models[0], "lfw")
    # 10 points below 99.2 is what 14 px has: it has broken there
    assert found == breaks.Break(112, 5, 0.992, {1: 28, 5: 28, 10: 28}, 6)
    sentences = breaks.break_sentences(report.models[0], "lfw", "it")
    assert sentences[1].startswith("From 6 px down it is guessing")
    row = breaks.break_table(report, "lfw").rows[0]
    assert [cell[0] for cell in row] == ["sface", "99.20 % at 112 px", *["28 px"] * 3, "6 px"]


def test_the_findings_head_the_page(sweeps, page):
    headline, sentences = findings(models.read_report(sweeps), "lfw")
    assert page.texts["h1"] == [headline.replace(" px", "\xa0px").replace(" points", "\xa0points")]
    shown = [text.replace("\xa0", " ") for text in page.texts["p"]]
    assert shown[1 : 1 + len(sentences)] == sentences


def test_the_page_needs_nothing_else(text, page):
    assert "http" not in text  # neither loads nor names of anything elsewhere
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "xlink:href", "srcset", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/jpeg;base64,", "data:image/png;base64,"))
    assert not re.search(r"@import|url\((?!#)", text)
    targets = {a["id"] for _, a in page.tags if "id" in a}
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    inside = {link[1:] for link in links if link.startswith("#")}
    assert inside <= targets
    assert all(link.startswith(("#", "report_files/")) for link in links)
    assert len(text) < 3_000_000


def test_ids_are_unique_and_every_reference_has_one(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    uses = {a["xlink:href"] for _, a in page.tags if "xlink:href" in a}
    uses = {use[1:] for use in uses if use.startswith("#")}
    clips = {m for _, a in page.tags for m in re.findall(r"url\(#(.*?)\)", a.get("clip-path", ""))}
    assert uses
    assert clips
    assert uses | clips <= set(ids)


def test_figures_follow_the_page_into_dark_mode(text):
    css = text[text.index("<style>") : text.index("</style>")]
    for colour in (drawing.INK, drawing.RULE):
        assert colour not in text.replace(css, "")
    used = set(re.findall(r"var\((--\w+)", text))
    assert {"--ink", "--rule", "--c1"} <= used
    dark = css[css.index("prefers-color-scheme: dark") :]
    assert all(f"{name}:" in dark and css.count(f"{name}:") == 2 for name in used)


HOSTILE = "<script>alert('1')</script>&\"$x_1$|<img src=x onerror=y>"


def test_text_from_files_is_only_ever_text(tmp_path):
    # two models of one method, so that their names are in the labels; '/' splits a path
    name = HOSTILE.replace("/", "")
    dirs = []
    for i in range(2):
        changes = {"model": f"runs/{name}{i}", "method": HOSTILE, "tar_reason": HOSTILE}
        changes |= {"degradation": HOSTILE, "precision": HOSTILE, "pixels": HOSTILE}
        training = {
            "config": {HOSTILE: HOSTILE},
            "run": [dict.fromkeys(["started", "command", "commit", "devices", "images"], HOSTILE)],
            "seconds": HOSTILE,
        }
        call = {"command": HOSTILE, "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}}
        call |= {"devices": [HOSTILE], "seconds": HOSTILE}
        about = {"calls": [call], "training": training, "model_fingerprint": str(i)}
        path = tmp_path / f"<b>{i}"
        options = {"modes": (HOSTILE.replace("/", ""),), "matrix": True}
        write_sweep(path, "bt-m", benchmarks=(HOSTILE,), seed=i, changes=changes, pairs=100,
                    protocols={"seeded": 2}, **options, **about)  # fmt: skip
        record = {"step": 1, "epoch": 1, "benchmark": HOSTILE, "verification_accuracy": 0.5}
        write_lines(path / "metrics.jsonl", [record])
        dirs.append(path)
    data = write_analysis(tmp_path / "data", (HOSTILE,), degradation=HOSTILE)
    # thresholds that no grid of ours has: the paired tests have nothing to recompute with
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crfr.report.sections.paired_tests", lambda *_: [])
        page = report_page(tmp_path, dirs, dataset=data)
    for tag, attributes in page.tags:
        assert tag != "script"
        assert not any(key.startswith("on") for key in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "report_files/"))
    assert f"{HOSTILE} ({name}0)" in [text.strip() for text in page.texts["li"]]
    assert page.texts["h2"][0] == HOSTILE
    assert HOSTILE in page.texts["code"]
    assert page.table("CR accuracy")[1][0] == f"{HOSTILE} ({name}0)"
    for path in (tmp_path / "report_files").rglob("*.*"):
        assert re.fullmatch(r"[\w.-]+", path.name), path
        if path.suffix in {".svg", ".md"}:
            assert "<script" not in path.read_text(encoding="utf-8")


def test_what_was_run_is_on_the_page(page):
    runs = dict(zip(page.texts["h3"][-3:], page.texts["dl"], strict=False))
    for label, method in (("ST-M1", "st-m1"), ("baseline", "baseline"), ("BT-7", "bt-7")):
        for part in (
            f"runs/{method}, step 2,000",
            "12,669 images, 90 people",
            "Training took2 h 3 min",
            "2026-03-01T09:30:00Z",
            "Seed17",
            f"crfr train --config=paper --method={method}",
            f"crfr sweep --model=runs/{method}",
            "lfw, 600 pairs of 7,701 images",
            "Given asfloat32 pixels, float32 precision",
            "Sweep took12 min 34 s",
            "Commit0123abc",
            "1 × NVIDIA H100",
            "jax 0.10.2",
        ):
            assert part in runs[label]
    config = {"method": "st-m1", "seed": 17, "optimizer": {"learning_rate": 0.01, "momentum": 0.9}}
    assert json.loads(page.texts["pre"][0]) == config


def test_training_and_sweep_may_differ_and_training_may_be_unknown(tmp_path):
    call = CALL | {"commit": "fedcba9", "versions": ["jax 1"], "devices": "cpu", "seconds": 60.0}
    other = write_sweep(tmp_path / "a", pairs=100, calls=[call] * 2)
    card = provenance.provenance(models.read_report([other]).sweeps[0], "x")
    for part in ("Commit, training</dt><dd><code>0123abc", "Commit, sweep</dt><dd><code>fedcba9"):
        assert part in card
    assert "<dt>Sweep took</dt><dd>2 min" in card
    none = write_sweep(tmp_path / "b", pairs=100, training=None, calls=[call | {"commit": None}])
    card = provenance.provenance(models.read_report([none]).sweeps[0], "x")
    assert "<dt>Training</dt><dd>none on record</dd>" in card
    assert "<dt>Commit</dt><dd>–</dd>" in card
    assert "<details>" not in card
    foreign = write_sweep(tmp_path / "c", "onnx", pairs=100)
    card = provenance.provenance(models.read_report([foreign]).sweeps[0], "x")
    assert "<dt>Training</dt><dd>not by crfr</dd>" in card
    assert "step" not in card


def test_the_papers_numbers_are_those_printed():
    # Anchors of the paper: table 2 and table 1
    row = {"hours": 4.0, "112 px": 97.40, "all_res": 96.76, "high_res": 97.35}
    assert paper.TABLE_2["st-m1"] == row | {"mid_res": 96.98, "low_res": 91.50, "5 px": 76.78}
    assert [paper.TABLE_2[m]["5 px"] for m in paper.TABLE_2] == [
        54.65, 69.66, 71.53, 67.86, 76.78, 71.84,
    ]  # fmt: skip
    assert paper.TABLE_2["bt-5"]["112 px"] is None
    assert (16, "st-16", 97.88) in paper.TABLE_1
    assert len(paper.TABLE_1) == 11


def test_table_2_has_the_papers_numbers_ours_and_the_difference(page, sweeps):
    table = page.table("Table 2")
    rows = by_method(sweeps)["st-m1"]
    values = [
        rows_of(rows, scenario="CR", resolution=112)[0],
        *(rows_of(rows, scenario=p)[0] for p in ("all_res", "high_res", "mid_res", "low_res")),
        rows_of(rows, scenario="CR", resolution=5)[0],
    ]
    values = [100 * row["accuracy"] for row in values]
    theirs = [97.40, 96.76, 97.35, 96.98, 91.50, 76.78]
    start = next(i for i, row in enumerate(table) if row[0] == "ST-M1")
    assert table[start] == ["ST-M1", "paper", *(f"{v:.2f}" for v in theirs), "4 h 2 × baseline"]
    assert table[start + 1] == [
        "ST-M1",
        "ours",
        *(f"{v:.2f}" for v in values),
        "4.0 s 2 × baseline",
    ]
    gaps = [f"{a - b:+.2f}" for a, b in zip(values, theirs, strict=True)]
    assert table[start + 2] == ["ST-M1", "ours − paper", *gaps, "–"]
    assert [row[1] for row in table if row[0] == "BT-7"] == ["ours"]  # not in the paper's table


def test_models_of_others_stand_beside_the_papers_baseline(tmp_path):
    page = report_page(tmp_path, [write_sweep(tmp_path / "a", "onnx", protocols={"seeded": 3})])
    table = page.table("Table 2")
    assert [row[:2] for row in table[1:]] == [
        ["baseline", "paper"],
        ["sface", "ours"],
        ["sface", "ours − paper’s baseline"],
    ]
    assert any("drawn anew" in caption for caption in page.tables)
    protocols = page.table("Protocols on lfw")
    assert protocols[1][:2] == ["sface", "seed 0, 3 draws"]
    (row,) = rows_of(tmp_path / "a", scenario="mid_res")
    low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
    spread = f"± {100 * row['draws_std']:.2f} over draws"
    assert protocols[1][3] == f"{100 * row['accuracy']:.2f} {low:.2f}–{high:.2f} {spread}"


def test_table_1(tmp_path):
    own = [write_sweep(tmp_path / m, m, resolutions=(16, 32, 112)) for m in ("bt-16", "st-m1")]
    table = beside.table_1(models.read_report(own))
    cells = {row[0][0]: row[1:] for row in table.rows if row[1][0] == "paper"}
    assert cells["BT-r"] == (("paper",), ("99.38",), ("99.08",), ("98.17",))
    assert cells["S-r-sc [32]"] == (("paper",), ("92.83",), ("89.72",), ("85.87",))
    assert cells["Talreja et al. [30]"][-1] == ("–",)
    ours = {row[0][0]: row[2:] for row in table.rows if row[1][0] == "ours"}
    (row,) = rows_of(own[0], scenario="CR", resolution=16)
    gap = 100 * row["accuracy"] - 98.17
    assert ours["BT-16"][2] == (f"{100 * row['accuracy']:.2f}", f"{gap:+.2f} to the paper")
    assert ours["BT-16"][0] == ("–", "")
    assert ours["ST-M1"][2][1] == ""
    other = write_sweep(tmp_path / "faces", "bt-16", benchmarks=("faces",), resolutions=(16, 112))
    report = models.read_report([other])
    assert beside.table_1(report) is None
    assert beside.table_2(report) is None


def test_summary_table(tmp_path):
    accuracies(tmp_path, baseline={5: 0.5512, 112: 0.991}, st_m1={5: 0.7, 14: 0.9, 112: 1.0})
    assert tables.summary_table([tmp_path / "st-m1", tmp_path / "baseline"]) == (
        "CR accuracy in % on lfw\n"
        "model      5 px  14 px 112 px\n"
        "baseline  55.12      –  99.10\n"
        "ST-M1     70.00  90.00 100.00"
    )


def test_summary_of_a_full_sweep_fits_a_terminal(tmp_path):
    options = {"resolutions": tuple(range(5, 113)), "pairs": 40, "side": False, "samples": False}
    sweep = write_sweep(tmp_path / "a", benchmarks=("lfw", "cfp_fp"), **options)
    summary = tables.summary_table([sweep])
    assert summary.startswith("CR accuracy in % on lfw (10 of 108 resolutions)\n")
    assert "CR accuracy in %, average of lfw, cfp_fp" in summary
    assert max(map(len, summary.splitlines())) <= 80


def labels(*keys: tuple[str, int | None, str]) -> list[str]:
    return models._labels(list(keys))


def test_models_are_told_apart_by_what_differs():
    assert labels(("r/a", 1, "baseline"), ("r/b", 1, "bt-7")) == ["baseline", "BT-7"]
    assert labels(("r/a", 1, "bt-m"), ("r/a", 2, "bt-m")) == ["BT-M (step 1)", "BT-M (step 2)"]
    assert labels(("r/a", 1, "st-m1"), ("r/b", 2, "st-m1")) == ["ST-M1 (a)", "ST-M1 (b)"]
    assert labels(("r/a", 1, "x"), ("r/a", 2, "x"), ("r/b", 1, "x")) == [
        "x (a, step 1)",
        "x (a, step 2)",
        "x (b, step 1)",
    ]
    assert labels(("r/a", 1, "x"), ("q/a", 1, "x")) == ["x (r/a, step 1)", "x (q/a, step 1)"]
    assert labels(("m/sface.onnx", None, "onnx"), ("a.b:face", None, "callable")) == [
        "sface",
        "face",
    ]
    assert labels(("m/a.onnx", None, "onnx"), ("n/a.onnx:color=bgr", None, "onnx")) == [
        "a (a.onnx)",
        "a (a.onnx:color=bgr)",
    ]


def test_the_same_sweeps_give_the_same_page_and_files(tmp_path, sweeps, text):
    write_report(sweeps, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    files = {p: p.read_bytes() for p in (tmp_path / "report_files").rglob("*.*")}
    write_report(sweeps, tmp_path / "report.html")
    assert files == {p: p.read_bytes() for p in (tmp_path / "report_files").rglob("*.*")}


def test_a_full_sweep_is_small(tmp_path):
    options = {"resolutions": tuple(range(5, 113)), "pairs": 100, "protocols": {"published": 1}}
    dirs = [write_sweep(tmp_path / m, m, matrix=True, **options) for m in SHAPES if m in METHODS]
    page = report_page(tmp_path, dirs)
    # so that three models on five benchmarks and their average stay under 5 MB
    assert (tmp_path / "report.html").stat().st_size < 850_000
    assert len(page.table("CR accuracy on lfw")[1]) == 9
    table = (tmp_path / "report_files/tables/accuracy-CR-lfw.csv").read_text().splitlines()
    assert len(table[0].split(",")) == 1 + 2 * 108


def test_the_report_imports_no_jax():
    modules = "crfr.report.page, crfr.report.tables, sys"
    check = "assert not {'jax', 'jaxlib', 'flax', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import {modules}; {check}"], check=True)
