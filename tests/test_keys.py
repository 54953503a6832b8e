"""The keys of a config: every one explained, the page as printed, what `crfr config` shows."""

import re
from pathlib import Path

import pytest

from crfr import main
from crfr.errors import InputError
from crfr.keys import LIMITS, MEANINGS
from crfr.recipe import recipe
from crfr.workdir import flat

ROOT = Path(__file__).parents[1]


def test_every_key_is_explained_and_no_other():
    keys = set(flat(recipe().to_dict()))
    assert set(MEANINGS) == keys
    assert set(LIMITS) <= keys
    assert all(meaning for meaning, _ in MEANINGS.values())


def test_the_page_is_as_printed(capsys):
    main.run(["config", "--markdown"])
    table = capsys.readouterr().out
    assert (ROOT / "docs/configs.md").read_text().endswith("\n\n" + table)
    assert len(re.findall(r"^\| `", table, re.M)) == len(MEANINGS)


def test_a_config_is_shown_with_what_differs(capsys):
    main.run(["config", "--config=configs/bt.py:r=9", "--config.margin.scale=32.0"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("*")] == ["method", "margin.scale"]
    assert "margin.scale = 32 " in "\n".join(lines)
    assert not any("](" in line for line in lines)
    with pytest.raises(InputError, match=r"run.keep=0: give 1 or more"):
        main.run(["config", "--config=configs/bt.py", "--config.run.keep=0"])
