"""launch/colab.ipynb: its Python runs; tests/test_main.py parses its commands."""

import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[1] / "launch/colab.ipynb"
CODE = [
    "".join(cell["source"])
    for cell in json.loads(NOTEBOOK.read_text())["cells"]
    if cell["cell_type"] == "code"
]
OURS = [source for source in CODE if "import crfr" in source]


@pytest.mark.parametrize("source", OURS)
def test_python_cells_run(source, monkeypatch):
    matplotlib.use("Agg")
    names = {}
    exec(source, names)
    figure = names["figure"]
    assert [axis.get_title() for axis in figure.axes] == ["112 px", "28 px", "14 px", "7 px"]
    # each smaller face has lost more
    shown = [axis.images[0].get_array() for axis in figure.axes]
    lost = [abs(face - shown[0]).mean() for face in shown]
    assert lost == sorted(lost)
    assert lost[1] > 0


def test_cells():
    assert len(OURS) == 1
    assert all(not cell.get("outputs") for cell in json.loads(NOTEBOOK.read_text())["cells"])
    assert NOTEBOOK.read_text().endswith("}\n")
