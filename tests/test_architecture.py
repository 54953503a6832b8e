"""The shape of the package: one arrow, small modules, no JAX where none is needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "crfr"
STAGES = ["data", "views", "model", "train", "evaluate", "report", "use"]
BASE = {"errors", "environment", "urls", "workdir", "agreement", "distributed"}  # below all stages
ENTRY = {
    "main",
    "arguments",
    "networks",
    "starting",
    "prepare",
    "commands",
    "measure",
    "analysis",
    "apply",
    "usage",
    "recipe",
    "keys",
    "quickstart",
    "planning",
    "estimate",
    "reproduce",
    "sharing",
    "publish",
    "bench",
    "__init__",
}
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGE = (ROOT / "docs/architecture.md").read_text()
INVARIANTS = PAGE.partition("\n## Invariants\n")[2].partition("\n## ")[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "crfr":
                yield from (f"crfr.{alias.name}" for alias in node.names)
            else:
                yield node.module


def part(module):
    return module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_stage_imports_only_from_stages_before_it(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in ENTRY:
        return
    allowed = set(BASE)
    if own in STAGES:
        allowed |= set(STAGES[: STAGES.index(own) + 1])
    found = {part(m) for m in imports(path) if m.startswith("crfr.")}
    assert found <= allowed, f"{own} imports {found - allowed}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_short_and_named_for_what_they_hold(path):
    assert len(path.read_text().splitlines()) <= 250
    assert path.stem not in {"utils", "helpers", "common", "misc"}


def test_flax_and_orbax_are_imported_where_they_belong():
    flax = {p.relative_to(PACKAGE).parts[:2] for p in MODULES if any(m.split(".")[0] == "flax" for m in imports(p))}  # fmt: skip  # noqa: E501
    assert all(place[0] == "model" or place == ("train", "state.py") for place in flax)
    orbax = [p.name for p in MODULES if any(m.split(".")[0] == "orbax" for m in imports(p))]
    assert orbax == ["checkpoint.py"]


def test_the_map_in_the_docs_names_every_module():
    for path in MODULES:
        if path.stem != "__init__":
            assert f"`{path.stem}`" in PAGE, f"docs/architecture.md does not name {path}"


def shapes(path):
    """The shapes of jaxtyping's annotations: of `Float[Array, "b d"]` its "b d"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            last = node.slice.elts[-1]
            if isinstance(node.value, ast.Name) and hasattr(jaxtyping, node.value.id):
                yield last.value


def test_the_letters_of_shapes_are_in_the_docs():
    told = PAGE.partition("\nShape letters: ")[2].partition("\n## ")[0]
    letters = {letter for quote in re.findall(r"`([a-z ]+)`", told) for letter in quote.split()}
    names = {
        name.strip("*#") for path in MODULES for shape in shapes(path) for name in shape.split()
    }
    used = {name for name in names if len(name) == 1 and name.isalpha()}
    assert used
    assert used <= letters


@pytest.mark.parametrize("test", re.findall(r"`(test_\w+\.py::\w+)`", INVARIANTS))
def test_what_holds_an_invariant_is_there(test):
    file, _, name = test.partition("::")
    assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text()


def test_each_invariant_is_held():
    first, *kept = INVARIANTS.split("\n- **")
    assert kept
    assert all("::test_" in invariant for invariant in kept)
    assert "::test_" not in first


@pytest.mark.parametrize(
    "module", ["crfr", "crfr.main", "crfr.report.page", "crfr.data.benchmarks"]
)
def test_importing_costs_no_jax(module):
    code = f"import sys, {module}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_public_names():
    import crfr

    assert set(crfr.__all__) <= set(dir(crfr))
    # what type checkers are told is what is imported
    (block,) = (n for n in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(n, ast.If))  # fmt: skip  # noqa: E501
    told = {alias.asname: node.module for node in block.body for alias in node.names}
    assert told == crfr._PUBLIC
    assert sorted(told) == crfr.__all__
    assert (PACKAGE / "py.typed").is_file()
    for name in crfr.__all__:
        assert callable(getattr(crfr, name))
    with pytest.raises(AttributeError, match="no attribute 'degrad'"):
        crfr.degrad  # noqa: B018
