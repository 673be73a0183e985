"""The paper's training recipes as overrides of a config, for the files in `configs/`.

Each function changes the ConfigDict in place. docs/recipes.md lists where paper and
released code differ. The students that a table compares: spaced_kd/arms.py.
"""

from typing import Any

from spaced_kd import config as config_lib
from spaced_kd import smoke
from spaced_kd.config import NO_TEACHER, WITH_BRANCHES, ArchConfig, OptimConfig

ConfigDict = Any
"""An `ml_collections.ConfigDict`, whose fields no type checker knows."""

# Table 1 counts on it: transformers see 224 pixels whatever the data set.
_TRANSFORMER_SIDE = 224
_IMAGENET = ("imagenet", "imagenet100")


def cnn(config: ConfigDict, data: str) -> None:
    """Set the ResNets' recipe (released online_KD/utils.py; method A.7, A.8).

    80 epochs, batch 128, SGD at a constant 0.01; crop and flip, on CIFAR and ImageNet
    also rotation by 15 degrees.

    Args:
      config: to change.
      data: a key of spaced_kd.data.DATASETS.
    """
    config.data.name = data
    if data == "tiny_imagenet":
        config.data.rotation_degrees = 0.0
    elif data in _IMAGENET:
        config.data.image_size = 224
        config.data.crop_padding = 0
        config.data.resized_crop_scale = 0.08
        config.data.eval_resize = 256


def digits(config: ConfigDict) -> None:
    """Set the images of the examples: 300 handwritten digits, on one device.

    With all data, digits saturate near 99 %; so few leave the students room to differ.
    """
    config.num_devices = 1  # too small to share
    config.chunk_steps = 5
    config.data.name = "digits"
    config.data.batch_size = 30
    config.data.crop_padding = 1
    config.data.horizontal_flip = False
    config.data.rotation_degrees = 15.0
    config.data.eval_batch_size = 500


def self_kd(config: ConfigDict, data: str) -> None:
    """Set the ResNets' self-distillation recipe (released self_KD; method B.1, B.4).

    On CIFAR: crop with grey fill, flip, AutoAugment, a black square of 16 pixels, and
    CIFAR-10's statistics. Elsewhere the data are those of `cnn`. Kaiming weights. The
    weights of the loss are the fields' defaults.

    Args:
      config: to change.
      data: a key of spaced_kd.data.DATASETS.
    """
    cnn(config, data)
    own_teacher(config)
    config.student.arch.weight_init = "kaiming"
    if data.startswith("cifar"):
        config.data.rotation_degrees = 0.0
        config.data.fill = 128
        config.data.policy = "autoaugment"
        config.data.cutout_pixels = 16
        config.data.normalization = "cifar10"


def self_kd_transformer(config: ConfigDict, data: str) -> None:
    """Set the transformers' self-distillation recipe: our reading of paper 5.1.

    The data and the optimiser are those of `transformer`. The features of all 11
    branches are held against the deepest exit's, as they are: each branch has an
    alignment layer in the network. No code is released for it (method C.4).

    Args:
      config: to change.
      data: a key of spaced_kd.data.DATASETS.
    """
    transformer(config, data)
    own_teacher(config)
    config.student.feature_branches = "all"
    config.student.branch_adaptor = "none"


def own_teacher(config: ConfigDict) -> None:
    """Make every student its own teacher, to be compared as `self_kd_arms` says."""
    config.teacher.model = NO_TEACHER
    config.student.method = "self_kd"
    config.reference = "self_kd,self_kd_double,interleaved"


def self_kd_arms(config: ConfigDict) -> dict[str, ConfigDict]:
    """Return the students that a comparison of self KD needs.

    baseline: the labels alone, on the network without branches. self_kd: every batch
    once. spaced: the labels as batches come, a replay after every interval; twice the
    updates. That is why there are three controls: self_kd_double has those updates in
    twice the epochs, interleaved makes both updates of a batch at once, and spaced_half
    stops at half of the epochs with the updates of self_kd.

    Args:
      config: with a network that has branches as `student.model`; the interval is
        `student.space_interval_epochs`, 4.0 if left open.
    """
    student = config_lib.student
    trunk = config.student.model.removesuffix("_branches")
    baseline: ConfigDict = student(plan="none", model=trunk)
    # Of all options of a network the one that its trunk has not.
    baseline.arch.branch = ArchConfig().branch
    return {
        "baseline": baseline,
        "self_kd": student(plan="online"),
        "self_kd_double": student(plan="online", epochs_factor=2.0),
        "interleaved": student(plan="interleaved"),
        "spaced": student(plan="spaced"),
        "spaced_half": student(plan="spaced", epochs_factor=0.5),
    }


def transformer(config: ConfigDict, data: str) -> None:
    """Set the transformers' recipe (released vit/; method C.2).

    300 epochs at 224 pixels on every data set; AdamW, warm-up 20 epochs, cosine 5e-4 to
    5e-6; random resized crop, RandAugment, random erasing.
    """
    config.num_epochs = 300
    config.data.name = data
    config.data.image_size = _TRANSFORMER_SIDE
    config.data.interpolation = "bicubic"
    config.data.normalization = "imagenet"
    config.data.last_batch = "drop"
    config.data.crop_padding = 0
    config.data.rotation_degrees = 0.0
    config.data.resized_crop_scale = 0.08
    config.data.policy = "randaugment"
    config.data.random_erasing = 0.25
    for network in (config.teacher, config.student):
        optim = network.optim
        optim.name = "adamw"
        optim.learning_rate = 5e-4
        optim.weight_decay = 0.05
        optim.decay_on = "matrices"
        optim.schedule = "cosine"
        optim.schedule_unit = "epoch"
        optim.final_learning_rate = 5e-6
        optim.warmup_epochs = 20.0
        optim.warmup_learning_rate = 5e-7


def cnn_among_transformers(network: ConfigDict) -> None:
    """Set the optimiser of a CNN in a run of `transformer`, and its initial weights.

    SGD with Nesterov momentum, a cosine from 0.1 to 0 without warm-up, decay 5e-4 on
    matrices, Kaiming weights (released vit/configs/resnet/; pycls/core/config.py).

    Args:
      network: `config.teacher` or `config.student`.
    """
    network.arch.weight_init = "kaiming"
    optim, usual = network.optim, OptimConfig()
    optim.name = usual.name
    optim.learning_rate = 0.1
    optim.nesterov = True
    optim.weight_decay = usual.weight_decay
    optim.final_learning_rate = 0.0
    optim.warmup_epochs = optim.warmup_learning_rate = 0.0


def born_again(config: ConfigDict) -> None:
    """Set the loss of born-again networks (Furlanello et al., ICML 2018).

    Labels and the teacher's probabilities count alike, at temperature 1, and features
    do not count (docs/methods.md).
    """
    config.student.soft_loss = "soft_cross_entropy"
    config.student.kd_weight = 0.5
    config.student.temperature = 1.0
    config.student.feature_weight = 0.0


def stage(config: ConfigDict, model: str) -> ConfigDict:
    """Return a run like another one that trains one network on the labels.

    For `config.stages`, to be named as "STAGE/alone". It has the run's data and epochs
    and its teacher's optimiser and options of architecture, and nothing of what
    students learn by, so that runs of different methods share it. Call it when the
    recipe is set, before `follow`.

    Args:
      config: of the run that will learn from it.
      model: what is trained.
    """
    own: ConfigDict = config.copy_and_resolve_references()
    plain: ConfigDict = config_lib.base_config()
    own.student, own.teacher, own.tutor = plain.student, plain.teacher, plain.tutor
    own.student.model = model
    own.student.arch = config.teacher.arch.copy_and_resolve_references()
    own.student.optim = config.teacher.optim.copy_and_resolve_references()
    own.teacher.model = NO_TEACHER
    own.stages = plain.stages
    own.students = {"alone": config_lib.student(plan="none")}
    own.reference = ""
    return own


def follow(config: ConfigDict, variant: str) -> None:
    """Apply a config file's variant: whom to follow, or a run of a minute.

    Args:
      config: with its students, recipe applied.
      variant: "released", "paper", "recommended" (`config.compat`; where a transformer
        teaches or is taught "released" also sets the released losses and clock), or
        "smoke": the released choices on a few synthetic images, two epochs, small
        networks, and of the students those that begin to differ by then.

    Raises:
      ValueError: another variant.
    """
    known = ("released", "paper", "recommended", "smoke")
    if variant not in known:
        raise ValueError(f"unknown variant '{variant}'; known: {', '.join(known)}")
    config.compat = "released" if variant == "smoke" else variant
    student, teacher = config.student, config.teacher
    if (student.model, student.arch) != (teacher.model, teacher.arch):
        student.init = "different"  # nothing to share, whatever the paper says
    taught = student.method not in WITH_BRANCHES
    transformers = "adamw" in (student.optim.name, teacher.optim.name)
    if config.compat == "released" and taught and transformers:
        _released_transformer_losses(config)
    if variant == "smoke":
        smoke.shrink(config)
    for stage_config in config.stages.values():
        follow(stage_config, variant)


def _released_transformer_losses(config: ConfigDict) -> None:
    # Deviation: the released vit/ draws replays from a second, reshuffled loader; ours
    # are exact unless replay="reshuffle" asks otherwise (method C.3).
    config.student.soft_loss = "kl_per_class"
    config.student.kd_weight = 0.5
    config.student.temperature = 1.0
    config.student.feature_weight = 0.0
    if not config.teacher.stage:
        config.student.optim.schedule_clock = "teacher"
    for student in config.students.values():
        if student.plan == "offline":
            student.optim.schedule_clock = "own"
            # The finished teacher is put into train mode with its student.
            student.teacher_bn = "batch"
