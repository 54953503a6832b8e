"""The commands and the Python of README and docs run, shortened, all but those that need data of
the reader's; and after them the notebook's.
"""

import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pages
import pytest
from PIL import Image

import crfr.quickstart
from crfr import main

ROOT = pages.ROOT
# quickstart.md after README, the others use what these two train
FIRST = ["README.md", "docs/quickstart.md"]
PAGES = FIRST + [page for page in pages.PAGES if page.startswith("docs/") and page not in FIRST]
TENSORFLOW = importlib.util.find_spec("tensorflow")
# tests/test_distributed.py runs the first; the others would run this suite and change its packages
ELSEWHERE = {"launch/local.sh", "launch/test.sh", "pytest", "pip"}
FACES, OTHERS = "faces:identities=8,images=4", "faces:identities=5,images=4"
FAR = "0.5"  # of ten pairs of two people, of the twenty that OTHERS has
FEW = {"--data=faces": f"--data={FACES}", "--benchmark=faces": f"--benchmark={OTHERS}"}
SMALL = [
    "--config.batch=16",
    "--config.model.bn_group=16",
    "--config.model.width=4",
    "--config.model.name=tiny",
]
SHORT = [
    f"--config.data={FACES}",
    f"--config.run.benchmark={OTHERS}",
    "--config.epochs=1",
    "--config.schedule.warmup_epochs=0.5",
]
SHORTER = {
    "train": [*SMALL, *SHORT],
    "quickstart": ["--epochs=1"],
    "calibrate": ["--resolutions=28,112", f"--fars={FAR}"],
    "bench step": [*SMALL, "--repeats=2", "--steps=1", "--classes=40", "--noparts"],
    "bench embed": [*SMALL, "--batches=8", "--repeats=2", "--steps=1"],
    "bench input": ["--batch=8", "--seconds=0.2", "--threads=1"],
    "bench memory": [*SMALL, "--devices=1"],
    "bench sweep": ["--images=40", "--pairs=20", "--resolutions=7,112", "--repeats=1"],
}


def shortened(words: list[str]) -> list[str]:
    name = " ".join(words[:2]) if words[0] == "bench" else words[0]
    return [FEW.get(word, word) for word in words] + SHORTER.get(name, [])


def run_commands(run_once):
    for page in PAGES:
        for command in pages.commands(page):
            words = pages.handed_to_crfr(command.words)
            if command.needs or command.words[0] in ELSEWHERE:
                continue
            assert words, f"{page}: neither run nor marked: {' '.join(command.words)}"
            if TENSORFLOW or "--format=saved_model" not in words:
                run_once(words)


def run_python(page):
    """What each block makes of two faces, which lie in a.jpg and b.png too, and of figures."""
    rng = np.random.default_rng(0)
    source = crfr.open_source(FACES)
    given = {
        "images": np.stack([source[0]["image"], source[1]["image"]]),
        "cosine": jnp.asarray(rng.uniform(-1, 1, (4, 8)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 8, 4)),
        "distance": rng.uniform(0, 2, 40).astype(np.float32),
        "same": np.arange(40) % 2 == 0,
    }
    for name, image in zip(("a.jpg", "b.png"), given["images"], strict=True):
        Image.fromarray(image).save(name)
    made = []
    for block in pages.python_blocks(page):
        block = block.replace('"faces"', f'"{OTHERS}"').replace("far=0.01", f"far={FAR}")
        code = compile(block, f"<{page}>", "exec")
        if TENSORFLOW or "import tensorflow" not in block:
            made.append({**given})
            exec(code, made[-1])
    return made


def run_notebook(run_once, monkeypatch):
    """What it shows as HTML."""
    shown = []
    display = types.SimpleNamespace(HTML=shown.append)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    for cell in pages.cells():
        for words in pages.cell_commands(cell):
            run_once(words)
        if "IPython" in cell:
            exec(cell, {})
    return shown


@pytest.mark.usefixtures("one_device")
def test_the_pages_commands_that_need_no_data_run(tmp_path, monkeypatch):
    """In one folder, one after another, so that each finds what those before it have made."""
    quick_config = crfr.quickstart.quick_config

    def smaller(method, epochs):
        config = quick_config(method, epochs)
        config.batch = config.model.bn_group = 16
        config.model.width = 4
        config.data, config.run.benchmark = FACES, OTHERS
        return config

    monkeypatch.setattr(crfr.quickstart, "quick_config", smaller)
    monkeypatch.chdir(tmp_path)
    run = []

    def run_once(words):
        name = " ".join(words).removesuffix(" --out=quickstart")  # which is the default
        if name not in run:
            main.run(shortened(words))
            run.append(name)

    run_commands(run_once)
    assert len(run) > 25
    for folder in ("quickstart", "runs", "."):
        assert "</html>" in (tmp_path / folder / "report.html").read_text()
    text = (tmp_path / "quickstart/report.html").read_text()
    assert all(name in text for name in ("baseline", "BT-M", "ST-M1"))

    # no detector: a.jpg and b.png are crops
    monkeypatch.setattr("crfr.use.model.load_detector", lambda path: None)
    made = {page: run_python(page) for page in PAGES}
    (readme,), (use,) = made["README.md"], made["docs/use.md"]
    onnx, stablehlo = made["docs/export.md"][:2]
    assert readme["small"].shape == readme["images"].shape
    assert (readme["decision"].objective, use["decision"].objective) == ("accuracy", FAR)
    # float32 in three runtimes; a.jpg is not quite images[0]
    np.testing.assert_allclose(stablehlo["embedding"], onnx["embedding"], atol=1e-5)
    np.testing.assert_allclose(use["faces"].embedding[1], onnx["embedding"][1], atol=1e-5)

    assert run_notebook(run_once, monkeypatch) == [text]
    assert "BT-10" in (tmp_path / "runs/report.html").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_what_needs_data_is_marked(page):
    """A file that no command of the page makes is behind a mark, in the same block."""
    lines = [(" ".join(command.words), command.needs) for command in pages.commands(page)]
    made = " ".join(line for line, needs in lines if not needs)
    for line, needs in lines:
        files = re.findall(r"[\w./-]+\.(?:rec|bin|h5|onnx|csv|txt|jpg|png)\b", line)
        given = [name for name in files if f"--out={name}" not in made]
        assert needs or not given or not line.startswith(("crfr ", "launch/")), line


def test_the_launch_script_hands_over_to_crfr():
    """Where the suite runs from the checkout's own .venv, so that its set-up is done."""
    if Path(sys.prefix) != (ROOT / ".venv").resolve():
        pytest.skip("the suite does not run from the checkout's .venv")
    assert "\nlaunch/quickstart.sh\n" in (ROOT / "README.md").read_text()
    words = [ROOT / "launch/quickstart.sh", "--help"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--epochs" in result.stdout
