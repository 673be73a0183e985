"""`python -m spaced_kd.export`: one student out of a workdir, ready to be given away.

The student alone: no teacher, no feature adaptor, no optimiser.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags as absl_flags

import spaced_kd
from spaced_kd import (
    backend,
    exits,
    flags,
    metrics,
    model_card,
    registry,
    results,
    trained,
    weights,
)
from spaced_kd import workdir as workdirs
from spaced_kd.checkpoint import CheckpointLine
from spaced_kd.config import ArchConfig
from spaced_kd.errors import CheckpointError, ConfigError
from spaced_kd.models import make_model
from spaced_kd.models.base import Model
from spaced_kd.types import Variables
from spaced_kd.writers import read_json, storage_error, write_whole

USAGE = """Write one student of a run as safetensors, with a model card.

  python -m spaced_kd.export --workdir=runs/digits --student=spaced_1_5 --out=exported

--workdir=FOLDER   of the run
--student=NAME     which student, as the config names it
--out=FOLDER       gets student.safetensors and README.md; made if missing
--which=last|best  newest checkpoint (default), or best epoch on the test set
--seed=N           which repetition; default: the run's first
--imports=A,B      modules of your own that register the network, besides config.imports

Exit codes: 0 done, 2 flags, 4 checkpoint or workdir, 6 non-finite, 7 storage.
"""

WHICH = ("last", "best")
_NEEDED = ("workdir", "student", "out")


def export_student(
    workdir: str | Path,
    student: str,
    out: str | Path,
    *,
    which: str = "last",
    seed: int | None = None,
) -> Path:
    """Write a student's weights and its model card; reads the workdir, changes nothing.

    Args:
      workdir: of a run, finished or not.
      student: its name in the config.
      out: folder for `student.safetensors` (PyTorch's names, see `weights`) and
        `README.md`; made if missing, files of these names are replaced.
      which: "last": the newest checkpoint; "best": the student's best evaluation, which
        was chosen on the test set.
      seed: of the repetition; None: the first.

    Returns:
      The path of the weights.

    Raises:
      ConfigError: no such student, seed or `which`.
      CheckpointError: nothing saved yet, damaged, or of another version.
      StorageError: a file cannot be read or written.
    """
    registry.lookup(dict.fromkeys(WHICH), which, "--which")
    workdir, out = Path(workdir), Path(out)
    if not (workdir / "config.json").exists():
        raise CheckpointError(
            f"{workdir} holds no run (no config.json); see --workdir."
        )
    stored, plan = read_json(workdir / "config.json"), read_json(workdir / "plan.json")
    config = stored["config"]
    workdirs.import_modules(workdir)
    fields = registry.lookup(config["students"], student, "--student")
    repetition = _repetition(config, seed)
    about = _about(workdir, fields, plan) | {
        "student": student,
        "seed": config["seed"] + repetition,
        "which": which,
    }
    if which == "best":
        folder = workdir / "best" / f"seed_{about['seed']}" / student
        variables, saved = _best(folder)
    else:
        arrays = trained.read(workdir, stored["fingerprint"])
        variables, step = trained.network(arrays, repetition, student)
        saved = {"step": step}
    about |= saved
    model = make_model(
        about["model"], about["num_classes"], ArchConfig(**about["arch"])
    )
    # Only what this network has, so that options added later leave the file readable.
    about["arch"] = {k: v for k, v in about["arch"].items() if hasattr(model, k)}
    names = _exit_names(model, variables, about["image_shape"])
    about |= {"exits": names, "quoted": exits.quoted(fields, names)}
    card = model_card.text(about, config, results.load(workdir), variables)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error("make", out, error) from error
    path = weights.save_student(out, variables, model, about)
    write_whole(out / "README.md", card)
    return path


def _repetition(config: Mapping[str, Any], seed: int | None) -> int:
    first, count = config["seed"], config["num_seeds"]
    if seed is None:
        return 0
    if not first <= seed < first + count:
        raise ConfigError(
            f"--seed={seed} is not one of the run's; it has {first} to "
            f"{first + count - 1}."
        )
    return seed - first


def _about(workdir: Path, fields: Mapping[str, Any], plan: Mapping[str, Any]) -> dict:
    if "interpolation" not in plan.get("input", {}):
        raise CheckpointError(
            f"{workdir}/plan.json is of an older version and does not say what the "
            "networks see; run the training command once more, which completes it."
        )
    known = {field.name for field in dataclasses.fields(ArchConfig)}
    if set(fields["arch"]) != known:
        raise CheckpointError(
            f"{workdir} is a run of another version of spaced_kd (its students' arch "
            f"has {', '.join(sorted(set(fields['arch']) ^ known))}); export with that."
        )
    return {
        "version": spaced_kd.__version__,
        "model": fields["model"],
        "arch": fields["arch"],
        **plan["input"],
    }


def _exit_names(
    model: Model, variables: Variables, image_shape: Sequence[int]
) -> list[str]:
    """Return the names of the exits, deepest first; [] for a network that has one."""
    image = jnp.zeros((1, *image_shape))
    outputs: Any = jax.eval_shape(
        lambda image: model.apply(variables, image, train=False), image
    )
    if outputs.branch_logits is None:
        return []
    return list(metrics.exit_names(1 + outputs.branch_logits.shape[1]))


def _best(folder: Path) -> tuple[Variables, dict]:
    line = CheckpointLine(folder, keep=1)
    saved = trained.newest(line, folder)
    arrays = line.read(saved)
    variables = {k: trained.below(arrays, f"{k}/") for k in ("params", "batch_stats")}
    return trained.alone(variables), {"step": saved.tick, "acc1": saved.info["acc1"]}


def cli(argv: Sequence[str] | None = None) -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv if argv is None else list(argv)))


def main(argv: Sequence[str]) -> int:
    """Parse the flags, export, say where; return the exit code.

    Args:
      argv: program name and arguments.
    """
    return flags.call(_run, argv, USAGE)


def _run(argv: Sequence[str]) -> int:
    flags.import_modules(argv)
    values = _parse(argv)
    backend.configure()
    path = export_student(
        values.workdir,
        values.student,
        values.out,
        which=values.which,
        seed=values.seed,
    )
    print(f"weights: {path}\ncard: {path.with_name('README.md')}")
    return 0


def _parse(argv: Sequence[str]) -> absl_flags.FlagValues:
    values = flags.parse(argv, _define)
    for name in _NEEDED:
        if not values[name].value:
            raise ConfigError(f"--{name} is missing; see --help.")
    return values


def _define(values: absl_flags.FlagValues) -> None:
    for name in _NEEDED:
        absl_flags.DEFINE_string(name, None, "see USAGE", values)
    absl_flags.DEFINE_string("which", "last", "see USAGE", values)
    absl_flags.DEFINE_string("imports", "", "see USAGE", values)
    absl_flags.DEFINE_integer("seed", None, "see USAGE", flag_values=values)


if __name__ == "__main__":
    cli()
