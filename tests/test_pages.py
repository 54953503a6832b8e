"""The commands of README and docs run, shortened, all but those that need data of the reader's."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import crfr.quickstart
from crfr import main

ROOT = Path(__file__).parents[1]
# quickstart.md after README, the others use what these two train
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))]
PAGES.insert(1, PAGES.pop(PAGES.index("docs/quickstart.md")))
MARK = "# with your data: "
FACES, OTHERS = "faces:identities=8,images=4", "faces:identities=5,images=4"
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
    "calibrate": ["--resolutions=28,112"],
    "bench step": [*SMALL, "--repeats=2", "--steps=1", "--classes=40", "--noparts"],
    "bench embed": [*SMALL, "--batches=8", "--repeats=2", "--steps=1"],
    "bench input": ["--batch=8", "--seconds=0.2", "--threads=1"],
    "bench memory": [*SMALL, "--devices=1"],
    "bench sweep": ["--images=40", "--pairs=20", "--resolutions=7,112", "--repeats=1"],
}


def command_lines(page: str) -> list[tuple[str, bool]]:
    """(a line of a block of commands, whether it needs data of the reader's)."""
    found = []
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", (ROOT / page).read_text(), re.S):
        needs = False
        for line in block.replace("\\\n", " ").splitlines():
            needs = needs or line.startswith(MARK)
            found.append((line, needs))
    return found


def shortened(words: list[str]) -> list[str]:
    name = " ".join(words[:2]) if words[0] == "bench" else words[0]
    return [FEW.get(word, word) for word in words] + SHORTER.get(name, [])


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
    for page in PAGES:
        for line, needs in command_lines(page):
            if needs or not line.startswith(("crfr ", "launch/quickstart.sh")):
                continue
            words = shlex.split(line, comments=True)
            words = ["quickstart"] if words[0].startswith("launch/") else words[1:]
            if " ".join(words) in run:
                continue
            if "--format=saved_model" in words and not importlib.util.find_spec("tensorflow"):
                continue
            main.run(shortened(words))
            run.append(" ".join(words))
    assert len(run) > 25
    for folder in ("quickstart", "runs", "."):
        assert "</html>" in (tmp_path / folder / "report.html").read_text()
    text = (tmp_path / "quickstart/report.html").read_text()
    assert all(name in text for name in ("baseline", "BT-M", "ST-M1"))


@pytest.mark.parametrize("page", PAGES)
def test_what_needs_data_is_marked(page):
    """A file that no command of the page makes is behind a mark, in the same block."""
    made = " ".join(line for line, needs in command_lines(page) if not needs)
    for line, needs in command_lines(page):
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
