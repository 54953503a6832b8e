"""The command line: every config from train to report, the pages' commands, the errors."""

import argparse
import contextlib
import importlib.util
import json
import shlex
import subprocess
import sys

import pages
import pytest

from crfr import commands, main
from crfr.errors import InputError

ROOT = pages.ROOT
SMALL = [
    "--config.data=faces:identities=8,images=4",
    "--config.run.benchmark=faces:identities=5,images=4",
    "--config.batch=16",
    "--config.model.bn_group=16",
    "--config.model.width=4",
    "--config.epochs=1",
    "--config.schedule.warmup_epochs=0.5",
]


CONFIGS = [
    ("baseline.py:quick", "baseline", "baseline"),
    ("bt.py:r=10,quick", "bt-10", "BT-10"),  # compiled for the notebook, too
    ("bt_m.py:quick", "bt-m", "BT-M"),
    ("st.py:quick,r=14", "st-14", "ST-14"),
    ("st_m1.py:quick", "st-m1", "ST-M1"),
    ("st_m2.py:quick", "st-m2", "ST-M2"),
]


@pytest.mark.usefixtures("one_device")
def test_every_config_from_train_to_report(tmp_path):
    page, sweeps = tmp_path / "report.html", []
    for config, method, _ in CONFIGS:
        run, swept = tmp_path / method, tmp_path / f"{method}-sweep"
        main.run(["train", f"--config=configs/{config}", f"--workdir={run}", *SMALL])
        main.run(["sweep", f"--model={run}", "--benchmark=faces:identities=5,images=4",
                  "--resolutions=7,112", f"--out={swept}"])  # fmt: skip
        rows = [json.loads(line) for line in (swept / "rows.jsonl").read_text().splitlines()]
        assert {row["method"] for row in rows} == {method}
        assert {(row["resolution"], row["scenario"]) for row in rows} == {
            (r, s) for r in (7, 112) for s in ("CR", "CR_A", "CR_B", "ER")
        }
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert metrics[-1]["step"] == 2
        distance = [row["distance"] for row in metrics if "loss" in row]
        assert all(d > 0 for d in distance) if method.startswith("st") else not any(distance)
        sweeps.append(str(swept))
    main.run(["report", f"--sweep={','.join(sweeps)}", f"--out={page}"])
    text = page.read_text()
    assert "</html>" in text
    assert all(name in text for _, _, name in CONFIGS)


def test_config_files_are_short_and_tell_their_command():
    for path in (ROOT / "configs").glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 90
        assert f"crfr train --config=configs/{path.stem}.py" in text


# what else the pages' blocks call; launch/test.sh and pytest run this suite
FOREIGN = (
    "export PYTHONPATH=",
    "gcloud compute tpus tpu-vm ssh ",
    "launch/test.sh",
    "pip install ",
    "pytest tests/",
    "python3 -m pip download ",
    "python3 -m pip install ",
    "source .venv/bin/activate",
)


def documented(handed):
    """{(words that `handed` gives, whether the command is whole): where it is first}."""
    whole = [(page, c.words, True) for page in pages.PAGES for c in pages.commands(page)]
    parts = [(p, words, False) for p in pages.PAGES + pages.HEADS for words in pages.mentioned(p)]
    found = {}
    for page, words, known in whole + parts:
        if (given := handed(words)) is not None:
            found.setdefault((*given, known), f"{page}: {' '.join(given)[:60]}")
    return found


CRFR = documented(pages.handed_to_crfr) | {
    (*words, True): f"launch/colab.ipynb: {' '.join(words)}"
    for cell in pages.cells()
    for words in pages.cell_commands(cell)
}


@pytest.mark.parametrize("page", pages.PAGES)
def test_no_line_of_a_page_s_blocks_is_passed_over(page):
    """Each is of crfr or of benchmarks/, which are parsed below, or of a few others."""
    assert (ROOT / page).read_text().count("```") == 2 * len(pages.blocks(page))
    assert {language for language, _ in pages.blocks(page)} <= {"bash", "python"}
    for words in (command.words for command in pages.commands(page)):
        assert not {"&&", "||", "|", ";", "&"} & set(words), "one command a line"
        ours = pages.handed_to_crfr(words) or pages.handed_to_benchmark(words)
        assert ours or " ".join(words).startswith(FOREIGN), " ".join(words)


def test_documented_commands_of_benchmarks_parse():
    """By the scripts' own parsers; one without a parser takes no flags."""
    for name, *words, _ in documented(pages.handed_to_benchmark):
        if name == "torch_resnet" and not importlib.util.find_spec("torch"):
            continue
        script = importlib.import_module(f"benchmarks.{name}")
        flags = getattr(script, "make_parser", argparse.ArgumentParser)().parse_args(words)
        assert not getattr(flags, "rows", "") or script.chosen(flags.rows)


@pytest.mark.parametrize("command", CRFR, ids=CRFR.values())
def test_documented_commands_parse(command, monkeypatch):
    """By the real parser, up to the function that would do the work."""
    import crfr.apply
    import crfr.bench.embed
    import crfr.bench.input
    import crfr.bench.kills
    import crfr.bench.memory
    import crfr.bench.step
    import crfr.bench.sweep
    import crfr.measure
    import crfr.prepare
    import crfr.publish
    import crfr.quickstart
    import crfr.report.page
    import crfr.reproduce

    called = []
    for module, name in [
        (commands, "train"),
        (crfr.measure, "sweep"),
        (crfr.measure, "protocols"),
        (crfr.measure, "dataset"),
        (crfr.report.page, "write_report"),
        (crfr.quickstart, "quickstart"),
        (crfr.reproduce, "reproduce"),
        (crfr.bench.step, "bench_step"),
        (crfr.bench.memory, "bench_memory"),
        (crfr.bench.embed, "bench_embed"),
        (crfr.bench.input, "bench_input"),
        (crfr.bench.sweep, "bench_sweep"),
        (crfr.bench.kills, "bench_kills"),
        (crfr.prepare, "convert"),
        (crfr.prepare, "doctor"),
        (crfr.prepare, "holdout"),
        (crfr.apply, "calibrate"),
        (crfr.apply, "embed"),
        (crfr.apply, "search"),
        (crfr.publish, "export"),
        (crfr.publish, "card"),
    ]:
        monkeypatch.setattr(module, name, lambda *a, name=name, **k: called.append(name))
    monkeypatch.setattr(crfr.bench.memory, "on_virtual_devices", lambda *_: False)
    monkeypatch.setattr("crfr.distributed.joined", lambda *a, **k: contextlib.nullcontext())
    # a command whose exit code is its answer: True is 0
    monkeypatch.setattr(crfr.apply, "verify", lambda *a, **k: called.append("verify") or True)
    monkeypatch.setattr("crfr.keys.key_lines", lambda *_: called.append("config") or [])
    monkeypatch.setattr("crfr.keys.key_table", lambda *_: called.append("config") or "")
    *words, whole = command
    if command == ("bench", False):
        return  # all of its commands
    try:
        main.run(words)
    except InputError as error:
        if whole or " is missing" not in str(error):
            raise
    else:
        assert len(called) == 1


def test_a_wrong_command_line_is_one_line_and_code_2(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "crfr.main", "sweep", "--modle=x"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("crfr: sweep: Unknown command line flag 'modle'. Did you mean")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "unknown command 'trian': did you mean 'train'"),
        ("train", "--config is missing"),
        ("train --config=configs/bt.py", "--workdir is missing"),
        ("train --config=configs/bt_n.py --workdir=x", "did you mean 'configs/bt_m.py'"),
        ("train --config=README.md --workdir=x", "a config is a Python file"),
        ("train --config=nowhere/bt_m.py --workdir=x", "unknown config 'nowhere/bt_m.py'"),
        ("train --config=/my/configs/bt_m.py --workdir=x", "unknown config '/my/configs/bt_m.py'"),
        ("train --config=my/configs/bt_m.py --workdir=x", "unknown config 'my/configs/bt_m.py'"),
        ("train --config=configs/bt.py --config.schedule.drops=a,b --workdir=x", "schedule.drops"),
        ("train --config=configs/bt.py --config.epochs=8 --workdir=x", "drops.*never come"),
        ("train --config=configs/bt.py --config.distance_weight=3 --workdir=x", "has no distance"),
        ("train --config=configs/bt.py --config.margin.name=arc --workdir=x", "'arcface'"),
        ("train --config=configs/bt.py --config.margin.gradient=ture --workdir=x", "'true'"),
        ("train --config=configs/bt.py --config.model.dtype=float64 --workdir=x", "JAX_ENABLE_X64"),
        ("train --config=configs/bt.py:q=3 --workdir=x", "unknown argument of bt.py 'q'"),
        ("train --config=configs/bt.py:r=x --workdir=x", "r takes a whole number"),
        ("train --config=configs/bt.py:quick=1 --workdir=x", "quick takes no value"),
        ("train --config=configs/bt.py:r=5,r=9 --workdir=x", "r is given twice"),
        ("train --config=configs/bt.py --config.epoch=3 --workdir=x", 'Did you mean "epochs"'),
        ("train --config=configs/bt.py --config.modle.name=a --workdir=x", 'Did you mean "model"'),
        ("train --config=configs/bt.py --config.epochs=many --workdir=x", "config.epochs=many"),
        ("train --config=configs/bt.py --workdir=x --data=y", "Unknown command line flag 'data'"),
        ("train --config=configs/bt.py --workdir=", "--workdir is missing"),
        ("train -config=configs/bt_n.py --workdir=x", "did you mean 'configs/bt_m.py'"),
        ("train configs/bt.py", "unexpected argument 'configs/bt.py'"),
        ("sweep --model=x --benchmark=faces", "--out is missing"),
        (
            "sweep --model=x --benchmark=faces --out=y --resolutions=7,a",
            "'a' is not a whole number",
        ),
        ("sweep --model=x --benchmark=faces --out=y --thresholds=exakt", "did you mean 'exact'"),
        ("sweep --model=x --benchmark=faces --out=y --degradation=cubic", "did you mean 'bicubic'"),
        (
            "sweep --model=/no/run --benchmark=faces:identities=5,images=4 --out=y",
            "no config.json there",
        ),
        ("sweep --model=x --benchmark=facez --out=y", "did you mean 'faces'"),
        ("report", "--sweep is missing"),
        ("convert --data=faces --out=gs://bucket/x", "is a URL; write to a local folder"),
        ("doctor --data=faces --out=gs://bucket/x", "is a URL; write to a local folder"),
        ("report --sweep=/no/such", "rows.jsonl is missing"),
        ("bench", "unknown bench command ''"),
        ("bench stp", "did you mean 'step'"),
    ],
)
def test_errors_name_the_nearest(line, message, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=message) as refusal:
        main.run(shlex.split(line.replace("=y", f"={tmp_path}/y")))
    assert len(str(refusal.value).splitlines()) == 1
    assert "\\x0a" not in str(refusal.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("st.py:r=x", "st.py:r=x: r takes a whole number, as in r=7"),
        ("st.py:r=7,r=8", "st.py:r=7,r=8: r is given twice"),
        ("bt_m.py:r=7", "unknown argument of bt_m.py 'r': Known: quick"),
    ],
)
def test_a_refused_argument_of_a_config_is_the_config_file_s_own_words(argument, message):
    """ml_collections makes another error of it, with the traceback and its line breaks in it."""
    with pytest.raises(InputError) as refusal:
        main.run(["config", f"--config=configs/{argument}"])
    assert str(refusal.value) == f"config: {message}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def get_config(a=None):\n    return undefined", "own.py:2: NameError: name 'undefined'"),
        ("def get_config(a=None)\n    return 1", "own.py:1: expected ':'"),
        ("def get_config(a=None):\n    return 1 + None", "own.py:2: TypeError: unsupported"),
        ("def get_config(a=None):\n    assert a", "own.py:2: AssertionError"),
        ("open('/nowhere.txt')", "own.py: .*No such file or directory: '/nowhere"),
        ("def get_config(a=None):\n    return {'seed': 1}", "returns no config of crfr.recipe"),
        ("def get_config(a=None):\n    pass", "--config is missing"),
        ("x = 1", "defines no get_config"),
        (
            "from crfr.recipe import recipe\ndef get_config(a=None):\n    c = recipe()\n"
            "    c.model.widht = 3\n    return c",
            'own.py:4: .*Did you mean "width"',
        ),
    ],
)
def test_a_mistake_in_a_config_file_is_named_by_its_line(body, message, tmp_path, monkeypatch):
    # a second file loaded in one process would find the names of the first
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    own = tmp_path / "own.py"
    own.write_text(body)
    for words in ([f"--config={own}"], ["--config", str(own)]):
        with pytest.raises(InputError, match=message) as refusal:
            main.run(["train", *words, f"--workdir={tmp_path}/run"])
        assert len(str(refusal.value).splitlines()) == 1


def test_help(capsys):
    main.run(["bench", "--help"])
    assert "crfr bench input: Time" in capsys.readouterr().out
    main.run([])
    assert "quickstart" in capsys.readouterr().out
    with pytest.raises(SystemExit) as leave:
        main.run(["sweep", "--help"])
    assert leave.value.code == 0
    assert "--resolutions" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["doctor --out=seen --data=", "report --out=a.html --sweep="])
def test_an_error_is_one_line_whatever_a_file_is_called(command, tmp_path, monkeypatch):
    """A line break and a terminal's colours in a name write no lines of their own."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        main.run(f"{command}faces\n\x1b[2J.rec".split(" "))
    assert "faces\\x0a\\x1b[2J" in str(caught.value)
    assert str(caught.value).isprintable()
