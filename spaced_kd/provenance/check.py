"""Do the files of a run still say what was written, and agree with one another?"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import results, stages, trained
from spaced_kd.checkpoint import CheckpointLine
from spaced_kd.errors import CheckpointError
from spaced_kd.provenance.files import SEALED, claims_end, newest, read, rows_after
from spaced_kd.recorder import METRICS
from spaced_kd.writers import read_json


class Problem(NamedTuple):
    """What is wrong with a file of a workdir, in one line."""

    file: str
    what: str

    def __str__(self) -> str:
        """Return `FILE: WHAT`."""
        return f"{self.file}: {self.what}"


def verify(workdir: Path) -> list[Problem]:
    """Return what is wrong with the files of a run that nobody is writing to.

    Checked are: the seals of the JSON files; config.json's fingerprint against its own
    content; every checkpoint, best weights and snapshots included, byte by byte; the
    logs against the newest checkpoint; results.json against what the logs, the plan and
    the config give, byte by byte; the weights that a stage gave, where the stage still
    lies there. The stages' own files are not: they are runs themselves.

    Args:
      workdir: of the run, finished or not.

    Returns:
      The problems, [] if there are none; of a file that has no seal, what can be said
      without.

    Raises:
      CheckpointError: there is no run.
      StorageError: a file cannot be read.
    """
    workdir = workdir.absolute()
    if not (workdir / "config.json").exists():
        raise CheckpointError(f"{workdir} holds no run (no config.json).")
    problems = list(_wrong_json(workdir))
    broken = {problem.file for problem in problems}
    if "config.json" not in broken:
        problems += _wrong_config(workdir)
    problems += _wrong_checkpoints(workdir)
    problems += _wrong_logs(workdir)
    if not broken & {"config.json", "plan.json", "results.json"}:
        problems += _wrong_results(workdir)
    if stages.FILE not in broken:
        problems += _wrong_parents(workdir)
    return problems


def _wrong_json(workdir: Path) -> Iterator[Problem]:
    for name in (*SEALED, "results.json"):
        try:
            read(workdir / name)
        except CheckpointError as error:
            yield _problem(workdir, name, error)


def _wrong_config(workdir: Path) -> Iterator[Problem]:
    """Compare the fingerprint with the fields that decide, and these with the rest."""
    stored = read_json(workdir / "config.json")
    text = json.dumps(stored.get("science"), sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest() != stored.get("fingerprint"):
        yield Problem("config.json", "its fingerprint is not that of its 'science'")
        return
    for path, value in stored["science"].items():
        found = _at(stored.get("config"), path)
        if found != value:
            what = f"config.{path} is {found!r} in 'config' and {value!r} in 'science'"
            yield Problem("config.json", what)
    try:
        saved = newest(workdir)
    except CheckpointError:
        return  # `_wrong_checkpoints` tells
    for name, key in (("config", "fingerprint"), ("data", "data_fingerprint")):
        if saved is not None and saved.info.get(name) != stored.get(key):
            yield Problem("config.json", f"its {key} is not that of the checkpoint")


def _wrong_checkpoints(workdir: Path) -> Iterator[Problem]:
    """Read every saved state, as who continues or analyses the run would."""
    for root in _roots(workdir):
        line = CheckpointLine(root, keep=None)
        try:
            for saved in line.stored().values():
                line.read(saved)
        except CheckpointError as error:
            yield _problem(workdir, root.relative_to(workdir).as_posix(), error)


def _wrong_logs(workdir: Path) -> Iterator[Problem]:
    """Compare the logs with the newest checkpoint, which sealed them."""
    try:
        saved, is_over = newest(workdir), claims_end(workdir)
    except CheckpointError:
        return  # told of already
    if saved is None:
        return
    found = trained.altered_logs(workdir, saved)
    yield from (Problem(name, what) for name, what in found.items())
    more = rows_after(workdir, saved)
    if is_over and more and METRICS not in found:
        yield Problem(METRICS, f"differs by {more:,} bytes from the end of the run")


def _wrong_results(workdir: Path) -> Iterator[Problem]:
    """Compute the results again; timing included, they are a function of the files."""
    path = workdir / "results.json"
    try:
        again = results.load(workdir).text()
    except CheckpointError as error:
        yield _problem(workdir, "results.json", error)
        return
    except (KeyError, TypeError, AttributeError) as error:
        yield Problem("results.json", f"cannot be computed again: {error!r}")
        return
    if path.exists() and path.read_text(encoding="utf-8") != again:
        place = _difference(read_json(path), json.loads(again))
        what = f"is not what logs, plan and config give: {place or 'another layout'}"
        yield Problem("results.json", what)


def _wrong_parents(workdir: Path) -> Iterator[Problem]:
    """Compare the weights that the run began with to those that the stage holds now."""
    for role, about in read(workdir / stages.FILE).items():
        folder = workdir / about["folder"]
        if not (folder / "checkpoints").exists():
            continue
        try:
            arrays = trained.read(folder, about["config_fingerprint"])
            now = [
                trained.digest(trained.network(arrays, k, about["network"])[0])
                for k in range(len(about["weights"]))
            ]
        except (CheckpointError, KeyError) as error:
            yield Problem(stages.FILE, f"{role} cannot be compared ({error})")
            continue
        if now != about["weights"]:
            what = f"the {role} in {about['folder']} has other weights now"
            yield Problem(stages.FILE, what)


def _roots(workdir: Path) -> list[Path]:
    """Return the folders with checkpoints, those of the run's stages left out."""
    manifests = [
        *workdir.glob("checkpoints/*/manifest.json"),
        *workdir.glob("best/*/*/*/manifest.json"),
        *workdir.glob("snapshots/*/*/*/manifest.json"),
    ]
    return sorted({path.parent.parent for path in manifests})


def _at(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _difference(stored: Any, again: Any, path: str = "") -> str:
    """Return the first place where two JSON values differ, with both; "" if none."""
    if isinstance(stored, dict) and isinstance(again, dict):
        pairs = [(k, stored.get(k), again.get(k)) for k in [*again, *stored]]
    elif isinstance(stored, list) and isinstance(again, list):
        same = len(stored) == len(again)
        pairs = [*zip(range(len(again)), stored, again, strict=False)] if same else []
        if not same:
            return f"{path} has {len(stored)} entries, not {len(again)}"
    else:
        return "" if stored == again else f"{path} is {stored!r}, not {again!r}"
    inside = (
        _difference(one, other, f"{path}.{key}" if path else str(key))
        for key, one, other in pairs
    )
    return next(filter(None, inside), "")


def _problem(workdir: Path, name: str, error: CheckpointError) -> Problem:
    text = " ".join(str(error).split())
    return Problem(name, text.removeprefix(f"{workdir / name} "))
