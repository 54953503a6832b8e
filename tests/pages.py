"""What the pages show: their commands as a shell reads them, their Python, the notebook's cells."""

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "*/README.md")
    for path in ROOT.glob(pattern)
)
# files whose docstring shows how they are called
HEADS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("configs", "benchmarks")
    for path in ROOT.glob(f"{folder}/*.py")
)
MARK = "# with your data: "
SHOWN = r"(?:\$ )?((?:\w+=\S* )*(?:crfr|python3?|launch/\w+\.sh|sbatch) .*)"
# what stands for a word -> one that a parser takes
STANDS_FOR = {
    "=...": "=configs/bt_m.py",
    "FILE.py": "configs/bt_m.py",
    "METHOD.py": "baseline.py",
    "crfr bench ...": "crfr bench step",
    "COMMAND": "train",
}


class Command(NamedTuple):
    """words: as a shell passes them on.  needs: whether it is behind a MARK."""

    words: list[str]
    needs: bool


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of every block between fences."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.S | re.M)


def python_blocks(page: str) -> list[str]:
    return [text for language, text in blocks(page) if language == "python"]


def commands(page: str) -> list[Command]:
    """Every line of the blocks of a page; a quotation may go on in the next one."""
    found = []
    for language, block in blocks(page):
        if language != "bash":
            continue
        needs, text = False, ""
        for line in block.replace("\\\n", " ").splitlines():
            needs = needs or line.startswith(MARK)
            text += line
            try:
                words = shlex.split(text, comments=True)
            except ValueError:
                text += "\n"
                continue
            if words:
                found.append(Command(words, needs))
            text = ""
        assert not text, f"{page}: a quotation that does not end: {text}"
    return found


def mentioned(page: str) -> list[list[str]]:
    """The commands in backticks and indented lines; what they leave open ([...], ...) is left out,
    so that flags may be lacking.
    """
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.S | re.M)
    text = text.replace("\\\n", " ")
    found = re.findall(f"^    {SHOWN}$", text, re.M)
    if page.endswith(".md"):
        quoted = (" ".join(quote.split()) for quote in re.findall(r"`([^`]+)`", text))
        found += [match[1] for quote in quoted if (match := re.fullmatch(SHOWN, quote))]
    lines = []
    for line in dict.fromkeys(found):
        line = re.sub(r"\[[^]]*]", "", line)
        for stand_in, word in STANDS_FOR.items():
            line = line.replace(stand_in, word)
        lines.append([word for word in shlex.split(line) if word != "..."])
    return lines


def python(words: list[str]) -> list[str] | None:
    """What follows `python`, with VAR=1 or a time limit before it, too."""
    match words:
        case ["python" | "python3", *rest]:
            return rest
        case ["timeout", _, *rest]:
            return python(rest)
        case [first, *rest] if re.match(r"\w+=", first):
            return python(rest)
    return None


def handed_to_crfr(words: list[str]) -> list[str] | None:
    """What a command hands over to crfr by itself or through a script; None where it does not."""
    match words:
        case ["crfr", *rest]:
            return rest
        case ["launch/quickstart.sh" | "launch/reproduce.sh" as script, *rest]:
            own = ("--python=", "--extra=")
            return [Path(script).stem, *(word for word in rest if not word.startswith(own))]
        case ["launch/local.sh", _, *rest] | ["launch/tpu_vm.sh", _, _, *rest]:
            return [*rest, "--distributed"]
        case ["sbatch", *rest] if "launch/slurm.sbatch" in rest:
            return [*rest[rest.index("launch/slurm.sbatch") + 1 :], "--distributed"]
        case [first, *rest] if re.match(r"\w+=", first):
            return handed_to_crfr(rest)
    match python(words):
        case ["-m", "crfr.main", *rest]:
            return rest
    return None


def handed_to_benchmark(words: list[str]) -> list[str] | None:
    """A script of benchmarks/, by its name, and its arguments."""
    match python(words):
        case [script, *rest] if script.startswith("benchmarks/"):
            return [Path(script).stem, *rest]
    return None


def cells() -> list[str]:
    """The notebook's code."""
    notebook = json.loads((ROOT / "launch/colab.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def cell_commands(cell: str) -> list[list[str]]:
    """Those that a cell gives to crfr, which are all."""
    found = []
    for line in cell.splitlines():
        if line.startswith("!"):
            words = handed_to_crfr(shlex.split(line[1:]))
            assert words, line
            found.append(words)
    return found
