"""A table as HTML, CSV and Markdown; the one place where text from files is escaped."""

import csv
import html
import io
import re

from crfr.report.tables import MISSING, Cell, Table


def escape(text: object) -> str:
    return html.escape(str(text))


def prose(text: str) -> str:
    """Escaped text in which no line ends between a number and its unit, or a figure's number."""
    text = re.sub(r"(?<=\d) (?=(px|%|points)\b|%)", "&nbsp;", escape(text))
    return re.sub(r"\b(figs?\.?|eqs?\.|section) (?=\d)", r"\1&nbsp;", text)


def count(value: object) -> str:
    """A number with its thousands apart; anything else that a file has there as it is."""
    if value is None:
        return MISSING
    return f"{value:,}" if type(value) is int else escape(value)


def _small(cell: Cell) -> str:
    return cell[1] if len(cell) > 1 else ""


def to_html(table: Table, link: str = "") -> str:
    """The table; it scrolls where it is wide.  `link` is HTML for the end of the caption."""
    places = range(len(table.heads)) if table.page is None else table.page

    def cell(cell: Cell) -> str:
        text = escape(cell[0]).replace("\n", "<br>")
        text = f"<b>{text}</b>" if cell[2:] == ("best",) else text
        # "; " parts the small print into lines
        small = "<br>".join(map(escape, _small(cell).split("; ")))
        return text + (f"<small>{small}</small>" if small else "")

    columns = "".join(f'<th scope="col">{prose(table.heads[i])}</th>' for i in places)
    body, before = "", ""
    for row in table.rows:
        # a model's name once above all its rows
        name = escape(row[0][0])
        head = '<span class="again">' if name == before else "<span>"
        small = f"<small>{escape(_small(row[0]))}</small>" if _small(row[0]) else ""
        before = name
        cells = "".join(f"<td>{cell(row[i])}</td>" for i in places[1:])
        body += f'<tr><th scope="row">{head}{name}</span>{small}</th>{cells}</tr>\n'
    note = f"; {prose(table.note)}" if table.note else ""
    if table.page is not None and len(table.page) < len(table.heads):
        note += f" ({len(table.page) - 1} of {len(table.heads) - 1} resolutions)"
    return (
        f'<div class="scroll" tabindex="0"><table><caption><span><b>{escape(table.title)}</b>'
        f"{note}{link}</span></caption>\n"
        f"<thead><tr>{columns}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def to_csv(table: Table) -> str:
    """All columns, one line a row; the small print in columns of its own."""
    printed = [any(_small(row[i]) for row in table.rows) for i in range(len(table.heads))]
    heads: list[str] = []
    for place, (head, small) in enumerate(zip(table.heads, printed, strict=True)):
        # below a model's name there is the number of its seeds
        what = table.small or "note" if place else "seeds"
        heads += [head, f"{head}: {what}"] if small else [head]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heads)
    for row in table.rows:
        line: list[str] = []
        for cell, small in zip(row, printed, strict=True):
            text = "" if cell[0] == MISSING else cell[0]
            line += [text, _small(cell)] if small else [text]
        writer.writerow(line)
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """All columns; the best of a column is bold, small print in brackets."""

    def plain(text: str) -> str:
        return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")

    def cell(cell: Cell) -> str:
        text = f"**{plain(cell[0])}**" if cell[2:] == ("best",) else plain(cell[0])
        return text + (f" ({plain(_small(cell))})" if _small(cell) else "")

    lines = [f"**{plain(table.title)}**{'. ' + plain(table.note) if table.note else ''}", ""]
    lines.append("| " + " | ".join(map(plain, table.heads)) + " |")
    lines.append("|---" + "|---:" * (len(table.heads) - 1) + "|")
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"
