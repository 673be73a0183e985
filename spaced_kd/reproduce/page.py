"""All tables and figures as one HTML file that needs no other."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from spaced_kd import report
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
    folders = [Path(__file__).parent, Path(report.__file__).parent]
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    done = sum(run.status == "finished" for run in runs)
    return templates.get_template("reproduce.html").render(
        settings=settings,
        sections=sections,
        runs=runs,
        warning=warning,
        done=done,
        uri=_uri,
    )


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
