"""Collect what a report shows and write it as one HTML file."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from spaced_kd import provenance, style
from spaced_kd import results as results_lib
from spaced_kd.analysis.base import Found
from spaced_kd.errors import CheckpointError
from spaced_kd.progress import duration
from spaced_kd.report import analyses, origins
from spaced_kd.report.configuration import environment, settings, started
from spaced_kd.report.figures import every_figure
from spaced_kd.report.teaching import sentence, teaching
from spaced_kd.results import NetworkResult, Results, network_order
from spaced_kd.writers import Row, read_json, write_whole

INPUTS = {
    "config.json": "the configuration as it ran, with fingerprints",
    "plan.json": "who trained when, and the compute ledger",
    "stages.json": "trained networks that the run began with, and where they are from",
    "metrics.jsonl": "every measured value, one JSON object a line",
    "timings.jsonl": "seconds and images of every tick",
    "analysis.json": "what analyses of the networks have found",
    "env.json": "versions, devices and the command of every start",
}
"""What a report is made of: file -> meaning."""


class Picture(NamedTuple):
    """A figure in the page. uri: the SVG as a data URI."""

    stem: str
    title: str
    uri: str


class Workdir(NamedTuple):
    """Everything that is read from a workdir."""

    config: dict[str, Any]
    fingerprints: dict[str, str]
    env: dict[str, Any]
    plan: dict[str, Any]
    origins: dict[str, Any]
    rows: list[Row]
    results: Results
    analyses: dict[str, Found]
    files: list[tuple[str, str, int, str]]
    seal: str


def build(workdir: Path) -> Path:
    """Write `figures/*.png`, `figures/*.svg` and `report.html` of a workdir.

    Reads files only, of a run that is finished or not; the same files give the same
    bytes, wherever the workdir lies.

    Args:
      workdir: folder of the run.

    Returns:
      The path of `report.html`, which needs no other file.

    Raises:
      CheckpointError: a file of the run is damaged.
      StorageError: a file cannot be read or written.
    """
    run = read(workdir)
    pictures = _draw(run, workdir / "figures")
    template = templates(Path(__file__).parent).get_template("template.html")
    page = template.render(_context(run, pictures))
    return write_whole(workdir / "report.html", page)


def templates(*folders: Path) -> jinja2.Environment:
    """Return the templates of some folders and the parts they share, which lie here."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def read(workdir: Path) -> Workdir:
    """Read the files of a run.

    Raises:
      CheckpointError: a file is damaged.
      StorageError: a file cannot be read.
    """
    described = read_json(workdir / "config.json")
    config, plan = described["config"], read_json(workdir / "plan.json")
    if "total_steps" not in plan:
        raise CheckpointError(
            f"{workdir / 'plan.json'} is of another version of spaced_kd; report the "
            "run with that version."
        )
    rows = results_lib.read_log(workdir / "metrics.jsonl")
    timings = results_lib.read_log(workdir / "timings.jsonl")
    env, begun_with = workdir / "env.json", workdir / "stages.json"
    return Workdir(
        config=config,
        fingerprints={
            name: str(value)
            for name, value in described.items()
            if name.endswith("fingerprint")
        },
        env=read_json(env) if env.exists() else {},
        plan=plan,
        origins=read_json(begun_with) if begun_with.exists() else {},
        rows=rows,
        results=results_lib.compute(config, plan, rows, timings),
        analyses=analyses.read(workdir, described, plan),
        files=[
            (name, meaning, *_size_and_hash(workdir / name))
            for name, meaning in INPUTS.items()
            if (workdir / name).exists()
        ],
        seal=_seal(workdir),
    )


def _seal(workdir: Path) -> str:
    try:
        missing = provenance.unsealed(workdir)
    except CheckpointError:
        return "No checkpoint can be read that says whether the logs are sealed."
    if missing:
        return f"Not sealed: {', '.join(missing)}."
    return "All files of the run are sealed."


def _size_and_hash(path: Path) -> tuple[int, str]:
    data = path.read_bytes()
    return len(data), hashlib.sha256(data).hexdigest()


def _draw(run: Workdir, folder: Path) -> dict[str, list[Picture]]:
    """Draw and save all figures: section -> pictures."""
    with style.drawing():
        drawn = every_figure(run.config, run.plan, run.rows, run.results.networks)
        drawn |= analyses.figures(run.analyses, network_order(run.config, run.plan))
        return {
            section: [
                Picture(stem, title, data_uri(style.save(figure, folder / stem)))
                for stem, title, figure in made
                if figure is not None
            ]
            for section, made in drawn.items()
        }


def data_uri(svg: bytes) -> str:
    """Return an SVG as the source of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _context(run: Workdir, pictures: Mapping[str, list[Picture]]) -> dict[str, Any]:
    every = settings(run.config)
    return {
        "config": run.config,
        "complete": run.results.complete,
        "sentence": sentence(run.config, run.plan),
        "timing": _timing(run.results),
        "table": run.results.cells(),
        "differences": run.results.difference_cells(),
        "exits": run.results.exit_cells(),
        "teaching": teaching(run.config, run.plan),
        "origins": origins.tables(run.origins),
        "pictures": pictures,
        "analyses": analyses.sections(run.analyses),
        "ledger": _ledger(run.results.networks, run.plan["steps_per_epoch"]),
        "changed": [setting for setting in every if setting.differs],
        "settings": every,
        "fingerprints": run.fingerprints,
        "env": environment(run.env),
        "starts": len(run.env.get("starts") or ()),
        "started": started(run.env),
        "seal": run.seal,
        "files": run.files,
    }


def _timing(results: Results) -> str:
    seconds, speed = results.timing["seconds"], results.timing["images_per_second"]
    if seconds is None:
        return ""
    shown = "" if speed is None else f", {speed:,.0f} images a second"
    return f"Training and evaluation took {duration(seconds)}{shown}."


def _ledger(
    networks: Mapping[str, NetworkResult], steps_per_epoch: int
) -> list[tuple[str, ...]]:
    counts = {
        name: (net.updates, net.forward_passes, net.backward_passes)
        for name, net in networks.items()
    }
    updates, forward, backward = map(sum, zip(*counts.values(), strict=True))
    counts["all together"] = updates, forward, backward
    return [
        (name, f"{u:,}", f"{u / steps_per_epoch:.4g}", f"{f:,}", f"{b:,}")
        for name, (u, f, b) in counts.items()
    ]
