"""launch/colab.ipynb: its pictures.  tests/test_pages.py runs the rest, in its order."""

import json

import matplotlib
import pages
import pytest

CODE = pages.cells()
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
    text = (pages.ROOT / "launch/colab.ipynb").read_text()
    assert all(not cell.get("outputs") for cell in json.loads(text)["cells"])
    assert text.endswith("}\n")
