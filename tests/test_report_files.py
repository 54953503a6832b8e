"""The folder beside the page: its numbers, and that it is written whole or not at all."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from report_page import Page, report_page
from sweeps import write_lines, write_sweep

from crfr.errors import InputError
from crfr.report import files, formats
from crfr.report.page import write_report
from crfr.report.tables import Table

SMALL = {"pairs": 60, "resolutions": (7, 28, 112)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("files")
    return write_sweep(root / "a", "bt-m", matrix=True, protocols={"seeded": 3}, **SMALL)


@pytest.fixture(scope="module")
def written(sweep, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "my page.html"
    write_report([sweep], out)
    return out


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_every_link_has_its_file_and_every_file_is_listed(written):
    folder = written.with_name("my page_files")
    links = {a["href"] for tag, a in Page(written.read_text()).tags if tag == "a"}
    links = {link.replace("%20", " ") for link in links if not link.startswith("#")}
    assert links
    assert all((written.parent / link).is_file() for link in links)
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {*json.loads((folder / "report.json").read_text())["files"], "report.json"} == there
    linked = {str(Path(link).relative_to("my page_files")) for link in links}
    rest = {name for name in there - linked if not name.startswith("matrix/")}
    assert rest == {"report.json", "rows.csv", "tables/samples-lfw.csv", "tables/samples-lfw.md"}
    assert all(name.endswith((".csv", ".md", ".svg", ".png", ".json")) for name in there)


def test_rows_csv_has_every_row(written, sweep):
    head, *lines = read_csv(written.with_name("my page_files") / "rows.csv")
    rows = [json.loads(line) for line in (sweep / "rows.jsonl").read_text().splitlines()]
    assert len(lines) == len(rows)
    found = {(r["scenario"], r["resolution"]): r for r in (dict(zip(head, x)) for x in lines)}  # noqa: B905
    for row in rows:
        resolution = "" if row["resolution"] is None else str(row["resolution"])
        line = found[row["scenario"], resolution]
        assert line["label"] == "BT-M"
        for name in ("accuracy", "accuracy_low", "threshold", "eer", "auc", "draws_std"):
            assert float(line[name]) == row[name]
        assert line["tar_0.0001"] == ""  # declined
        assert float(line["tar_0.1"]) == row["tar"]["0.1"] if row["tar"]["0.1"] else True


def test_tables_as_csv_and_markdown(written, sweep):
    folder = written.with_name("my page_files") / "tables"
    head, line = read_csv(folder / "accuracy-CR-lfw.csv")
    rows = [json.loads(x) for x in (sweep / "rows.jsonl").read_text().splitlines()]
    rows = sorted((r for r in rows if r["scenario"] == "CR"), key=lambda r: r["resolution"])
    assert head == ["model", *(f"{r} px{x}" for r in (7, 28, 112) for x in ("", ": 95 % interval"))]
    expected = ["BT-M"]
    for row in rows:
        low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
        expected += [f"{100 * row['accuracy']:.2f}", f"{low:.2f}–{high:.2f}"]
    assert line == expected
    text = (folder / "accuracy-CR-lfw.md").read_text()
    assert "| model | 7 px | 28 px | 112 px |\n|---|---:|---:|---:|\n| BT-M | " in text
    assert f"| {expected[1]} ({expected[2]}) |" in text


def test_matrices_as_csv(written, sweep):
    folder = written.with_name("my page_files") / "matrix"
    head, *lines = read_csv(folder / "lfw-BT-M-accuracy.csv")
    assert head[1:] == ["112", "28", "7"]
    assert [line[0] for line in lines] == head[1:]
    with np.load(sweep / "matrix" / "lfw-exact.npz") as file:
        expected = file["accuracy"]
    found = np.array([[float(x) for x in line[1:]] for line in lines])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_error_rates_say_why_some_are_missing(written):
    page = Page(written.read_text())
    caption = next(c for c in page.tables if c.startswith("CR error rates on lfw"))
    assert "–: FAR 0.1, 0.01, 0.001, 0.0001 of 30 negatives" in caption
    assert page.tables[caption][1][:3] == ["BT-M", "112 px", "–"]


def test_cells_are_escaped_in_every_format():
    cell = '<b>|"x"\n& y</b>'
    table = Table("x", cell, cell, ("model", cell), (((cell,), (cell, cell, "best")),), cell)
    assert "<b>|" not in formats.to_html(table).replace("<b>&lt;", "")
    (lines,) = [x for x in formats.to_markdown(table).splitlines() if x.startswith("| &lt;b&gt;")]
    assert lines.count("|") - lines.count("\\|") == 3
    assert "\n" not in lines
    head, line = csv.reader(formats.to_csv(table).splitlines(keepends=True))
    assert line == [cell, cell, cell]
    assert head[1] == cell


def test_files_of_one_name_are_told_apart():
    folder = files.Folder("x_files")
    for name in ("a", "A", "a"):  # some disks ignore case
        folder.keep(Table(name, name, "", ("model",), (((name,),),)))
    assert sorted(p for p in folder.files if p.endswith(".csv")) == [
        "tables/A-2.csv",
        "tables/a-3.csv",
        "tables/a.csv",
    ]


def test_a_folder_of_somebody_else_is_refused(tmp_path, sweep):
    folder = tmp_path / "report_files"
    folder.mkdir()
    write_report([sweep], tmp_path / "report.html")  # an empty one may be used
    write_report([sweep], tmp_path / "report.html")  # and so may ours
    (folder / "tables" / "mine.txt").write_text("keep me")
    page = (tmp_path / "report.html").read_text()
    with pytest.raises(InputError, match=r"report_files holds tables/mine\.txt, which crfr report"):
        write_report([sweep], tmp_path / "report.html")
    assert (folder / "tables" / "mine.txt").read_text() == "keep me"
    assert (tmp_path / "report.html").read_text() == page
    (folder / "tables" / "mine.txt").unlink()
    for content in ("no JSON", "[]", '{"made_by": "me", "files": []}'):
        (folder / "report.json").write_text(content)
        with pytest.raises(InputError, match="did not write: move it away"):
            write_report([sweep], tmp_path / "report.html")
    (tmp_path / "b_files").write_text("a file")
    with pytest.raises(InputError, match="b_files is no folder"):
        write_report([sweep], tmp_path / "b.html")
    (tmp_path / "c_files").symlink_to(folder)
    with pytest.raises(InputError, match="c_files is no folder"):
        write_report([sweep], tmp_path / "c.html")
    with pytest.raises(InputError, match="is a directory"):
        write_report([sweep], tmp_path)


@pytest.mark.parametrize("place", range(4))
def test_page_and_folder_are_written_whole_or_not_at_all(tmp_path, sweep, monkeypatch, place):
    out = tmp_path / "report.html"
    write_report([sweep], out)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
    more = write_sweep(tmp_path / "more", "st-m1", **SMALL)

    calls = []
    real = {name: getattr(os, name) for name in ("rename", "replace")}

    def failing(name):
        def call(*arguments):
            calls.append(name)
            if len(calls) == place + 1:
                raise OSError("no space left")
            return real[name](*arguments)

        return call

    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(os, name, failing(name))
        if place < 3:
            with pytest.raises(OSError, match="no space"):
                write_report([more], out)
        else:
            write_report([more], out)  # old away, new there, the page: three calls
    left = {p: p.read_bytes() for p in before if p.exists()}
    if place < 2:
        assert left == before
    assert out.exists()
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_page_names_its_folder(tmp_path, sweep):
    page = report_page(tmp_path, [sweep])
    assert "report_files" in page.texts["footer"][0]


def test_a_benchmark_may_have_any_name(tmp_path):
    name = "../../etc/<x>: 50 %"
    sweep = write_sweep(tmp_path / "a", benchmarks=(name,), matrix=True, **SMALL)
    page = report_page(tmp_path, [sweep])
    assert page.texts["h2"][0] == name
    names = {p.name for p in (tmp_path / "report_files/tables").iterdir()}
    assert "accuracy-CR-etc-x-50.csv" in names
    write_lines(tmp_path / "unused.jsonl", [])
