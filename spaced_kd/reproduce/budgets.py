"""What a config file of the paper becomes on a small machine.

paper: as it is. small: the same students on 300 handwritten digits with small networks,
hours on 2 CPU cores for all tables. smoke: a few updates of each, to see that
everything works; its numbers mean nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from spaced_kd import config as config_lib
from spaced_kd import recipes, registry
from spaced_kd.config import NO_TEACHER, WITH_TRAINED_TEACHER

ConfigDict = Any
"""An `ml_collections.ConfigDict`, whose fields no type checker knows."""

_PAPER_EPOCHS = 80
_PAPER_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is spent.

    name: a key of `BUDGETS`. num_seeds: paired repetitions. epochs: of a ResNet's
    training, where the paper has 80; None: as in the config file. transformer_epochs:
    likewise, where it has 300. train_examples: digits that are trained on. analyses:
    analysis -> options that it has instead of its own. overrides: (dotted field, value)
    of every run, applied last, by `source`.
    """

    name: str
    num_seeds: int
    epochs: int | None = None
    transformer_epochs: int | None = None
    train_examples: int = 300
    analyses: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def warning(self) -> str:
        """What must be known before any number is read; "" at full size."""
        if self.is_paper:
            return ""
        return (
            f"Budget {self.name}: these are runs on {self.train_examples} handwritten "
            "digits with small networks, not the paper's data and networks, which the "
            "rows are named by; rows that differ in these alone share their runs. The "
            "paper's numbers stand beside ours to show the place of each, not to be "
            "compared with."
            + " Such a short run means nothing."
            * (self.name == "smoke")
        )

    @property
    def is_paper(self) -> bool:
        """Whether networks, data and lengths are the paper's."""
        return self.epochs is None


_FEW_IMAGES = {
    "noise": {"num_draws": 1, "splits": "train", "num_train_examples": 30},
    "corruptions": {"num_examples": 30},
    "attacks": {"num_examples": 30, "steps": 2},
}

# There are not as many as the analysis takes of larger sets.
_ALL_IMAGES = {"noise": {"num_train_examples": 0, "num_test_examples": 0}}

BUDGETS = {
    "smoke": Budget("smoke", 2, 8, 8, train_examples=90, analyses=_FEW_IMAGES),
    "small": Budget("small", 5, 40, 16, analyses=_ALL_IMAGES),
    "paper": Budget("paper", 3),
}


def find(name: str, num_seeds: int = 0) -> Budget:
    """Return a budget; `num_seeds` replaces its own unless 0.

    Raises:
      ConfigError: unknown name.
    """
    budget = registry.lookup(BUDGETS, name, "--budget")
    return dataclasses.replace(budget, num_seeds=num_seeds or budget.num_seeds)


def apply(config: ConfigDict, budget: Budget) -> None:
    """Change a run's config, as its file returns it, to a budget.

    Learning rates, losses, methods and who learns when stay. Intervals stay in epochs;
    windows of a critical period keep their share of the training. A file that is made
    for digits only gets the seeds, unless the budget is smoke.
    """
    config.num_seeds = budget.num_seeds
    if budget.epochs is None or budget.transformer_epochs is None:
        return
    if config.data.name == "digits" and budget.name != "smoke":
        return  # made for a small machine by its own file
    adamw = {config.teacher.optim.name, config.student.optim.name} == {"adamw"}
    before = config.num_epochs
    config.num_epochs = budget.transformer_epochs if adamw else budget.epochs
    _digits(config)
    config.data.num_train_examples = budget.train_examples
    if budget.name == "smoke":
        _hurry(config)
    share = config.num_epochs / before
    for network in (config.teacher, config.student):
        network.optim.warmup_epochs *= share
    for student in config.students.values():
        student.window_start_epochs = _scaled(student.window_start_epochs, share)
        student.window_stop_epochs = _scaled(student.window_stop_epochs, share)
        if student.plan == "critical_period":
            _fit_window(student, config.num_epochs)
    _networks(config, budget)
    for stage in config.stages.values():
        apply(stage, budget)


def override(path: str, value: Any, budget: Budget) -> Any:
    """Return what a grid's value becomes: batches in proportion to the budget's."""
    if budget.is_paper or path != "data.batch_size":
        return value
    digits: ConfigDict = config_lib.base_config()
    recipes.digits(digits)
    return max(1, round(value * digits.data.batch_size / _PAPER_BATCH))


def _digits(config: ConfigDict) -> None:
    last_batch = config.data.last_batch
    plain: ConfigDict = config_lib.base_config()
    config.data = plain.data
    recipes.digits(config)
    config.data.last_batch = last_batch


def _hurry(config: ConfigDict) -> None:
    """Leave out what takes longer than the training, and would show nothing new."""
    config.report = False  # takes longer than the run
    config.eval_every_epochs = 2
    config.chunk_steps = 1  # a rest shorter than a chunk would be a second program
    config.data.crop_padding = 0
    config.data.rotation_degrees = 0.0


def _scaled(epochs: float | None, share: float) -> float | None:
    return None if epochs is None else epochs * share


def _fit_window(student: ConfigDict, num_epochs: int) -> None:
    start = student.window_start_epochs or 0.0
    length = (student.window_stop_epochs or num_epochs) - start
    if student.space_interval_epochs > length:
        student.space_interval_epochs = length / 2


def _networks(config: ConfigDict, budget: Budget) -> None:
    """Replace the networks by small ones, of which each may be none or inherited."""
    plain: ConfigDict = config_lib.base_config()
    # SHAKE's second head reads feature maps.
    needs_maps = config.student.method in WITH_TRAINED_TEACHER
    cnn = "small_cnn" if needs_maps or budget.name != "smoke" else "mlp"
    for network in (config.teacher, config.student):
        network.model = _small(network.model, cnn, budget)
        network.arch = plain.student.arch.copy_and_resolve_references()
        if network.model.startswith(("deit", "pit")):
            network.arch.patch_size = 4
            network.arch.depth_multiple = 0.25
    for student in config.students.values():
        if student.model:
            student.model = _small(student.model, cnn, budget)
        student.arch = config_lib.student().arch


def _small(model: str, cnn: str, budget: Budget) -> str:
    if model == NO_TEACHER:
        return model
    if budget.name == "small" and model.startswith(("deit", "pit")):
        return model
    return "small_cnn_branches" if model.endswith("_branches") else cnn
