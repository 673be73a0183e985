"""The paper's own numbers and claims, from `paper.json`, and what is wrong with them.

Sun et al., ICML 2025. Numbers are kept as they are printed. Notes say in our words what
a reader of a number must know: docs/deviations.md and docs/recipes.md say more.
"""

import functools
import importlib.resources
import json
import types
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from spaced_kd import registry
from spaced_kd.errors import DataError

FILE = "paper.json"


class Number(NamedTuple):
    """A number as printed: "70.00" has two decimals, "+1.38" its sign."""

    text: str

    @property
    def value(self) -> Decimal:
        """The number, exactly as printed."""
        return Decimal(self.text)

    @property
    def decimals(self) -> int:
        """Digits behind the point."""
        return len(self.text.partition(".")[2])

    def __float__(self) -> float:
        """Return the value in binary."""
        return float(self.text)

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    def minus(self, other: "Number") -> "Number":
        """Return the difference, signed, of as many decimals as the finer of both."""
        return Number(f"{self.value - other.value:+}")


class Column(NamedTuple):
    """A column. title: as printed; minus: the two columns whose difference it is."""

    name: str
    title: str
    minus: tuple[str, ...] = ()


class Note(NamedTuple):
    """What to know of a table. rows, columns: that it is about; none: all of them."""

    text: str
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class Row(NamedTuple):
    """A row. data, model: as the paper spells them; numbers: by column."""

    label: str
    data: str
    model: str
    numbers: Mapping[str, Number]


class Table(NamedTuple):
    """A table, turned so that the columns are what is compared."""

    name: str
    caption: str
    columns: Mapping[str, Column]
    rows: Mapping[str, Row]
    notes: tuple[Note, ...]

    def number(self, label: str, column: str) -> Number | None:
        """Return a cell; None where the paper has no such row or column."""
        row = self.rows.get(label)
        return row.numbers.get(column) if row else None

    def difference(self, label: str, column: str, reference: str) -> Number | None:
        """Return column minus reference of a row; None where the paper lacks one.

        As printed where there is such a column, else of the printed numbers.
        """
        for printed in self.columns.values():
            if printed.minus == (column, reference):
                return self.number(label, printed.name)
        own, other = self.number(label, column), self.number(label, reference)
        return own.minus(other) if own and other else None


class Claim(NamedTuple):
    """A sentence of the paper, in our words. section: where; check: what we found."""

    section: str
    text: str
    check: str = ""


class Figure(NamedTuple):
    """A figure. numbers: the table that it draws, "" where the paper prints none."""

    name: str
    caption: str
    numbers: str
    claims: tuple[Claim, ...]


class Paper(NamedTuple):
    """All of it. notes: on every table."""

    source: str
    unit: str
    notes: tuple[str, ...]
    claims: tuple[Claim, ...]
    tables: Mapping[str, Table]
    figures: Mapping[str, Figure]

    def table(self, name: str) -> Table | None:
        """Return a table, or the one that a figure draws; None: a figure without any.

        Raises:
          ConfigError: no such table or figure; lists the nearest names first.
        """
        registry.lookup({**self.tables, **self.figures}, name, "the paper's item")
        figure = self.figures.get(name)
        return self.tables.get(figure.numbers if figure else name)


@functools.cache
def load() -> Paper:
    """Return the paper, read once.

    Raises:
      DataError: the file is damaged.
    """
    file = importlib.resources.files("spaced_kd.reproduce") / FILE
    return parse(file.read_text(encoding="utf-8"))


def parse(text: str) -> Paper:
    """Return what a file of the form of `paper.json` holds, checked.

    Raises:
      DataError: it contradicts itself, or is not of that form.
    """
    try:
        content = json.loads(text)
        tables = {name: _table(name, t) for name, t in content["tables"].items()}
        figures = {name: _figure(name, f) for name, f in content["figures"].items()}
        source, unit, notes = (content[key] for key in ("source", "unit", "notes"))
        claims = _claims(content["claims"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{FILE} is damaged ({type(error).__name__}: {error}); install spaced_kd "
            "again."
        ) from error
    for figure in figures.values():
        _known(f"{figure.name}: numbers", [figure.numbers], [*tables, ""])
    return Paper(source, unit, tuple(notes), claims, _frozen(tables), _frozen(figures))


def _table(name: str, raw: Mapping[str, Any]) -> Table:
    columns = {
        c["name"]: Column(c["name"], c["title"], tuple(c.get("minus", ())))
        for c in raw["columns"]
    }
    rows = {row["label"]: _row(name, row, list(columns)) for row in raw["rows"]}
    notes = tuple(
        Note(n["text"], tuple(n["rows"]), tuple(n["columns"])) for n in raw["notes"]
    )
    if len(columns) < len(raw["columns"]) or len(rows) < len(raw["rows"]):
        raise _damaged(f"{name}: two columns or rows have the same name")
    for column in columns.values():
        _known(f"{name}: column {column.name}", column.minus, columns)
    for note in notes:
        _known(f"{name}: row of a note", note.rows, rows)
        _known(f"{name}: column of a note", note.columns, columns)
    return Table(name, raw["caption"], _frozen(columns), _frozen(rows), notes)


def _row(table: str, raw: Mapping[str, Any], columns: list[str]) -> Row:
    where, values = f"{table}: row '{raw['label']}'", raw["values"]
    if len(values) != len(columns):
        raise _damaged(f"{where} has {len(values)} values for {len(columns)} columns")
    numbers = {name: _number(where, v) for name, v in zip(columns, values, strict=True)}
    return Row(raw["label"], raw["data"], raw["model"], _frozen(numbers))


def _number(where: str, text: str) -> Number:
    try:
        known = isinstance(text, str) and Number(text).value.is_finite()
    except InvalidOperation:
        known = False
    if not known:
        raise _damaged(f"{where} has {text!r}, which is not a number in a string")
    return Number(text)


def _figure(name: str, raw: Mapping[str, Any]) -> Figure:
    return Figure(name, raw["caption"], raw["numbers"], _claims(raw["claims"]))


def _claims(raw: Iterable[Mapping[str, str]]) -> tuple[Claim, ...]:
    return tuple(Claim(**claim) for claim in raw)


def _known(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise _damaged(f"{where}: '{name}' is not among {', '.join(known)}")


def _damaged(what: str) -> DataError:
    return DataError(f"{FILE}: {what}; install spaced_kd again.")


def _frozen(table: dict[str, Any]) -> Mapping[str, Any]:
    return types.MappingProxyType(table)
