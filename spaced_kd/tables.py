"""A table of texts as plain text, Markdown, LaTeX or HTML; knows nothing of results."""

import html
from typing import NamedTuple


class Table(NamedTuple):
    """Titles, rows and the notes below them.

    titles: one a column, of one or two lines.
    """

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return aligned columns for a terminal."""
        upper, lower = zip(*(_two_lines(title) for title in self.titles), strict=True)
        lines = [upper, lower, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(2, tuple("-" * width for width in widths))
        padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([*padded, "", *self.notes])

    def markdown(self) -> str:
        """Return a Markdown table and its notes as a list."""
        titles, *rows = (map(_markdown, row) for row in (self.titles, *self.rows))
        lines = [titles, ("---",) * len(self.titles), *rows]
        table = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([*table, "", *(f"- {_markdown(n)}" for n in self.notes), ""])

    def latex(self) -> str:
        """Return a `tabular` for the package booktabs, its notes below as text."""
        titles, *rows = (map(_latex, row) for row in (self.titles, *self.rows))
        lines = [
            rf"\begin{{tabular}}{{{'l' * len(self.titles)}}}",
            r"\toprule",
            " & ".join(titles) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        notes = (rf"\par\smallskip\footnotesize {_latex(note)}" for note in self.notes)
        return "\n".join([*lines, *notes, ""])

    def html(self) -> str:
        """Return an HTML table and its notes as paragraphs; every text is escaped."""
        head = "".join(f"<th>{_html(title)}</th>" for title in self.titles)
        body = "".join(
            "<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p>{_html(note)}</p>" for note in self.notes)
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"
        )


def _two_lines(title: str) -> tuple[str, str]:
    upper, _, lower = title.partition("\n")
    return upper, lower


def _html(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "–": "--",
    "\n": " ",
} | {character: "\\" + character for character in "&%$#_{}"}
# A bracket that begins a row would be an option of the line break before it.
_LATEX["["] = "{[}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _markdown(text: str) -> str:
    escaped = html.escape(text, quote=False).replace("\n", " ")
    for character in "\\|`*_[]":
        escaped = escaped.replace(character, "\\" + character)
    return escaped
