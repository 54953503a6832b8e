"""docs/faq.md quotes messages that the code has."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def texts():
    """Every string of the package, `…` for what is filled in."""
    for path in (ROOT / "crfr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def quoted():
    text = (ROOT / "docs/faq.md").read_text()
    return re.findall(r"^\| `(.*?)` \|", text, re.M)


TEXTS = list(texts())


@pytest.mark.parametrize("message", quoted(), ids=lambda message: message[:40])
def test_a_quoted_message_is_one_of_the_code(message):
    assert any(message in text for text in TEXTS)


def test_messages_are_quoted():
    assert len(quoted()) > 20
