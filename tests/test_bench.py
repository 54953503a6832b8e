"""crfr bench: what it times is what train uses; its figures are there and make sense."""

import json

import pytest

from crfr import main
from crfr.bench import input as bench
from crfr.errors import InputError

DATA = "--data=faces:identities=8,images=4"


def test_input_says_which_is_the_bottleneck(tmp_path, capsys):
    out = tmp_path / "input.json"
    words = ["bench", "input", DATA, "--batch=8", "--seconds=0.1", "--threads=1,2"]
    main.run([*words, "--need=1", f"--out={out}"])
    assert "the device is the bottleneck" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [(row["threads"], row["workers"]) for row in rows] == [(1, 0), (2, 0)]
    assert all(row["images_per_second"] > 1 for row in rows)
    step = tmp_path / "step.json"
    step.write_text(json.dumps({"images_per_second": 1e9}))
    main.run([*words, f"--step={step}"])
    assert "the input is the bottleneck" in capsys.readouterr().out
    step.write_text("[]")
    with pytest.raises(InputError, match="not a file of crfr bench step"):
        main.run([*words, f"--step={step}"])


def test_cpu_seconds_count_children():
    import subprocess
    import sys

    before = bench.cpu_seconds()
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert bench.cpu_seconds() - before > 0.45
        child.communicate(b"\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data is missing"),
        ([DATA, "--threads=0"], "1 or more"),
        ([DATA, "--threads=x"], "not a whole number"),
        ([DATA, "--batch=64"], "32 images are less than a batch of 64"),
    ],
)
def test_bad_flags(words, message):
    with pytest.raises(InputError, match=message):
        main.run(["bench", "input", *words])
