"""The report from made-up sweep directories: the page must say what the rows say."""

import base64
import doctest
import io
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crfr.errors import InputError
from crfr.report import figures, models, paper, provenance, tables
from crfr.report.findings import findings
from crfr.report.page import write_report
from crfr.report.rows import SCENARIOS

RESOLUTIONS = (5, 7, 14, 28, 56, 112)
# method: CR accuracy at 112 px, what is lost towards guessing at the lowest resolutions, and where
# half of that is lost (px)
SHAPES = {
    "baseline": (0.985, 0.97, 11.0),
    "bt-7": (0.975, 0.60, 5.5),
    "bt-m": (0.983, 0.65, 6.0),
    "st-7": (0.955, 0.55, 5.0),
    "st-m1": (0.968, 0.50, 5.2),
    "st-m2": (0.952, 0.55, 5.6),
}


def accuracy(method: str, resolution: int) -> float:
    top, lost, middle = SHAPES[method]
    kept = 1 - lost / (1 + (resolution / middle) ** 3)
    return 0.5 + (top - 0.5) * kept


def make_rows(method="baseline", benchmark="lfw", resolutions=RESOLUTIONS, **changes) -> list[dict]:
    """Rows as `crfr sweep` writes them, with accuracies of a plausible course."""
    rows = []
    for r in resolutions:
        for scenario, shift in (("CR_A", 0.002), ("CR_B", -0.002), ("CR", 0.0), ("ER", 0.01)):
            shift = 0.0 if r == 112 else shift
            value = round(accuracy(method, r) + shift, 6)
            rows.append(
                {
                    "schema": 1,
                    "model": f"runs/{method}",
                    "step": 2000,
                    "method": method,
                    "benchmark": benchmark,
                    "degradation": "bicubic",
                    "precision": "highest",
                    "thresholds": "exact",
                    "flip": False,
                    "scenario": scenario,
                    "resolution": r,
                    "accuracy": value,
                    "accuracy_std": 0.006,
                    "threshold": round(0.6 - 0.3 * (1 - value), 4),
                    "positive_distance": round(0.3 + (1 - value), 4),
                    "negative_distance": 0.98,
                    "pairs": 6000,
                }
                | changes
            )
    return rows


def make_metrics(method: str, steps: int = 2000, every: int = 20) -> list[dict]:
    lines = []
    for step in range(every, steps + 1, every):
        done, siamese = step / steps, method.startswith("st")
        entropy = (2 if siamese else 1) * (14 * math.exp(-4 * done) + 0.8 + 0.3 * math.sin(step))
        distance = 0.25 * math.exp(-3 * done) + 0.03 if siamese else 0.0
        line = {"step": step, "epoch": 16 * done, "loss": entropy + 25 * distance}
        line |= {"cross_entropy": entropy, "distance": distance, "accuracy": done**0.3 * 0.97}
        line |= {"learning_rate": 0.01 * 0.1 ** ((done > 9 / 16) + (done > 13 / 16))}
        lines.append(line | {"images_per_second": 900.0, "seconds": step * 0.14})
    for epoch in range(1, 17):
        top = accuracy(method, 112)
        line = {"step": steps * epoch // 16, "epoch": epoch, "benchmark": "lfw"}
        line |= {"verification_accuracy": top - 0.3 * math.exp(-epoch / 2)}
        lines.append(
            line | {"verification_std": 0.01, "verification_threshold": 0.6, "seconds": 1.0}
        )
    return sorted(lines, key=lambda line: line["step"])


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_sweep(path: Path, rows: list[dict] | None = None, *, method="baseline", **about) -> Path:
    """A sweep directory as docs/architecture.md describes it; `about` changes its sweep.json."""
    rows = make_rows(method) if rows is None else rows
    (path / "samples").mkdir(parents=True)
    write_lines(path / "rows.jsonl", rows)
    write_lines(path / "metrics.jsonl", make_metrics(method))
    versions = {"crfr": "0.1.0", "jax": "0.10.2", "flax": "0.12.7", "numpy": "2.4.1"}
    start = {
        "started": "2026-03-01T09:30:00Z",
        "step": 0,
        "command": f"crfr train --config=paper --method={method} --workdir=runs/{method}",
        "commit": "0123abc",
        "versions": versions,
        "python": "3.11.9",
        "devices": {"count": 1, "kind": "NVIDIA H100"},
        "classes": 90,
        "images": 12669,
    }
    config = {"method": method, "seed": 17, "optimizer": {"learning_rate": 0.01, "momentum": 0.9}}
    content = {
        "schema": 1,
        **{name: rows[0][name] for name in ("model", "step", "method", "benchmark")},
        "model_fingerprint": f"fedc{method}{rows[0]['model']}",
        "benchmark_fingerprint": "0123456789abcdef",
        "calls": [
            {
                "started": "2026-03-01T12:30:00Z",
                "command": f"crfr sweep --model=runs/{method} --out={path.name}",
                "commit": "0123abc",
                "versions": versions,
                "devices": {"count": 1, "kind": "NVIDIA H100"},
                "seconds": 754.0,
            }
        ],
        "images": 7701,
        "pairs": 6000,
        "training": {"config": config, "run": [start], "seconds": 7384.0},
    }
    (path / "sweep.json").write_text(json.dumps(content | about))
    for r in RESOLUTIONS:
        small = Image.linear_gradient("L").resize((r, r)).convert("RGB")
        strip = Image.new("RGB", (4 * 112, 112))
        for i in range(4):
            strip.paste(small.resize((112, 112)), (112 * i, 0))
        strip.save(path / "samples" / f"{r}.png")
    return path


def change_line(path: Path, number: int, **changes) -> None:
    """Changes keys of a line of a JSON-lines file, counted from 1; None takes the key away."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[number - 1] |= changes
    records[number - 1] = {k: v for k, v in records[number - 1].items() if v is not None}
    write_lines(path, records)


class Page(HTMLParser):
    """What a reader gets: tables by caption, text by tag, the attributes of every tag."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.tables: dict[str, list[list[str]]] = {}  # caption -> rows of cells, heads included
        self.bold: dict[str, list[str]] = {}  # caption -> numbers in bold
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption, self._bold = "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"meta", "img", "br"}:
            return
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self._rows, self._caption, self._bold = [], "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another tag"
        if tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._rows
            self.bold[self._caption] = self._bold

    def handle_data(self, data):
        for tag in set(self._open):
            self.texts[tag][-1] += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            # a cell is its text, then its small print
            self._rows[-1][-1] += f" {data}" if "small" in self._open else data
            if "b" in self._open:
                self._bold.append(data)

    def table(self, start: str) -> list[list[str]]:
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))


def report_page(tmp_path: Path, sweeps: list[Path]) -> Page:
    write_report(sweeps, tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("sweeps")
    return [write_sweep(root / m, method=m) for m in ("st-m1", "baseline", "bt-7")]


@pytest.fixture(scope="module")
def text(sweeps, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    write_report(sweeps, out)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_tables_have_the_numbers_of_the_rows(page, scenario):
    methods = {"baseline": "baseline", "bt-7": "BT-7", "st-m1": "ST-M1"}  # the paper's order
    heads = ["model", *(f"{r}\xa0px" for r in RESOLUTIONS)]
    accuracies, thresholds = [heads], [heads]
    for method, label in methods.items():
        rows = [row for row in make_rows(method) if row["scenario"] == scenario]
        accuracies.append([label] + [f"{100 * row['accuracy']:.2f} ± 0.60" for row in rows])
        thresholds.append(
            [label]
            + [f"{row['threshold']:.3f} {row['positive_distance']:.3f} | 0.980" for row in rows]
        )
    assert page.table(f"{scenario} accuracy on lfw") == accuracies
    assert page.table(f"{scenario} thresholds on lfw") == thresholds


def test_the_best_of_each_column_is_bold(page):
    rows = {
        m: [r for r in make_rows(m) if r["scenario"] == "CR"] for m in ("baseline", "bt-7", "st-m1")
    }
    best = [
        max(column, key=lambda row: row["accuracy"]) for column in zip(*rows.values(), strict=True)
    ]
    expected = sorted(f"{100 * row['accuracy']:.2f}" for row in best)
    assert sorted(page.bold["CR accuracy on lfw, %"]) == expected


def test_equal_as_printed_is_bold_alike_and_one_model_is_not_bold(tmp_path):
    a = write_sweep(tmp_path / "a", make_rows("bt-m", resolutions=[7, 112], accuracy=0.9))
    b = write_sweep(tmp_path / "b", make_rows("st-m1", resolutions=[7, 112], accuracy=0.900001))
    both, one = (models.read_report(dirs) for dirs in ([a, b], [a]))
    assert tables.accuracy_table(both, "lfw", "CR").count("<b>90.00</b>") == 4
    assert tables.accuracy_table(one, "lfw", "CR").count("<b>90.00</b>") == 0


def accuracies(tmp_path: Path, spread=0.001, **methods: dict[int, float]) -> models.Report:
    """A report of hand-made CR accuracies: method (bt_m for bt-m) -> resolution -> accuracy."""
    dirs = []
    for method, values in methods.items():
        method = method.replace("_", "-")
        template = next(r for r in make_rows("baseline") if r["scenario"] == "CR")
        template |= {"method": method, "model": f"runs/{method}", "accuracy_std": spread}
        rows = [template | {"resolution": r, "accuracy": a} for r, a in values.items()]
        dirs.append(write_sweep(tmp_path / method, rows))
    return models.read_report(dirs)


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
        # (78 + 82) / 2 against (55 + 60) / 2
        "At 5 and 7 px, ST-M1 mends it best: 80.0 % against 57.5 % on average, 22.5 points more.",
        "At 112 px, ST-M1 is 2.0 points below the baseline (97.0 % against 99.0 %).",
        # (78 + 82 + 94 + 97) / 4; BT-M has 86.55
        "Averaged over 4 resolutions, ST-M1 has the highest accuracy (87.8 %).",
    ]


def test_findings_without_a_baseline(tmp_path):
    report = accuracies(tmp_path, bt_m={7: 0.8, 112: 0.99}, st_m1={7: 0.85, 112: 0.97})
    headline, sentences = findings(report, "lfw")
    assert headline == "From 112 px to 7 px, ST-M1 loses 12.0 points of accuracy"
    assert sentences[1:3] == [
        "At 7 px, ST-M1 is the best of 2 models, 5.0 points ahead of BT-M (85.0 % against 80.0 %). "
        "No baseline was measured.",
        "At 112 px, ST-M1 is 2.0 points below BT-M (97.0 % against 99.0 %).",
    ]


def test_findings_claim_no_gain_that_is_none(tmp_path):
    worse = accuracies(tmp_path / "a", baseline={7: 0.6, 56: 0.9}, bt_m={7: 0.58, 56: 0.9})
    headline, sentences = findings(worse, "lfw")
    assert headline == "From 56 px to 7 px, the baseline loses 30.0 points of accuracy"
    assert "when one of the two has 56 px" in sentences[0]
    assert sentences[1] == (
        "At 7 px, no model mends it: BT-M comes closest with 58.0 % against 60.0 % of the baseline "
        "(-2.0 points)."
    )
    assert sentences[2] == ("At 56 px, BT-M is level with the baseline (90.0 % against 90.0 %).")
    noisy = accuracies(tmp_path / "b", 0.02, baseline={7: 0.6, 112: 0.9}, bt_m={7: 0.61, 112: 0.9})
    headline, sentences = findings(noisy, "lfw")
    assert "wins back" not in headline
    assert sentences[1].endswith(
        "1.0 points more, less than the spread over the folds (± 2.0), so no clear difference."
    )


def test_findings_of_what_cannot_be_compared(tmp_path):
    alone = accuracies(tmp_path / "a", baseline={7: 0.6, 112: 0.9})
    assert findings(alone, "lfw")[1][1:] == ["No other method was measured."]
    level = accuracies(tmp_path / "b", baseline={7: 0.9, 112: 0.9})
    assert findings(level, "lfw")[0] == "From 112 px to 7 px, the baseline loses nothing"
    apart = accuracies(tmp_path / "c", baseline={7: 0.6, 112: 0.9}, bt_m={14: 0.8, 112: 0.9})
    headline, sentences = findings(apart, "lfw")
    assert headline == "baseline and BT-M measured on lfw"
    assert "no fall to speak of" in sentences[0]


def test_the_findings_head_the_page(sweeps, page):
    headline, sentences = findings(models.read_report(sweeps), "lfw")
    assert page.texts["h1"] == [headline.replace(" px", "\xa0px").replace(" points", "\xa0points")]
    shown = [text.replace("\xa0", " ") for text in page.texts["p"]]
    assert shown[1:5] == sentences


def test_many_low_resolutions_are_named_as_a_range(tmp_path):
    values = {r: 0.6 for r in range(5, 15)} | {112: 0.9}
    report = accuracies(tmp_path, baseline=values, bt_m={r: 0.7 for r in values})
    assert findings(report, "lfw")[1][1].startswith("From 5 to 10 px, BT-M mends it best")


def test_the_page_needs_nothing_else(text, page):
    assert "http" not in text  # neither loads nor names of anything elsewhere
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, name, value)
    assert not re.search(r"@import|url\((?!#)", text)
    targets = {a["id"] for _, a in page.tags if "id" in a}
    links = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert links <= targets
    assert len(text) < 3_000_000


def test_ids_are_unique_and_every_reference_has_one(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    uses = {a["xlink:href"][1:] for _, a in page.tags if "xlink:href" in a}
    clips = {m for _, a in page.tags for m in re.findall(r"url\(#(.*?)\)", a.get("clip-path", ""))}
    assert uses
    assert clips
    assert uses | clips <= set(ids)


def test_figures_follow_the_page_into_dark_mode(text):
    for stand_in in (figures.INK, figures.RULE):
        assert stand_in not in text
    css = text[text.index("<style>") : text.index("</style>")]
    used = set(re.findall(r"var\((--\w+)", text))
    assert {"--ink", "--rule", "--c1"} <= used
    dark = css[css.index("prefers-color-scheme: dark") :]
    assert all(f"{name}:" in dark and css.count(f"{name}:") == 2 for name in used)


HOSTILE = "<script>alert('1')</script>&\"$x_1$<img src=x onerror=y>"


def test_text_from_files_is_only_ever_text(tmp_path):
    # two models of one method, so that their names are in the labels; '/' splits a path
    name = HOSTILE.replace("/", "")
    dirs = []
    for i in range(2):
        rows = make_rows("bt-m", HOSTILE, [7, 112], model=f"runs/{name}{i}")
        for row in rows:
            row |= {"method": HOSTILE}
            row |= {"degradation": HOSTILE, "precision": HOSTILE, "thresholds": HOSTILE}
        training = {
            "config": {HOSTILE: HOSTILE},
            "run": [dict.fromkeys(["started", "command", "commit", "devices", "images"], HOSTILE)],
            "seconds": HOSTILE,
        }
        call = {"command": HOSTILE, "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}}
        call |= {"devices": [HOSTILE], "seconds": HOSTILE}
        about = {"calls": [call], "images": HOSTILE, "training": training}
        dirs.append(write_sweep(tmp_path / f"<b>{i}", rows, method="bt-m", **about))
        write_lines(
            dirs[-1] / "metrics.jsonl",
            [{"step": 1, "epoch": 1, "benchmark": HOSTILE, "verification_accuracy": 0.5}],
        )
    page = report_page(tmp_path, dirs)
    for tag, attributes in page.tags:
        assert tag != "script"
        assert not any(key.startswith("on") for key in attributes)
        assert attributes.get("src", "data:").startswith("data:")
    assert f"{HOSTILE} ({name}0)" in [text.strip() for text in page.texts["li"]]
    assert page.texts["h2"][0] == f"Accuracy on {HOSTILE}"
    assert HOSTILE in page.texts["code"]
    assert page.table("CR accuracy")[1][0] == f"{HOSTILE} ({name}0)"


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
            "lfw, 6,000 pairs of 7,701 images",
            "Sweep took12 min 34 s",
            "Commit0123abc",
            "1 × NVIDIA H100",
            "jax 0.10.2",
        ):
            assert part in runs[label]
    config = {"method": "st-m1", "seed": 17, "optimizer": {"learning_rate": 0.01, "momentum": 0.9}}
    assert json.loads(page.texts["pre"][0]) == config


def test_training_and_sweep_may_differ_and_training_may_be_unknown(tmp_path):
    rows = make_rows(resolutions=[7, 112])
    call = {"command": "crfr sweep", "commit": "fedcba9", "versions": ["jax 1"], "devices": "cpu"}
    other = write_sweep(tmp_path / "a", rows, calls=[call | {"seconds": 60.0}] * 2)
    card = provenance.provenance(models.read_report([other]).sweeps[0], "x")
    for part in ("Commit, training</dt><dd><code>0123abc", "Commit, sweep</dt><dd><code>fedcba9"):
        assert part in card
    assert "<dt>Sweep took</dt><dd>2 min" in card
    none = write_sweep(
        tmp_path / "b", rows, training=None, calls=[call | {"commit": None, "seconds": 1.0}]
    )
    card = provenance.provenance(models.read_report([none]).sweeps[0], "x")
    assert "<dt>Training</dt><dd>none on record</dd>" in card
    assert "<dt>Commit</dt><dd>–</dd>" in card
    assert "<details>" not in card


def test_samples_are_shown_from_high_to_low(page, sweeps):
    strips = [(a["alt"], a["src"]) for tag, a in page.tags if tag == "img"]
    assert [alt for alt, _ in strips] == [f"faces at {r} px" for r in sorted(RESOLUTIONS)[::-1]]
    for r, (_, source) in zip(sorted(RESOLUTIONS)[::-1], strips, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))), float)
        there = np.asarray(Image.open(sweeps[0] / "samples" / f"{r}.png"), float)
        assert shown.shape == there.shape
        assert np.abs(shown - there).mean() < 2  # JPEG


def test_a_wide_strip_is_cut_and_a_broken_one_is_named(tmp_path):
    sweep = write_sweep(tmp_path / "a", make_rows(resolutions=[7, 112]))
    for path in (sweep / "samples").iterdir():
        path.unlink()
    Image.new("RGB", (112 * 50, 112)).save(sweep / "samples" / "7.png")
    page = report_page(tmp_path, [sweep])
    (source,) = [a["src"] for tag, a in page.tags if tag == "img"]
    assert Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).size == (1120, 112)
    (sweep / "samples" / "7.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"samples/7\.png: no readable image"):
        write_report([sweep], tmp_path / "report.html")


def test_missing_samples_and_metrics_leave_a_note(tmp_path):
    sweep = write_sweep(tmp_path / "a", make_rows("bt-m", resolutions=[7, 112]), method="bt-m")
    (sweep / "metrics.jsonl").unlink()
    for path in (sweep / "samples").iterdir():
        path.unlink()
    page = report_page(tmp_path, [sweep])
    notes = [text for text in page.texts["p"] if text.startswith(("No sample", "BT-M: no"))]
    assert len(notes) == 2
    assert "BT-M: no metrics.jsonl, so no curves." in notes
    assert not any(tag == "img" or a.get("class") == "panels" for tag, a in page.tags)


def curves(svg: str, colour: str) -> list[str]:
    """The paths drawn as lines in a colour."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg, re.DOTALL)
    return [d for d, style in paths if f"stroke: {colour}" in style and "fill: none" in style]


def panel(report: models.Report, name: str) -> str:
    found = dict(figures.training_figures(list(report.models), figures.styles(report.models)))
    return found[name]


def test_a_curve_has_a_gap_where_the_log_has_none(tmp_path):
    sweep = write_sweep(tmp_path / "a", make_rows(resolutions=[7, 112]))
    log = [{"step": s, "epoch": s / 10, "loss": 5.0 - s / 10} for s in range(1, 31)]
    log[9]["loss"], log[19]["loss"] = float("nan"), None
    write_lines(sweep / "metrics.jsonl", log)
    report = models.read_report([sweep])
    (line,) = [d for d in curves(panel(report, "Loss"), "var(--ink)") if d.count("L") > 10]
    assert line.count("M") == 3  # three pieces, two gaps
    assert len(figures.training_figures(list(report.models), figures.styles(report.models))) == 1
    write_report([sweep], tmp_path / "r.html")
    assert "1 log lines without a finite loss" in (tmp_path / "r.html").read_text()


def test_a_method_without_a_distance_has_no_curve_of_it(sweeps):
    report = models.read_report(sweeps)
    styles = figures.styles(report.models)
    svg = panel(report, "Distance of views")
    shown = {
        label for label, (colour, _) in styles.items() if curves(svg, figures.VARIABLES[colour])
    }
    assert shown == {"ST-M1"}
    assert set(dict(figures.training_figures(list(report.models), styles))) == {
        "Accuracy on lfw, 112 px, %",
        *(name for name, _ in figures.TRAINING),
    }


def test_a_resumed_log_counts_once_and_ends_at_the_step_of_the_model(tmp_path):
    sweep = write_sweep(tmp_path / "a", make_rows(resolutions=[7, 112], step=30))
    log = [{"step": s, "loss": 1.0} for s in (10, 20, 30, 40)]
    log += [{"step": s, "loss": 2.0} for s in (30, 40)]  # goes on from a checkpoint at 20
    write_lines(sweep / "metrics.jsonl", log)
    (model,) = models.read_report([sweep]).models
    records = figures.training_records(model)
    assert [(r["step"], r["loss"]) for r in records] == [(10, 1.0), (20, 1.0), (30, 2.0)]


def test_long_logs_are_thinned_to_means(tmp_path):
    sweep = write_sweep(tmp_path / "a", make_rows(resolutions=[7, 112], step=5000))
    write_lines(sweep / "metrics.jsonl", [{"step": s, "loss": s % 2} for s in range(1, 5001)])
    svg = panel(models.read_report([sweep]), "Loss")
    (line,) = [d for d in curves(svg, "var(--ink)") if "L" in d]
    assert figures.POINTS / 2 < line.count("L") <= figures.POINTS


def test_accuracy_figure_draws_cr_solid_and_er_dotted(tmp_path):
    dirs = [write_sweep(tmp_path / m, make_rows(m), method=m) for m in ("baseline", "bt-m")]
    report = models.read_report(dirs)
    styles = figures.styles(report.models)
    assert len(set(styles.values())) == 2
    svg = figures.accuracy_figure(report, "lfw", styles, 8.0)
    for colour, _ in styles.values():
        lines = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg, re.DOTALL)
        variable = figures.VARIABLES[colour]
        lines = [
            (d, style)
            for d, style in lines
            if style.startswith("fill: none") and variable in style and d.count("L") == 5
        ]
        assert ["stroke-dasharray" in style for _, style in lines] == [True, False]  # ER below CR
        # the curve of CR: as far up the figure as the accuracies are, one scale for all
        heights = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", lines[1][0])]
        method = "baseline" if colour == figures.INK else "bt-m"
        values = [accuracy(method, r) for r in RESOLUTIONS]
        slope, rest = np.polyfit(values, heights, 1)
        assert slope < 0
        np.testing.assert_allclose(heights, np.polyval([slope, rest], values), atol=1e-3)


def test_one_resolution_and_perfect_accuracy_are_drawn(tmp_path):
    rows = make_rows(resolutions=[112], accuracy=1.0, accuracy_std=0)
    sweep = write_sweep(tmp_path / "a", rows)
    write_lines(sweep / "metrics.jsonl", [{"step": 1, "loss": 2, "accuracy": 1}])
    page = report_page(tmp_path, [sweep])
    assert page.texts["h1"] == ["baseline measured on lfw"]
    assert page.table("CR accuracy on lfw")[1] == ["baseline", "100.00 ± 0.00"]


def test_43_models_look_different_and_the_baseline_is_ink(tmp_path):
    many = [models.Model(f"m{i}", "baseline" if i == 3 else "bt-m", 1, (), {}) for i in range(43)]
    styles = figures.styles(many)
    assert len(set(styles.values())) == len(many)
    assert [label for label, (colour, _) in styles.items() if colour == figures.INK] == ["m3"]


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


def test_the_papers_numbers_are_marked_as_the_papers(page):
    theirs = page.table(
        "The paper’s table 2: CR accuracy on LFW, %, models trained on 5.8 M images"
    )
    assert [row[0].split() for row in theirs[1:]] == [["baseline", "paper"], ["ST-M1", "paper"]]
    assert theirs[1][1:] == ["99.23", "96.86", "99.20", "95.89", "77.57", "54.65", "2 h"]
    ours = page.table("This report: CR accuracy on lfw")
    expected = [f"{100 * accuracy('bt-7', r):.2f}" for r in (112, 5)]
    assert ours[2] == ["BT-7", *expected, "12,669"]


def test_other_methods_and_benchmarks_have_nothing_beside_them(tmp_path):
    rows = make_rows("bt-7", "faces", [5, 112])
    report = models.read_report([write_sweep(tmp_path / "a", rows, method="bt-7")])
    assert tables.paper_tables(report) == ""
    assert tables.beside_paper(report) == ""
    rows = [row | {"method": "bt-16"} for row in rows]
    report = models.read_report([write_sweep(tmp_path / "b", rows, method="bt-7")])
    assert "98.17" in tables.paper_tables(report)


def test_summary_table(tmp_path):
    accuracies(tmp_path, baseline={5: 0.5512, 112: 0.991}, st_m1={5: 0.7, 14: 0.9, 112: 1.0})
    assert tables.summary_table([tmp_path / "st-m1", tmp_path / "baseline"]) == (
        "CR accuracy in % on lfw\n"
        "model      5 px  14 px 112 px\n"
        "baseline  55.12      –  99.10\n"
        "ST-M1     70.00  90.00 100.00"
    )


def test_summary_of_a_full_sweep_fits_a_terminal(tmp_path):
    rows = make_rows("baseline", resolutions=range(5, 113))
    summary = tables.summary_table([write_sweep(tmp_path / "a", rows)])
    assert summary.startswith("CR accuracy in % on lfw (10 of 108 resolutions)\n")
    assert max(map(len, summary.splitlines())) <= 80


def labels(*keys: tuple[str, int, str]) -> list[str]:
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


def test_sweeps_of_one_model_are_one_model(tmp_path):
    lfw = write_sweep(tmp_path / "a", make_rows(resolutions=[7, 112]))
    again = write_sweep(tmp_path / "b", make_rows(resolutions=[7, 112]))  # the same rows
    cfp = write_sweep(
        tmp_path / "c", make_rows(benchmark="cfp_fp", resolutions=[7, 112], pairs=7000)
    )
    report = models.read_report([lfw, again, cfp])
    assert report.benchmarks == ("lfw", "cfp_fp")
    assert [model.label for model in report.models] == ["baseline"]
    page = report_page(tmp_path, [lfw, again, cfp])
    assert page.texts["h2"][:2] == ["Accuracy on lfw", "Accuracy on cfp_fp"]
    assert len(page.table("CR accuracy on cfp_fp")) == 2
    assert page.texts["h3"][-3:] == ["baseline"] * 3  # each sweep has its card


@pytest.mark.parametrize("name", ["degradation", "precision", "thresholds", "flip", "pairs"])
def test_numbers_measured_in_different_ways_are_kept_apart(tmp_path, name):
    other = {"flip": True, "pairs": 600}.get(name, "other")
    a = write_sweep(tmp_path / "a", make_rows("baseline"))
    b = write_sweep(tmp_path / "b", make_rows("bt-m", **{name: other}), method="bt-m")
    with pytest.raises(InputError) as caught:
        write_report([a, b], tmp_path / "report.html")
    message = str(caught.value)
    assert name in message
    assert f"{make_rows()[0][name]!r} in {a}" in message
    assert f"{other!r} in {b}" in message
    assert "\n" not in message
    assert not (tmp_path / "report.html").exists()


def test_two_models_of_one_name_are_kept_apart(tmp_path):
    a = write_sweep(tmp_path / "a", make_rows(resolutions=[112]))
    b = write_sweep(tmp_path / "b", make_rows(resolutions=[7]), model_fingerprint="other")
    with pytest.raises(InputError, match=r"fingerprint of model 'runs/baseline', step"):
        write_report([a, b], tmp_path / "report.html")


def test_two_benchmarks_of_one_name_are_kept_apart(tmp_path):
    a = write_sweep(tmp_path / "a", make_rows("baseline"))
    other = make_rows("bt-m")
    b = write_sweep(tmp_path / "b", other, method="bt-m", benchmark_fingerprint="fedcba")
    with pytest.raises(
        InputError, match=r"differ in fingerprint of benchmark 'lfw': '0123.*fedcba"
    ):
        write_report([a, b], tmp_path / "report.html")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, r"rows\.jsonl line 3: schema 2, but this crfr reads 1"),
        ({"schema": None}, r"line 3: schema None"),
        ({"threshold": None}, r"line 3: no threshold: "),
        ({"accuracy": float("nan")}, r"line 3: accuracy is nan, not a finite number"),
        ({"negative_distance": float("inf")}, r"line 3: negative_distance is inf"),
        ({"accuracy": 97.3}, r"line 3: accuracy 97\.3 with std 0\.006, not fractions"),
        ({"accuracy": "0.9"}, r"line 3: accuracy is '0\.9', not float"),
        ({"accuracy": True}, r"line 3: accuracy is True, not float"),
        ({"resolution": 7.5}, r"line 3: resolution is 7\.5, not int"),
        ({"resolution": 0}, r"line 3: resolution 0"),
        ({"pairs": True}, r"line 3: pairs is True, not int"),
        ({"flip": 0}, r"line 3: flip is 0, not bool"),
        ({"scenario": "CRA"}, r"line 3: unknown scenario 'CRA': did you mean 'CR"),
        ({"model": "runs/other"}, r"more than one \(model, step, method\)"),
        ({"accuracy": 0.51, "resolution": 7}, r"CR at 7 px is there twice with different values"),
    ],
)
def test_bad_rows_are_refused(tmp_path, changes, message):
    sweep = write_sweep(tmp_path / "a")
    change_line(sweep / "rows.jsonl", 3, **changes)  # CR at 5 px
    with pytest.raises(InputError, match=message) as caught:
        write_report([sweep], tmp_path / "report.html")
    assert "\n" not in str(caught.value)
    assert str(sweep) in str(caught.value)


def test_damaged_directories_are_refused(tmp_path):
    sweep = write_sweep(tmp_path / "a")
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
        ("sweep.json", json.dumps(changed | {"step": 1}).encode(), "more than one"),
        ("sweep.json", json.dumps(changed | {"training": []}).encode(), r"training is \[\]"),
        ("sweep.json", json.dumps(changed | {"calls": "x"}).encode(), "calls is 'x'"),
        ("sweep.json", json.dumps(changed | {"calls": [{}]}).encode(), r"calls hold \{\}"),
        ("sweep.json", json.dumps(changed | {"calls": []}).encode(), "calls hold None"),
        ("sweep.json", json.dumps({"schema": 1}).encode(), "no model, step"),
        ("metrics.jsonl", log + b'{"step"', r"metrics\.jsonl line \d+: not JSON"),
        ("metrics.jsonl", b'{"loss": 1}', r"metrics\.jsonl line 1: step is None"),
    ]:
        whole = (sweep / name).read_bytes()
        (sweep / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            models.read_report([sweep])
        assert "\n" not in str(caught.value)
        (sweep / name).write_bytes(whole)
    for name in ("rows.jsonl", "sweep.json"):
        whole = (sweep / name).read_bytes()
        (sweep / name).unlink()
        with pytest.raises(InputError, match=rf"{name} is missing \(unfinished\)"):
            models.read_report([sweep])
        (sweep / name).write_bytes(whole)
    with pytest.raises(InputError, match="no such directory"):
        models.read_report([tmp_path / "b"])
    with pytest.raises(InputError, match="no sweep directory"):
        models.read_report([])
    models.read_report([sweep])


def test_the_page_is_written_whole_or_not_at_all(tmp_path, sweeps, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("the page before")

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space"):
            write_report(sweeps[:1], out)
    with pytest.raises(InputError, match="is a directory"):
        write_report(sweeps[:1], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert out.read_text() == "the page before"


def test_the_same_sweeps_give_the_same_page(tmp_path, sweeps, text):
    write_report(sweeps, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text


def test_a_full_sweep_of_several_benchmarks_stays_small(tmp_path):
    dirs = []
    for method in ("baseline", "st-m1"):
        rows = [
            row for name in ("lfw", "agedb_30") for row in make_rows(method, name, range(5, 113))
        ]
        dirs.append(write_sweep(tmp_path / method, rows, method=method))
    page = report_page(tmp_path, dirs)
    assert len(page.table("CR accuracy on agedb_30")[1]) == 109
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_the_report_imports_no_jax():
    modules = "crfr.report.page, crfr.report.tables, sys"
    check = "assert not {'jax', 'jaxlib', 'flax', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import {modules}; {check}"], check=True)


@pytest.mark.parametrize("module", [models, paper, provenance])
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed
