"""Networks that were trained before the run, as rows of the report's table."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from spaced_kd.tables import Table

_LETTERS = 12
"""Of a hash, that are shown; `stages.json` has them all."""

_HASHES = (
    ("config", "config_fingerprint"),
    ("data", "data_fingerprint"),
    ("all that decides", "key"),
    ("weights of each seed", "weights"),
)
"""Title and key of every SHA-256."""


class Origin(NamedTuple):
    """A trained network. role: of whose teacher; folder: from the run's workdir."""

    role: str
    folder: str
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Where the network is from."""
        return f"{self.about['stage']} / {self.about['network']}"


def tables(origins: Mapping[str, Any]) -> tuple[Table, Table] | None:
    """Return what a run's trained networks are, and where they lie, with hashes.

    Args:
      origins: `stages.json`, {} without.

    Returns:
      The tables, each network's own teacher below it; None where the run has none.
    """
    chain = list(_chain(origins, "", "this run"))
    if not chain:
        return None
    titles = (
        "trained network",
        "stage / network",
        "updates",
        "passes\nfwd / bwd",
        "acc1 last of\neach seed, %",
    )
    places = ("stage / network", "folder", *(title for title, _ in _HASHES))
    return (
        Table(titles, tuple(map(_row, chain)), ()),
        Table(places, tuple(map(_place, chain)), ()),
    )


def _chain(origins: Mapping[str, Any], base: str, whose: str) -> Iterator[Origin]:
    for role, about in origins.items():
        folder = os.path.normpath(os.path.join(base, about["folder"]))
        yield Origin(f"{role} of {whose}", folder, about)
        yield from _chain(about["parents"], folder, about["stage"])


def _row(origin: Origin) -> tuple[str, ...]:
    about = origin.about
    return (
        f"{origin.role}: {about['model']}",
        origin.name,
        f"{about['updates']:,}",
        f"{about['forward_passes']:,} / {about['backward_passes']:,}",
        ", ".join("-" if a is None else f"{a:.2f}" for a in about["acc1_last"]),
    )


def _place(origin: Origin) -> tuple[str, ...]:
    hashes = (origin.about[key] for _, key in _HASHES)
    every = ([text] if isinstance(text, str) else text for text in hashes)
    shown = (", ".join(text[:_LETTERS] for text in texts) for texts in every)
    return origin.name, origin.folder, *shown
