"""What a table or figure of ours is made of: rows of places where numbers come from."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

TEACHER = "teacher"
"""`Place.network` of a run's teacher; every other name is a student's."""


class Measure(NamedTuple):
    """Which number of an analysis's record it is.

    path: keys of `analysis.base.Row.values`, from the outside in. along, at: where the
      path leads to a list, the path of the list of its places, and which place. once:
      the path is in `Found.once`, not in a row.
    """

    path: tuple[str, ...]
    along: tuple[str, ...] = ()
    at: float = 0.0
    once: bool = False


class Place(NamedTuple):
    """Where one number a seed comes from.

    config: file below configs/, without ".py". variant: of it; "": its default. cell:
      of a grid's config (`spaced_kd.grid.cells`); "": a config of one run.
    network: `TEACHER`, or a student's name in that config.
    share: of the network's own updates that are done when it is evaluated; 1: the end.
      The paper's epochs of one run (Tables 7, 8) become shares so that they stay where
      they are in a shorter run, and in one that makes two updates of each batch.
    exit: which exit of a network with several; "": the one that the run quotes.
    analysis: key of `spaced_kd.analysis.ANALYSES`; "": accuracy on the test set, in
      percent. options: of the analysis that differ from its defaults, as pairs.
    measure: which number of the analysis.
    """

    config: str
    network: str
    variant: str = ""
    cell: str = ""
    share: float = 1.0
    exit: str = ""
    analysis: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    measure: Measure | None = None


class Column(NamedTuple):
    """A column: title for people; x: where it lies on a figure's axis, NaN if nowhere.

    control: we have it beside the paper's columns, so that what it is compared with
    has the same updates.
    """

    title: str
    x: float = math.nan
    control: bool = False


class Row(NamedTuple):
    """One row, or one point of a figure's curves.

    label: of the row, unique in its item. data, model: for people, as the paper spells
      them.
    places: column -> where its numbers come from; a column that is not here has none.
    paper: label of the paper's row, where it is another one: rows of ours that read
      one row of the paper in two ways. panel, x: of a figure: in which of its panels,
      and where on its axis.
    unit: of its numbers, where it is not the item's.
    notes: what to know of the row.
    """

    label: str
    data: str
    model: str
    places: Mapping[str, Place]
    paper: str = ""
    panel: str = ""
    x: float = math.nan
    unit: str = ""
    notes: tuple[str, ...] = ()

    @property
    def paper_label(self) -> str:
        """The label of this row in `paper.json`."""
        return self.paper or self.label


class Best(NamedTuple):
    """The best of several columns; `spaced_kd.held_out` says what each choice favours.

    elsewhere: for each seed the best on all other seeds, else that on all of these.
    """

    title: str
    among: tuple[str, ...]
    elsewhere: bool = True


class Item(NamedTuple):
    """A table or a figure.

    name: "table1", "figure2", ...; paper: whose numbers in `paper.json` it is held
      against, where that is another name. kind: "table", "figure", or "study" of ours.
    columns: name, the same as in `paper.json` -> column; controls are only here.
    comparisons: (column, reference), whose differences, paired by seed, are tested.
    best: references that are the best of several columns, by name.
    unit: of the numbers; "picture": PNG files instead. axis: what x is, "" if nothing
      has one.
    notes: what to know, e.g. which of the paper's numbers have no place, and why.
    """

    name: str
    title: str
    columns: Mapping[str, Column]
    rows: tuple[Row, ...]
    comparisons: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    kind: str = "table"
    unit: str = "%"
    axis: str = ""
    paper: str = ""
    best: Mapping[str, Best] = {}

    @property
    def paper_name(self) -> str:
        """The table or figure of `paper.json` that it is held against."""
        return self.paper or self.name

    @property
    def places(self) -> list[Place]:
        """Every place once, in the order of rows and columns."""
        found = (
            row.places[name]
            for row in self.rows
            for name in self.columns
            if name in row.places
        )
        return list(dict.fromkeys(found))


def row(
    data: str, model: str, config: str, networks: Mapping[str, str], **more: Any
) -> Row:
    """Return a row whose columns are networks of one run.

    Args:
      data: as the paper spells it.
      model: likewise.
      config: of the run.
      networks: column -> network.
      **more: fields of `Row`.
    """
    places = {column: Place(config, network) for column, network in networks.items()}
    return Row(f"{model} / {data}", data, model, places, **more)
