"""benchmarks/compare.py: what it makes of processes that answer, end early or hang; its table."""

import json
import os
import signal
import sys
import time

import pytest

from benchmarks import compare

# a process that times steps as it is told: what it does at each turn, from 0, is ACT's
FAKE = """
import json, os, sys, time
print("compiling", flush=True)
print('ready {"gflop": 5.0, "views": 1}', flush=True)
for turn, line in enumerate(sys.stdin):
    ACT
    print(json.dumps({"seconds": 0.5 if turn == 0 else 0.01 * turn, "loss": 4.0}), flush=True)
"""
GOOD = "pass"
ENDS_AT_THE_FIRST = "sys.exit(3)"
ENDS_IN_THE_LAST = "turn == 3 and sys.exit(3)"


def process(act):
    return [sys.executable, "-S", "-c", FAKE.replace("ACT", act)], {}


DEAF = [
    sys.executable, "-S", "-c",
    "import os, time; os.close(0); print('ready {}', flush=True); time.sleep(60)",
], {}  # fmt: skip
HANGS = [sys.executable, "-S", "-c", "import time; time.sleep(60)"], {}
BABBLES = process("print('warning', flush=True)")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs compare's main with these processes in the place of a row's: (exit code, the file)."""

    def call(*rows, budget=20.0):
        waiting = iter(rows)
        monkeypatch.setattr(compare, "LEAST", 0.0)
        monkeypatch.setattr(compare, "commands", lambda *_: next(waiting))
        named = ",".join(f"baseline:{8 * (i + 1)}" for i in range(len(rows)))
        out = tmp_path / "compare.json"
        words = [f"--out={out}", f"--rows={named}", "--rounds=3", "--seconds=0.02"]
        code = compare.main([*words, f"--budget={budget}"])
        return code, json.loads(out.read_text()) if out.exists() else None

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # put back in the end, whatever main does
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    before = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, before)


def test_a_row_of_processes_that_answer(run, capsys):
    code, written = run({"crfr": process(GOOD), "torch peers": process(GOOD)})
    assert code == 0
    assert {"bench", "rows", "cores", "time", "versions", "commit", "command"} == written.keys()
    (row,) = written["rows"]
    assert (row["method"], row["batch"]) == ("baseline", 8)
    assert list(row["figures"]) == ["crfr", "torch peers"]
    for figures in row["figures"].values():
        # the turns after the first, whose half second no figure has
        assert figures["seconds"] == [0.01, 0.02, 0.03]
        assert (figures["step_ms"], figures["images_per_second"]) == (20.0, 400.0)
        assert figures["steps"] == 1  # of half a second, for 0.02 s
    assert "compiling" in capsys.readouterr().err
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].endswith("inductor")


def test_each_compiles_alone(run, tmp_path):
    """As each tries what is fastest, on the one device."""
    note = tmp_path / "notes"
    code = (
        "import time\n"
        f"with open({str(note)!r}, 'a') as file:\n"
        "    for word in ('begins', 'ends'):\n"
        "        print(word, file=file, flush=True); time.sleep(0.3)\n"
    )
    slow = [sys.executable, "-S", "-c", code + FAKE.replace("ACT", "pass")], {}
    run({"crfr": slow, "torch peers": slow})
    assert note.read_text().split() == ["begins", "ends", "begins", "ends"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (process(ENDS_AT_THE_FIRST), "it has ended (exit code 3)"),
        (process(ENDS_IN_THE_LAST), "it has ended (exit code 3)"),
        (DEAF, "Broken pipe"),
        (BABBLES, "Expecting value"),
        (([sys.executable, "-S", "-c", "raise SystemExit(1)"], {}), "it has ended (exit code 1)"),
    ],
)
def test_what_ends_early_is_left_out_alone(run, capsys, broken, said):
    code, written = run({"torch peers": broken, "crfr": process(GOOD)})
    assert code == 0
    assert list(written["rows"][0]["figures"]) == ["crfr"]
    assert len(written["rows"][0]["figures"]["crfr"]["seconds"]) == 3
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "left out" in line)
    assert line.startswith("  torch peers is left out: ")
    assert said in line


def test_crfr_left_out_is_an_error_and_the_next_row_goes_on(run):
    rows = (
        {"crfr": process(ENDS_AT_THE_FIRST), "torch peers": process(GOOD)},
        {"crfr": process(GOOD)},
    )
    code, written = run(*rows)
    assert code == 1
    assert [list(row["figures"]) for row in written["rows"]] == [["torch peers"], ["crfr"]]


def test_what_is_not_ready_in_time_is_killed(run, capsys):
    started = time.monotonic()
    slow = {"torch max-autotune": HANGS}
    # two thirds of the budget are one row's; then it is known that what is left is too little for
    # the slow one and the timing of eight
    more = slow | {f"torch {number}": HANGS for number in range(7)}
    behind = {"torch peers": process(GOOD)}  # for which nothing is left
    code, written = run({"crfr": process(GOOD)} | slow | behind, more, budget=6)
    assert 1 < time.monotonic() - started < 15
    assert code == 0
    assert [list(row["figures"]) for row in written["rows"]] == [["crfr"]]
    output = capsys.readouterr().out
    assert f"not done in time (exit code {-signal.SIGKILL})" in output
    assert "torch peers is left out: those before it took all the time" in output
    assert "baseline 16: left out" in output
    assert "left out, 0 s are left" not in output


def test_what_was_measured_is_printed_on_sigterm(run, monkeypatch, capsys):
    measure = compare.measure

    def stop(flags, batch, *rest):
        if batch == 16:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(flags, batch, *rest)

    monkeypatch.setattr(compare, "measure", stop)
    with pytest.raises(SystemExit) as stopped:
        run({"crfr": process(GOOD)}, {"crfr": HANGS})
    assert stopped.value.code == 128 + signal.SIGTERM
    last = capsys.readouterr().out.split("stopped; ")[1]
    assert "baseline       8  crfr                         400     20.000" in last


def row_of(method, batch, **figures):
    names = ("step_ms", "gflop", "views")
    figures = {
        name: dict(zip(names, values, strict=True))
        | {"step_ms_spread": 0.0, "images_per_second": 1}
        for name, values in figures.items()
    }
    return {"method": method, "batch": batch, "figures": figures}


def test_the_table_by_hand():
    rows = [
        row_of("baseline", 8, crfr=(10.0, 100.0, 1), peers=(15.0, 107.0, 1), eager=(5.0, 89.0, 1)),
        row_of("baseline", 16, crfr=(19.0, 200.0, 1)),
        row_of("st-m1", 8, crfr=(20.0, 200.0, 2), peers=(30.0, 221.0, 2)),
        row_of("st-m2", 8, crfr=(50.0, 500.0, 5)),
        row_of("bt-m", 8, peers=(30.0, 100.0, 1)),
    ]
    text = compare.table(rows)
    assert "1.00x" in text
    assert "1.50x" in text
    assert "0.50x" in text
    assert text.splitlines()[-6:] == [
        "bt-m           8  peers                          1     30.000    0.000     100.0         ",
        "st-m1 at 8: 2.00 times the baseline's step",
        "st-m1 at 8: 0.950 of the views a second of the baseline at 16, an equal number of views a "
        "step",
        "st-m2 at 8: 5.00 times the baseline's step",  # no baseline at 40
        "!!! baseline 8: NOT THE SAME STEP, eager has 89.0 GFLOP and crfr 100.0",
        "!!! st-m1 8: NOT THE SAME STEP, peers has 221.0 GFLOP and crfr 200.0",
    ]


def test_rows_of_the_command_line():
    assert compare.chosen("st-m1:512,baseline:128:eager+default,baseline:640:") == [
        ("st-m1", 512, compare.USUAL),
        ("baseline", 128, ("eager", "default")),
        ("baseline", 640, ()),
    ]
    flags = compare.make_parser().parse_args(["--name=tiny"])
    assert list(compare.commands(flags, "st-m1", 8, ())) == ["crfr"]
    found = compare.commands(flags, "st-m1", 8, ("peers",))["torch peers"][0]
    assert " ".join(found).endswith("--name tiny --dtype bfloat16 --method st-m1 --form peers")


def test_the_rows_have_what_the_goals_ask_for():
    """The batch of the paper beside PyTorch; ST beside the baseline of as many images and views."""
    assert compare.ROWS[0] == ("baseline", 128, ("peers", "reduce-overhead"))
    goals = {
        ("baseline", 128),
        ("baseline", 256),
        ("baseline", 640),
        ("st-m1", 128),
        ("st-m2", 128),
    }
    assert {row[:2] for row in compare.ROWS} >= goals
    first = [row[:2] for row in compare.ROWS]
    assert first.index(("baseline", 256)) < first.index(("st-m1", 128))
    assert first.index(("baseline", 640)) < first.index(("st-m2", 128))
    tuned = [n for n, row in enumerate(compare.ROWS) if "max-autotune" in row[2]]
    assert min(tuned) > first.index(("st-m2", 128))


def test_the_first_of_two_rows_of_one_step_is_compared():
    def row(method, batch, ms, views=1):
        figures = {"step_ms": ms, "views": views}
        return {"method": method, "batch": batch, "figures": {"crfr": figures}}

    rows = [row("baseline", 128, 4.0), row("st-m1", 128, 8.0, 2), row("baseline", 128, 1.0)]
    assert list(compare.beside_the_baseline(rows)) == [
        "st-m1 at 128: 2.00 times the baseline's step"
    ]
