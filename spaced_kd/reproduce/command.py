"""What `python -m spaced_kd.reproduce` does, once its flags are read."""

import ast
import dataclasses
import filecmp
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from spaced_kd import matched, provenance, registry, trained, workdir
from spaced_kd.errors import CheckpointError, ConfigError, Interrupted
from spaced_kd.reproduce import budgets, items, numbers, outcome, planner, source
from spaced_kd.reproduce.budgets import Budget
from spaced_kd.reproduce.items import ITEMS, Item
from spaced_kd.reproduce.numbers import Runs
from spaced_kd.reproduce.outcome import FILE, Outcome, Settings
from spaced_kd.reproduce.planner import Plan
from spaced_kd.sweep import engines
from spaced_kd.sweep import run as sweep
from spaced_kd.sweep import state as states_lib
from spaced_kd.sweep.state import State
from spaced_kd.writers import leftovers, read_json

_log = logging.getLogger("spaced_kd")

_DATA_DIR = "data.dir"
_FOLLOW = ("released", "paper", "recommended")


def run(names: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Do what the command line asks for; return the exit code.

    Args:
      names: of items, or "all".
      values: of the flags.

    Raises:
      SpacedKDError: one of its kinds.
    """
    root = Path(values.workdir).expanduser().resolve()
    budget = _budget(values)
    settings = _settings(values, budget)
    wanted = _items(names, root, settings)
    plan = planner.plan(
        wanted, source.folder(values.configs), budget, root, settings.variant
    )
    if values.plan:
        print(_described(plan))
        return 0
    if values.check:
        return _check(_as_written(settings, root), wanted, plan, root)
    show = _Show(settings, wanted, plan, root)
    try:
        states = sweep.run(
            plan.jobs,
            root,
            engine=values.engine,
            workers=values.workers,
            options=engines.parse_options(values.engine_options),
            may_exit=True,
            changed=show.tables,
        )
    except Interrupted:
        # Nothing runs any more, and no table should say so.
        show.all(states_lib.look(plan.jobs, root))
        raise
    done = show.all(states)
    print(f"{len(plan.jobs)} runs; all tables and figures: {root / 'index.html'}")
    return done.code


class _Show:
    """Writes what is known so far, whenever a run has changed."""

    def __init__(
        self, settings: Settings, wanted: Sequence[Item], plan: Plan, root: Path
    ):
        self._known = settings, wanted, plan
        self._runs, self._root = Runs(root), root
        self._written: Outcome | None = None

    def tables(self, states: Sequence[State]) -> None:
        """Write the tables that are not as they were last written."""
        found = self._outcome(states)
        outcome.write_tables(found, self._root, self._written)
        self._written = found

    def all(self, states: Sequence[State]) -> Outcome:
        """Write everything."""
        found = self._outcome(states)
        outcome.write(found, self._root)
        return found

    def _outcome(self, states: Sequence[State]) -> Outcome:
        return Outcome.of(*self._known, states, self._runs, self._root)


def _budget(values: absl_flags.FlagValues) -> Budget:
    if values.seeds < 0:
        raise ConfigError(f"--seeds={values.seeds} is too small; give at least 1.")
    overrides = [_override(text) for text in sorted(values.override)]
    if values.data_dir:
        overrides.append((_DATA_DIR, values.data_dir))
    budget = budgets.find(values.budget, values.seeds)
    return dataclasses.replace(budget, overrides=tuple(overrides))


def _override(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not (path and equals):
        raise ConfigError(
            f"--override={text} is not FIELD=VALUE, e.g. "
            "--override=compute_dtype=bfloat16."
        )
    try:
        return path, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return path, value


def _settings(values: absl_flags.FlagValues, budget: Budget) -> Settings:
    if values.variant:
        registry.lookup(dict.fromkeys(_FOLLOW), values.variant, "--variant")
    registry.lookup(numbers.METRICS, values.metric, "--metric")
    equal = tuple(filter(None, values.equal.split(",")))
    for what in equal:
        registry.lookup(matched.WHAT, what, "--equal")
    return Settings(
        budget.name,
        budget.num_seeds,
        values.variant,
        values.metric,
        equal,
        # Where data lies may change from call to call.
        tuple(f"{p}={value}" for p, value in budget.overrides if p != _DATA_DIR),
    )


def _items(names: Sequence[str], root: Path, settings: Settings) -> list[Item]:
    """Return what is asked for, and what an earlier call in the workdir was.

    Raises:
      ConfigError: nothing or something unknown is asked for, or the workdir's runs
        are of other settings.
    """
    if not names:
        raise ConfigError(f"name an item: {', '.join(ITEMS)}, or all.")
    chosen = {name for name in ITEMS if "all" in names}
    chosen |= {items.lookup(name).name for name in names if name != "all"}
    before = read_json(root / FILE) if (root / FILE).exists() else None
    if before is not None:
        _refuse_other(before["settings"], settings, root)
        chosen |= set(before["items"]) & set(ITEMS)
    return [item for name, item in ITEMS.items() if name in chosen]


def _refuse_other(before: dict[str, Any], settings: Settings, root: Path) -> None:
    now = dataclasses.asdict(settings)
    for name in ("budget", "num_seeds", "variant", "overrides"):
        old, new = before[name], now[name]
        if list(old) != list(new) if name == "overrides" else old != new:
            raise ConfigError(
                f"{root} has runs of {name}={old!r}, not {new!r}; give the same flags "
                "as before, or another --workdir."
            )


def _described(plan: Plan) -> str:
    lines = [
        f"{job.name}: {job.config.num_seeds} seeds, {job.config.num_epochs} epochs of "
        f"{job.config.data.name}, teacher {job.config.teacher.model}, students "
        f"{', '.join(job.config.students)}"
        + (f"; then {', '.join(job.analyses)}" if job.analyses else "")
        for job in plan.jobs
    ]
    return "\n".join([*lines, f"{len(plan.jobs)} runs"])


def _check(settings: Settings, wanted: Sequence[Item], plan: Plan, root: Path) -> int:
    """Verify every run and every file; print what is amiss; return the exit code."""
    workdir.refuse_locked(root)
    states = states_lib.look(plan.jobs, root)
    done = [s.job.name for s in states if s.status == "finished"]
    folders = [states_lib.folder(root, name) for name in done]
    folders += sorted((root / "stages").glob("*/"))
    problems = [
        f"{folder.name}: {problem}"
        for folder in folders
        for problem in provenance.verify(folder)
    ]
    if not problems:
        problems = [
            f"{folder.name}: is marked as finished, but its run is not"
            for folder in folders
            if not trained.is_finished(folder)
        ]
    if not problems:
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch)
            found = Outcome.of(settings, wanted, plan, states, Runs(root), root)
            outcome.write(found, made)
            problems = list(_unlike(made, root))
    for problem in problems:
        print(problem)
    finished = sum(state.status == "finished" for state in states)
    print(
        f"{finished} of {len(states)} runs are finished; "
        + (f"{len(problems)} problems" if problems else "all is as their logs say")
    )
    return CheckpointError.code if problems else 0


def _as_written(settings: Settings, root: Path) -> Settings:
    """Return the settings that the tables on the disk were made with."""
    path = root / FILE
    if not path.exists():
        return settings
    before = read_json(path)["settings"]
    equal = tuple(before["equal"])
    return dataclasses.replace(settings, metric=before["metric"], equal=equal)


def _unlike(made: Path, root: Path) -> Iterable[str]:
    for folder in ("tables", "figures"):
        # An unfinished file is no table; the next writing removes it.
        theirs = set((root / folder).glob("*")) - set(leftovers(root / folder))
        for path in sorted(theirs):
            if not (made / folder / path.name).exists():
                yield f"{folder}/{path.name}: is none of these items' files"
    for path in sorted(p for p in made.rglob("*") if p.is_file()):
        name = path.relative_to(made)
        if not (root / name).exists():
            yield f"{name}: missing; the command without --check writes it"
        elif not filecmp.cmp(path, root / name, shallow=False):
            yield f"{name}: is not what the logs of the runs give"
