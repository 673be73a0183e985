"""All tables and figures as one HTML file that needs no other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd.report import page as report
from spaced_kd.tables import Table


class Section(NamedTuple):
    """An item: its name, heading, tables, and pictures as (caption, SVG)."""

    name: str
    heading: str
    tables: Sequence[Table]
    pictures: Sequence[tuple[str, bytes]]


class Run(NamedTuple):
    """A run in the list of all: where its numbers are from.

    href: of its report, relative to the page; "" if there is none.
    """

    name: str
    href: str
    status: str
    facts: Mapping[str, str]


def build(
    settings: Mapping[str, Any],
    sections: Sequence[Section],
    runs: Sequence[Run],
    warning: str,
) -> str:
    """Return the page.

    Args:
      settings: what all numbers have in common, told at the top.
      sections: in order.
      runs: all of them.
      warning: what must be known before any number is read; "" if nothing.
    """
    done = sum(run.status == "finished" for run in runs)
    template = report.templates(Path(__file__).parent)
    return template.get_template("reproduce.html").render(
        settings=settings,
        sections=sections,
        runs=runs,
        warning=warning,
        done=done,
        uri=report.data_uri,
    )
