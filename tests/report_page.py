"""Reading a report as a reader does, for its tests."""

from html.parser import HTMLParser
from pathlib import Path

from crfr.report.page import write_report


class Page(HTMLParser):
    """What a reader gets: tables by caption, text by tag, the attributes of every tag."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.tables: dict[str, list[list[str]]] = {}  # caption -> rows of cells, heads included
        self.bold: dict[str, list[str]] = {}  # caption -> numbers in bold
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption, self._bold = "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"meta", "img", "br"}:
            return
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self._rows, self._caption, self._bold = [], "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another tag"
        if tag == "table":
            if self._caption:  # sample pairs have none
                assert self._caption not in self.tables
            self.tables[self._caption] = self._rows
            self.bold[self._caption] = self._bold

    def handle_data(self, data):
        for tag in set(self._open):
            self.texts[tag][-1] += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            # a cell is its text, then its small print
            self._rows[-1][-1] += f" {data}" if "small" in self._open else data
            if "b" in self._open:
                self._bold.append(data)

    def table(self, start: str) -> list[list[str]]:
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))

    def has_table(self, start: str) -> bool:
        return any(caption.startswith(start) for caption in self.tables)

    @property
    def missing(self) -> str:
        """The list of what is not shown."""
        return " ".join(t for t in self.texts.get("ul", []) if "crfr " in t)


def report_page(tmp_path: Path, sweeps: list[Path], **options) -> Page:
    write_report(sweeps, tmp_path / "report.html", **options)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))
