"""Any config of `configs/` as a run of a minute: its variant `:smoke`."""

from typing import Any

from spaced_kd import config as config_lib
from spaced_kd.config import SELF_TAUGHT, WITH_BRANCHES

ConfigDict = Any
"""An `ml_collections.ConfigDict`, whose fields no type checker knows."""


def shrink(config: ConfigDict) -> None:
    """Make a run of a minute of any config, whose students and recipe are set.

    Synthetic images, one seed, two epochs of three steps, small networks. Windows of a
    critical period are a tenth as long. Students that would only then begin to differ
    from an online one are left out.
    """
    config.num_seeds = 1
    config.num_devices = 1
    config.chunk_steps = 1  # a rest shorter than a chunk would be a second program
    _shrink_data(config.data)
    _shrink_epochs(config, 2)
    branches = config.student.method in WITH_BRANCHES
    if branches:
        defaults: ConfigDict = config_lib.base_config()
        config.student.arch = defaults.student.arch
    # No small ResNet has branches, and six arms with 12 exits each compile for minutes.
    large = ("resnet", "deit") if branches else "resnet"
    small = "small_cnn" if branches else "resnet8"
    for network in (config.teacher, config.student, *config.students.values()):
        model = network.model or ""
        if model.startswith(large):
            network.model = small + "_branches" * model.endswith("_branches")
    for network in (config.teacher, config.student):
        if network.model.startswith(("deit", "pit")):
            network.arch.patch_size = 8
        network.optim.warmup_epochs = min(network.optim.warmup_epochs, 1.0)


def _shrink_data(data: ConfigDict) -> None:
    data.name = "fake"
    data.num_train_examples, data.num_test_examples = 96, 40
    data.batch_size, data.eval_batch_size = 32, 40
    data.image_size = 32
    data.eval_resize = 36 if data.eval_resize else 0


def _shrink_epochs(config: ConfigDict, num_epochs: int) -> None:
    config.num_epochs = num_epochs
    if config.student.method in SELF_TAUGHT:
        config.student.space_interval_epochs = 1.0  # fits into half of the epochs
    for student in config.students.values():
        if student.plan == "critical_period":
            student.window_start_epochs /= 10
            student.window_stop_epochs /= 10
            student.space_interval_epochs = 0.7  # two of three steps
    config.students = {
        name: student
        for name, student in config.students.items()
        if _begins(student) < num_epochs
    }


def _begins(student: ConfigDict) -> float:
    """Return the epoch from which on a student is unlike an online one."""
    if student.plan == "constant_ahead":
        return student.space_interval_epochs
    return student.window_start_epochs or 0.0
