"""Write the comparison of two runs: a page, its figures, Markdown and JSON."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import style
from spaced_kd.compare import curves, pairs, runs
from spaced_kd.compare.pairs import Pair
from spaced_kd.compare.runs import Run
from spaced_kd.errors import ConfigError
from spaced_kd.report.page import Picture, data_uri, templates
from spaced_kd.tables import Table
from spaced_kd.writers import storage_error, write_whole


class Compared(NamedTuple):
    """Two runs and what came of comparing them; `tables`: title -> table."""

    a: Run
    b: Run
    pairs: list[Pair]
    tables: dict[str, Table]

    def text(self) -> str:
        """Return all tables for a terminal."""
        return "\n\n".join(f"{t}\n\n{table.text()}" for t, table in self._told())

    def markdown(self) -> str:
        """Return all tables as Markdown."""
        return "\n".join(f"## {t}\n\n{table.markdown()}" for t, table in self._told())

    def _told(self) -> list[tuple[str, Table]]:
        nothing = Table(("",), (("nothing differs",),))
        return [
            (t, table if table.rows else nothing) for t, table in self.tables.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `compare.json`."""
        differing = {
            name: {path: {"a": a, "b": b} for path, a, b in table.rows}
            for name, table in (
                ("science", runs.science(self.a, self.b)),
                ("operation", runs.operation(self.a, self.b)),
                ("environment", runs.environment(self.a, self.b)),
            )
        }
        return {
            "a": self.a.name,
            "b": self.b.name,
            "complete": {"a": self.a.results.complete, "b": self.b.results.complete},
            "same_data": self.a.data_fingerprint == self.b.data_fingerprint,
            "differing": differing,
            "networks": {pair.name: pairs.to_dict(pair) for pair in self.pairs},
        }


def compare(a: Path, b: Path) -> Compared:
    """Return two runs side by side; write nothing.

    Raises:
      CheckpointError: a folder holds no run, or a file is damaged.
      StorageError: a file cannot be read.
    """
    one, other = runs.read(a), runs.read(b)
    found = pairs.pair_networks(one, other)
    tables = {
        "Runs": _runs(one, other),
        "Networks": pairs.table(found, one, other),
        "Config: fields that decide the numbers": runs.science(one, other),
        "Config: paths, progress, checkpoints": runs.operation(one, other),
        "Fingerprints, versions, devices": runs.environment(one, other),
    }
    return Compared(one, other, found, tables)


def _runs(a: Run, b: Run) -> Table:
    rows = tuple(
        (
            letter,
            run.name,
            "complete" if run.results.complete else "UNFINISHED",
            str(run.config["data"]["name"]),
            f"{run.config['num_epochs']:g}",
            f"{run.config['seed']} to "
            f"{run.config['seed'] + run.config['num_seeds'] - 1}",
            run.described["fingerprint"][:12],
            run.data_fingerprint[:12],
        )
        for letter, run in (("A", a), ("B", b))
    )
    titles = (
        "",
        "folder",
        "state",
        "data",
        "epochs",
        "seeds",
        "config\nfingerprint",
        "data\nfingerprint",
    )
    return Table(titles, rows)


def write(compared: Compared, out: Path) -> Path:
    """Write compare.html, .md, .json and the curves as PNG and SVG.

    The same runs give the same bytes.

    Args:
      compared: from `compare`.
      out: a folder, made if missing; it must not be that of a run.

    Returns:
      The path of compare.html, which needs no other file.

    Raises:
      ConfigError: there is a run in `out`.
      StorageError: something cannot be written.
    """
    if (out / "config.json").exists():
        raise ConfigError(f"--out={out} is the folder of a run; choose another one.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error("make", out, error) from error
    pictures = _draw(compared, out)
    template = templates(Path(__file__).parent).get_template("compare.html")
    page = template.render(
        a=compared.a, b=compared.b, tables=compared.tables, pictures=pictures
    )
    write_whole(out / "compare.md", compared.markdown())
    text = json.dumps(compared.to_dict(), indent=2, allow_nan=False) + "\n"
    write_whole(out / "compare.json", text)
    return write_whole(out / "compare.html", page)


def _draw(compared: Compared, out: Path) -> list[Picture]:
    title = "Top-1 accuracy on the test set"
    with style.drawing():
        return [
            Picture(stem, title, data_uri(style.save(figure, out / stem)))
            for stem, figure in (
                (f"accuracy_{place}" if place > 1 else "accuracy", figure)
                for place, figure in enumerate(
                    curves.figures(compared.a, compared.b), start=1
                )
            )
        ]
