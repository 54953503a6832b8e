"""The folder beside a page: figures as SVG and PNG, tables as CSV and Markdown.

A `Folder` collects them while the page is made; `write_folder` puts them there, all or nothing.
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from crfr.errors import InputError
from crfr.report.formats import escape, to_csv, to_html, to_markdown
from crfr.report.render import Drawing
from crfr.report.tables import Table

MARK = "report.json"  # says that the folder is ours, and what we put there
MAKER = "crfr report"


@dataclass
class Folder:
    """What will be in the folder of that name: path within it -> content."""

    name: str
    files: dict[str, bytes] = field(default_factory=dict)

    def _add(self, kind: str, stem: str, contents: dict[str, bytes]) -> str:
        """HTML of links to files of one stem, of which no two are alike on any disk."""
        taken = {path.rpartition(".")[0].lower() for path in self.files}
        path, number = f"{kind}/{stem}", 2
        while path.lower() in taken:
            path, number = f"{kind}/{stem}-{number}", number + 1
        links = []
        for suffix, content in contents.items():
            self.files[path + suffix] = content
            words = {".md": "Markdown"}.get(suffix, suffix[1:].upper())
            links.append(f'<a href="{quote(f"{self.name}/{path}{suffix}")}">{words}</a>')
        return f'<span class="files">{" ".join(links)}</span>'

    def figure(self, drawing: Drawing) -> str:
        """The figure as HTML without heading; a phone gets its narrow form where it has one."""
        links = self._add("figures", drawing.stem, drawing.files)
        if not drawing.narrow:
            return drawing.svg + links
        wide = f'<div class="wide">{drawing.svg}</div>'
        return f'{wide}<div class="narrow">{drawing.narrow}</div>{links}'

    def panel(self, drawing: Drawing, name: str = "") -> str:
        head = f"<h4>{escape(name or drawing.title)}</h4>"
        return f'<div class="panel">{head}{self.figure(drawing)}</div>'

    def table(self, table: Table | None) -> str:
        return to_html(table, " " + self.keep(table)) if table is not None else ""

    def keep(self, table: Table) -> str:
        """A table for the folder; HTML of links to it."""
        contents = {".csv": to_csv(table).encode(), ".md": to_markdown(table).encode()}
        return self._add("tables", table.stem, contents)

    def add_matrix(self, stem: str, content: str) -> None:
        self._add("matrix", stem, {".csv": content.encode()})


def check_folder(path: Path) -> None:
    """InputError if there is something that crfr report did not write."""
    if not path.exists() and not path.is_symlink():
        return
    remedy = "move it away, or choose another --out"
    if path.is_symlink() or not path.is_dir():
        raise InputError(f"{path} is no folder: {remedy}")
    found = {str(p.relative_to(path)) for p in path.rglob("*") if not p.is_dir()}
    if not found:
        return
    try:
        mark = json.loads((path / MARK).read_text(encoding="utf-8"))
        ours = {MARK, *mark["files"]} if mark["made_by"] == MAKER else set()
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if others := sorted(found - ours):
        raise InputError(f"{path} holds {others[0]}, which crfr report did not write: {remedy}")


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    """Put the files into a folder, in the place of one that an earlier report wrote.

    Whatever fails leaves the earlier folder, or none.
    """
    check_folder(path)
    half, old = (path.with_name(f".{path.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    try:
        for name, content in files.items():
            file = half / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        mark = {"made_by": MAKER, "schema": 1, "files": sorted(files)}
        (half / MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(half, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
    finally:
        for rest in (half, old):
            shutil.rmtree(rest, ignore_errors=True)
