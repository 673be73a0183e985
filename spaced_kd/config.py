"""Every configuration field, once: default, meaning, unit, range, source.

The dataclasses below are the only place where a field is declared.
`base_config()` turns them into the `ConfigDict` that config files and
`--config.a.b=v` override; `from_config_dict` turns the result back into frozen,
validated dataclasses, which is what the rest of the package sees.

Two kinds of value are filled in at that moment, so that `config.json` shows what
really ran: a student's field that was left open inherits from `config.student`, and a
field left at "auto" takes the choice of `config.compat` (table COMPAT).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import ml_collections

from spaced_kd import registry
from spaced_kd.errors import ConfigError
from spaced_kd.fields import named, option, parse, section, to_config_dict

AUTO = "auto"
DEFAULT_REFERENCE = "online"
NO_TEACHER = "none"
"""As `config.teacher.model`: a run of students that no other network teaches."""

WITH_BRANCHES = ("self_kd",)
"""Methods that train the branches of a network."""

SELF_TAUGHT = (*WITH_BRANCHES, "dlb", "ps_kd")
"""Methods by which a network is its own teacher."""

WITH_PEER = ("dml",)
"""Methods of two equal networks, which are their own teachers (models.pair)."""

WITH_TRAINED_TEACHER = ("shake",)
"""Methods whose teacher was trained before the run."""

TWO_WAY = (*WITH_PEER, *WITH_TRAINED_TEACHER)
"""Methods that train two networks, or parts, which learn from one another."""

LEADING = (*SELF_TAUGHT, *TWO_WAY)
"""Methods whose spaced student also learns the batches when they come: ahead of a
replay a network leads itself, or one of the two leads the other."""

WITH_TWO_HEADS = ("dho",)
"""Methods that need a network with a head of its own for soft targets."""

WITHOUT_TEACHER = ("hard", *SELF_TAUGHT, *WITH_PEER)
"""Methods that do not look at the run's teacher."""

PLANS = (
    "none",
    "online",
    "lagged",
    "interleaved",
    "spaced",
    "critical_period",
    "constant_ahead",
    "offline",
)
"""Keys of spaced_kd.schedule.SCHEDULES, in the order in which tables list students."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the networks see."""

    name: str = option("cifar100", "data set, a key of spaced_kd.data.DATASETS")
    dir: str = option(
        "",
        "folder with prepared data; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets",
        operational=True,
    )
    num_train_examples: int = option(
        0, "class-balanced training subset, examples; 0: all", low=0
    )
    num_test_examples: int = option(
        0, "class-balanced test subset, examples; 0: all", low=0
    )
    subset_seed: int = option(0, "which examples a subset holds", low=0)
    batch_size: int = option(
        128, "global batch, examples (all devices together)", low=1
    )
    last_batch: str = option(
        "keep",
        "an epoch's incomplete last batch: keep (padded, masked; as released) or drop",
        choices=("keep", "drop"),
    )
    image_size: int = option(
        0,
        "side of the square image that the networks see, pixels; 0: as stored, 224 for "
        "ImageNet; for `fake` the stored size, 0: 8",
        low=0,
    )
    normalization: str = option(
        "dataset",
        "pixel mean and standard deviation: the data set's own, cifar10 (released self "
        "KD), or imagenet (released transformers, also for CIFAR)",
        choices=("dataset", "cifar10", "imagenet"),
    )
    interpolation: str = option(
        "bilinear",
        "of every resize: bilinear (torchvision's default) or bicubic (transformers)",
        choices=("bilinear", "bicubic"),
    )
    eval_resize: int = option(
        0,
        "test images: resize the shorter side to this, then crop the centre to "
        "image_size, pixels; 0: resize to image_size squarely",
        low=0,
    )
    resized_crop_scale: float = option(
        0.0,
        "random resized crop: least share of the image's area (released: 0.08), "
        "aspect 3/4 to 4/3; 0: none",
        low=0.0,
        high=1.0,
    )
    crop_padding: int = option(4, "random crop after padding, pixels; 0: none", low=0)
    fill: int = option(
        0,
        "grey value of what crop and rotation bring in from outside (released self KD: "
        "128)",
        low=0,
        high=255,
    )
    horizontal_flip: bool = option(True, "mirror with probability 1/2")
    rotation_degrees: float = option(
        15.0,
        "rotation, uniform in +-degrees, nearest neighbour; 0: none",
        low=0.0,
        high=180.0,
    )
    policy: str = option(
        "none",
        "none, autoaugment (the CIFAR-10 policy; released self KD) or randaugment "
        "(released transformers)",
        choices=("none", "autoaugment", "randaugment"),
    )
    randaugment_layers: int = option(2, "operations on an image", low=1)
    randaugment_magnitude: float = option(
        9.0, "mean strength, 0 to 10 (m9)", low=0.0, high=10.0
    )
    randaugment_std: float = option(
        0.5, "standard deviation of the strength (mstd0.5)", low=0.0
    )
    cutout_pixels: int = option(
        0, "side of one black square, pixels (released self KD: 16); 0: none", low=0
    )
    random_erasing: float = option(
        0.0,
        "probability that a rectangle becomes noise (released transformers: 0.25)",
        low=0.0,
        high=1.0,
    )
    eval_batch_size: int = option(500, "global batch in evaluation, examples", low=1)
    input: str = option(
        AUTO,
        "where training images wait: device (all of them, as uint8), stream (read "
        "again for every use), or auto (as the data set comes)",
        choices=(AUTO, "device", "stream"),
    )
    stream_memory_mib: int = option(
        2048,
        "host memory of a process for images read ahead, MiB; a decoded original a "
        "thread comes on top",
        low=1,
        operational=True,
    )
    stream_threads: int = option(
        16, "threads that read and decode", low=1, operational=True
    )


@dataclasses.dataclass(frozen=True)
class ArchConfig:
    """What an architecture's name leaves open; each family reads its own fields.

    A field that differs from its default and that the model does not have is an error.
    """

    stem: str = option(
        "cifar",
        "ResNets: cifar (3x3, no max-pool; released, at every image size) or imagenet "
        "(7x7 stride 2, max-pool)",
        choices=("cifar", "imagenet"),
    )
    param_factor: float = option(
        1.0,
        "ResNets: parameters as a multiple, channels int(64 sqrt(f)) (Tables 9, 10 as "
        "released)",
        above=0.0,
    )
    channel_multiple: float = option(
        1.0, "ResNets: channels as a multiple (the other reading of x2)", above=0.0
    )
    weight_init: str = option(
        "torch",
        "ResNets: torch (PyTorch's default; released online KD) or kaiming (normal, "
        "fan out; released self KD)",
        choices=("torch", "kaiming"),
    )
    branch: str = option(
        "separable",
        "ResNets with branches: separable (attention and separable convolutions; "
        "released self KD) or bottleneck (Be Your Own Teacher, ICCV 2019)",
        choices=("separable", "bottleneck"),
    )
    second_head: bool = option(
        False,
        "ResNets, small_cnn, mlp: a second head on the same features, which soft "
        "targets train and which evaluation mixes in (Kang et al. 2025)",
    )
    second_head_share: float = option(
        0.5,
        "second head: its share of the evaluated probabilities (1 - alpha there)",
        low=0.0,
        high=1.0,
    )
    second_head_temperature: float = option(
        0.5, "second head: softmax temperature in evaluation (beta there)", above=0.0
    )
    patch_size: int = option(
        16, "transformers: side of a patch, pixels (released: 16)", low=1
    )
    drop_path: float = option(
        0.1, "transformers: DropPath rate of the last block", low=0.0, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimiser of one network and its learning rate over time."""

    name: str = option("sgd", "optimiser, a key of spaced_kd.optim.OPTIMIZERS")
    learning_rate: float = option(
        0.01, "peak learning rate (paper 5.1: 0.01)", above=0.0
    )
    momentum: float = option(0.9, "SGD momentum (paper 5.1)", low=0.0, high=1.0)
    nesterov: bool = option(False, "Nesterov form of momentum")
    beta1: float = option(0.9, "AdamW: decay of the first moment", low=0.0, high=1.0)
    beta2: float = option(0.999, "AdamW: decay of the second moment", low=0.0, high=1.0)
    weight_decay: float = option(
        5e-4,
        "sgd: added to the gradient (coupled); adamw: decoupled (released: 0.05)",
        low=0.0,
    )
    sam_rho: float = option(
        0.0,
        "SAM (Foret et al., ICLR 2021): take the gradient this far uphill, a Euclidean "
        "distance (often 0.05), for a second pass at each update; 0: plain",
        low=0.0,
    )
    decay_on: str = option(
        "all",
        "what decays: all parameters (released ResNets), or matrices (released "
        "transformers: no 1-D tensors, no tokens, no position embeddings)",
        choices=("all", "matrices"),
    )
    schedule: str = option(
        "constant",
        "learning-rate schedule (paper 5.1: constant)",
        choices=("constant", "cosine"),
    )
    final_learning_rate: float = option(
        0.0, "where a cosine ends (released transformers: 5e-6)", low=0.0
    )
    warmup_epochs: float = option(
        0.0, "linear warm-up, epochs; the cosine counts from 0 all the same", low=0.0
    )
    warmup_learning_rate: float = option(
        0.0, "where warm-up starts (released transformers: 5e-7)", low=0.0
    )
    schedule_unit: str = option(
        "step",
        "the rate changes every step, or every epoch (released transformers)",
        choices=("step", "epoch"),
    )
    schedule_clock: str = option(
        "own",
        "whose updates the schedule counts: own, or teacher (released transformers: a "
        "replay runs at the teacher's current rate; self KD: at that of the batch the "
        "stream is at)",
        choices=("own", "teacher"),
    )


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """What a network minimises; each method reads its own fields."""

    method: str = option("kd", "distillation loss, a key of spaced_kd.methods.METHODS")
    kd_weight: float = option(
        0.3,
        "alpha: weight of the soft loss; 1 - alpha on the labels (self KD: at each "
        "branch)",
        low=0.0,
        high=1.0,
    )
    feature_weight: float = option(
        0.03, "beta: weight of the feature loss (paper 5.1)", low=0.0
    )
    temperature: float = option(
        3.0, "softmax temperature of the soft loss (paper 5.1)", above=0.0
    )
    soft_loss: str = option(
        AUTO, "soft loss, a key of spaced_kd.losses.SOFT_LOSSES, or auto"
    )
    temperature_squared: str = option(
        AUTO,
        "multiply the soft loss by temperature^2 (Hinton et al. 2015): yes or no; a "
        "loss of raw logits (l1, smooth_l1, mse, mse_sum) has no temperature: never",
        choices=(AUTO, "yes", "no"),
    )
    feature_loss: str = option(
        "dist", "feature loss, a key of spaced_kd.losses.FEATURE_LOSSES (paper Table 3)"
    )
    label_smoothing: float = option(
        0.0,
        "share of the label's target that goes to all classes alike, in every loss on "
        "labels of this network (each exit's too)",
        low=0.0,
        high=1.0,
    )
    feature_branches: str = option(
        AUTO,
        "self KD: branches whose features are held against the deepest exit's: all, or "
        "not_deepest (all but the deepest branch, as released)",
        choices=(AUTO, "all", "not_deepest"),
    )
    branch_adaptor: str = option(
        "linear",
        "self KD: what maps a branch's features before that: linear (released), or "
        "none (for transformers, whose branches align them)",
        choices=("linear", "none"),
    )
    branch_reduction: str = option(
        "sum",
        "self KD: how the branches' losses add up: sum (paper Eq. 4), or mean_times_3, "
        "which gives any number of branches the weight of a ResNet's three",
        choices=("sum", "mean_times_3"),
    )
    ofa_weight: float = option(
        1.0, "ofa: weight of the exit branches' losses beside the logits'", low=0.0
    )
    ofa_gamma: float = option(
        1.0,
        "ofa: exponent that enhances the label in the target (released: 1 for "
        "CIFAR-100, 1.5 for ImageNet)",
        above=0.0,
    )
    nd_weight: float = option(
        1.0, "nd: weight of the norm-and-direction loss of the features", low=0.0
    )
    nd_window: int = option(
        500, "nd: examples of a class that the teacher's mean of it is taken of", low=1
    )
    diswot_relation: float = option(
        1.0,
        "diswot: weight of the similarities between examples, a mean over the batch",
        low=0.0,
    )
    diswot_semantic: float = option(
        1.0,
        "diswot: weight of the similarities between classes, a mean over the classes",
        low=0.0,
    )
    sinkd_weight: float = option(
        0.8, "sinkd: weight of the Sinkhorn distance, a mean over the batch", low=0.0
    )
    sinkd_regularization: float = option(
        0.1, "sinkd: lambda, how far the transport plan is blurred", above=0.0
    )
    sinkd_iterations: int = option(20, "sinkd: scalings of rows and columns", low=1)
    taid_start: float = option(
        0.4, "taid: the teacher's share of the target at first", low=0.0, high=1.0
    )
    taid_end: float = option(
        1.0, "taid: the teacher's share of the target at last", low=0.0, high=1.0
    )
    taid_adaptive: bool = option(
        False,
        "taid: let the teacher's share run ahead of its schedule while the loss falls",
    )
    taid_rate: float = option(
        5e-4, "taid, adaptive: how fast it may run ahead", low=0.0
    )
    taid_momentum: float = option(
        0.99, "taid, adaptive: of the loss's relative change", low=0.0, high=1.0
    )
    dlb_weight: float = option(
        1.0, "dlb: weight of what the last batch's logits teach", low=0.0
    )
    dml_weight: float = option(
        1.0, "dml: weight of what either network teaches the other", low=0.0
    )
    dml_peer: str = option(
        "",
        "dml: the peer's architecture, a key of spaced_kd.models.MODELS; empty: the "
        "network's own",
    )
    shake_scale: float = option(
        3.1415,
        "shake: standard deviation that all logits of the losses are brought to, over "
        "the classes, and their mean to 0; 0: logits as they are",
        low=0.0,
    )
    shake_hard_weight: float = option(
        1.0,
        "shake: weight of the shadow head's loss on labels (1: released; 0: paper)",
        low=0.0,
    )
    ps_kd_weight: float = option(
        0.8, "ps_kd: share of the network's own predictions at last", low=0.0, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class TeacherConfig(MethodConfig):
    """The one teacher of the run, in the paper trained by plain cross-entropy."""

    method: str = option(
        "hard",
        "what it learns by: hard (labels alone), a method by which a network is its "
        "own teacher (dlb, ps_kd), or one that learns from config.tutor",
    )
    model: str = option(
        "resnet18",
        "architecture, a key of spaced_kd.models.MODELS, or none: no teacher, for "
        "self-distillation; a stage brings its own",
    )
    arch: ArchConfig = section(ArchConfig, "what the name leaves open")
    optim: OptimConfig = section(OptimConfig, "optimiser")
    stage: str = option(
        "",
        "STAGE/NETWORK: the teacher is that trained network of config.stages and stays "
        "as it is; empty: it is trained in this run",
    )
    ema_decay: float = option(
        0.0,
        "keep an exponential moving average of the teacher's weights, of this decay, "
        "for students with teacher_weights='ema'; 0: no average",
        low=0.0,
        high=1.0,
    )


@dataclasses.dataclass(frozen=True)
class TutorConfig:
    """A trained network that teaches the teacher (TAKD) and stays as it is."""

    stage: str = option("", "STAGE/NETWORK of config.stages; empty: no tutor")
    model: str = option(NO_TEACHER, "architecture; the stage brings it")
    arch: ArchConfig = section(ArchConfig, "what the name leaves open, likewise")


@dataclasses.dataclass(frozen=True)
class StudentConfig(MethodConfig):
    """One student; every student of a run shares the teacher and the batches."""

    model: str = option("resnet18", "architecture, a key of spaced_kd.models.MODELS")
    arch: ArchConfig = section(ArchConfig, "what the name leaves open")
    optim: OptimConfig = section(OptimConfig, "optimiser")
    plan: str = option(
        "online", "who trains when (spaced_kd.schedule.SCHEDULES)", choices=PLANS
    )
    space_interval_epochs: float = option(
        1.5,
        "space interval in epochs (the paper's s, the released interval_rate); for the "
        "plans spaced, critical_period, constant_ahead and lagged; left open: 1.5, for "
        "self KD 4.0 (paper, Tables 1 and 2)",
        low=0.0,
        by_method={"self_kd": 4.0},
    )
    epochs_factor: float = option(
        1.0,
        "how long a student learns that follows no training teacher (labels alone, its "
        "own teacher, a trained one), in config.num_epochs",
        above=0.0,
    )
    remainder: str = option(
        AUTO,
        "batches left at the end when the interval does not divide the run: drop "
        "(never replayed) or flush (one short last replay)",
        choices=(AUTO, "drop", "flush"),
    )
    replay: str = option(
        AUTO,
        "what a replay shows: exact (same pixels, same order), reaugment (same images "
        "and order, new augmentation), reshuffle (fresh order and augmentation)",
        choices=(AUTO, "exact", "reaugment", "reshuffle"),
    )
    replay_fraction: float = option(
        1.0,
        "control: share of the buffered batches that a replay shows, the last ones, "
        "rounded to whole batches; 1: all",
        above=0.0,
        high=1.0,
    )
    teacher_bn: str = option(
        AUTO,
        "BatchNorm statistics of the frozen teacher: batch (of the replayed batch) or "
        "running (its own averages)",
        choices=(AUTO, "batch", "running"),
    )
    teacher_drop_path: str = option(
        "on",
        "DropPath of the frozen transformer teacher: on (as released; its targets are "
        "noisy) or off; with teacher_bn='running', which is eval mode, it is off",
        choices=("on", "off"),
    )
    teacher_weights: str = option(
        "live",
        "control: whose outputs the student sees, those of the teacher as it trains "
        "(live), or of the moving average of its weights (ema)",
        choices=("live", "ema"),
    )
    online_teacher: str = option(
        AUTO,
        "which teacher a lockstep student sees: before or after the teacher's update "
        "on that batch",
        choices=(AUTO, "before", "after"),
    )
    init: str = option(
        AUTO,
        "initial weights: different from the teacher's, or the same",
        choices=(AUTO, "different", "same"),
    )
    window_start_epochs: float = option(
        0.0, "plan critical_period: spacing starts here, epochs", low=0.0
    )
    window_stop_epochs: float = option(
        0.0, "plan critical_period: spacing stops here, epochs; 0: at the end", low=0.0
    )
    outside: str = option(
        "online",
        "plan critical_period: what the student does outside the window",
        choices=("online", "hard_only"),
    )
    ahead: str = option(
        "delayed",
        "plan constant_ahead: delayed (the student sees the teacher's batches, late) "
        "or late_start (it sees the current batch, but starts late)",
        choices=("delayed", "late_start"),
    )
    trigger: str = option(
        AUTO,
        "self KD, spaced: interval (paper Alg. 4: a replay after each), or released "
        "(the first after one epoch; the batch that triggers a replay gets no step on "
        "the labels before it)",
        choices=(AUTO, "interval", "released"),
    )
    shuffle_teacher: bool = option(
        False,
        "control: show the teacher's outputs for a random permutation of the batch, a "
        "new one at each update",
    )
    quote: str = option(
        AUTO,
        "whose accuracy is reported and kept as best: of the deepest exit, or of the "
        "ensemble, the mean of all exits' logits (released self KD)",
        choices=(AUTO, "deepest", "ensemble"),
    )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When the whole state is written to disk."""

    every_seconds: float = option(
        120.0,
        "least time between two checkpoints, seconds (more where saving takes long); "
        "0: at every tick",
        low=0.0,
    )
    keep: int = option(2, "newest verified checkpoints that are kept", low=2)
    snapshot_every: int = option(
        0,
        "keep each network's weights, and its teacher's, at every n-th of its "
        "evaluations and at the last, for analyses along training; 0: none",
        low=0,
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run: one teacher, its students, `num_seeds` times."""

    compat: str = option(
        "recommended",
        "where paper and released code differ, whom to follow; sets every 'auto' field",
        choices=("recommended", "paper", "released"),
    )
    seed: int = option(0, "seed of the first repetition; the k-th uses seed + k", low=0)
    num_seeds: int = option(3, "paired repetitions", low=1)
    seed_layout: str = option(
        AUTO,
        "how repetitions share the machine: sequential, unrolled (one program), "
        "devices (one per device), or auto (docs/performance.md)",
        choices=(AUTO, "sequential", "unrolled", "devices"),
    )
    num_epochs: int = option(
        80, "epochs of the teacher (paper 5.1: 80 for ResNets)", low=1
    )
    num_devices: int = option(
        0, "devices that share each batch; 0: all, of all processes", low=0
    )
    chunk_steps: int = option(
        32, "training steps composed into one compiled call", low=1
    )
    compose: str = option(
        "scan",
        "how a chunk is composed: scan (lax.scan), or loop (one call a step, to debug)",
        choices=("scan", "loop"),
    )
    compute_dtype: str = option(
        "float32",
        "arithmetic of the networks; parameters, BatchNorm statistics and losses stay "
        "float32",
        choices=("float32", "bfloat16"),
    )
    remat: bool = option(
        False, "compute activations again in the backward pass, to save memory"
    )
    micro_batches: int = option(
        1,
        "parts in which a batch passes the network, to save memory; BatchNorm then "
        "uses each part's statistics",
        low=1,
    )
    eval_every_epochs: int = option(
        1, "each network is evaluated after so many epochs of its own updates", low=1
    )
    data: DataConfig = section(DataConfig, "data set and augmentation")
    teacher: TeacherConfig = section(TeacherConfig, "the teacher")
    tutor: TutorConfig = section(TutorConfig, "the teacher's own teacher, if any")
    student: StudentConfig = section(StudentConfig, "what students inherit")
    students: dict[str, StudentConfig] = named("the students, by name")
    stages: dict[str, "Config"] = named(
        "runs that train teachers for this one, by name"
    )
    checkpoint: CheckpointConfig = section(
        CheckpointConfig, "saving and resuming", operational=True
    )
    reference: str = option(
        DEFAULT_REFERENCE,
        "students that paired differences are taken to, of those the run has, "
        "separated by commas; empty: none",
        operational=True,
    )
    stages_dir: str = option(
        "",
        "where stages are kept, to be shared between runs; empty: in the workdir",
        operational=True,
    )
    progress: str = option(
        AUTO,
        "progress display: bar, plain (lines), none, or auto (bar on a terminal)",
        choices=(AUTO, "bar", "plain", "none"),
        operational=True,
    )


COMPAT: dict[str, dict[str, str]] = {
    # docs/deviations.md gives the source of every cell.
    "recommended": {
        "soft_loss": "kl",
        "temperature_squared": "yes",
        "teacher_bn": "batch",
        "online_teacher": "before",
        "init": "different",
        "remainder": "drop",
        "replay": "exact",
        "trigger": "interval",
        "feature_branches": "not_deepest",
        "quote": "deepest",
    },
    "paper": {
        "soft_loss": "kl",
        "temperature_squared": "no",
        "teacher_bn": "running",
        "online_teacher": "after",
        "init": "same",
        "remainder": "flush",
        "replay": "exact",
        "trigger": "interval",
        "feature_branches": "all",
        "quote": "deepest",
    },
    "released": {
        "soft_loss": "probspace",
        "temperature_squared": "no",
        "teacher_bn": "batch",
        "online_teacher": "before",
        "init": "different",
        "remainder": "drop",
        "replay": "exact",
        "trigger": "released",
        "feature_branches": "not_deepest",
        "quote": "deepest",
    },
}

METHOD_CHOICES: dict[str, dict[str, dict[str, str]]] = {
    # A network that learns from labels alone has no teacher to start like.
    "hard": {compat: {"init": "different"} for compat in COMPAT},
    # Self KD: the released loss is correct there, so it is the recommended one; no
    # teacher to share initial weights with.
    "self_kd": {
        compat: {
            "soft_loss": "kl" if compat == "paper" else "soft_cross_entropy",
            "temperature_squared": "no",
            "init": "different",
            "quote": "ensemble",
        }
        for compat in COMPAT
    },
    # As their authors train them; nobody of theirs to start like.
    "dlb": {
        compat: {"soft_loss": "kl", "temperature_squared": "yes", "init": "different"}
        for compat in COMPAT
    },
    "ps_kd": {compat: {"init": "different"} for compat in COMPAT},
    "dml": {
        compat: {"soft_loss": "kl", "temperature_squared": "yes", "init": "different"}
        for compat in COMPAT
    },
    "shake": {
        compat: {"soft_loss": "kl", "temperature_squared": "yes", "init": "different"}
        for compat in COMPAT
    },
}

FIXED_TEACHER_CHOICES = {"teacher_bn": "running", "init": "different"}
"""Of students whose teacher comes trained: in eval mode, as in every offline KD; what
it began with is not known here, and a born-again network begins with other weights."""

PLAN_CHOICES: dict[str, dict[str, str]] = {
    # Offline KD ("max" in the paper's Table 6) is a program of its own in the released
    # code: a converged teacher in eval mode and freshly drawn batches.
    "offline": {
        "teacher_bn": "running",
        "replay": "reshuffle",
        "remainder": "flush",
        "trigger": "interval",
    },
    # The window's last short round is replayed, so that step counts match.
    "critical_period": {"remainder": "flush"},
    # No teacher, hence the plain loss; from its weights it would be the teacher again.
    "none": {"method": "hard", "init": "different", "quote": "deepest"},
}


def auto_choices(compat: str, student: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a network's fields become that are left open.

    Args:
      compat: a key of COMPAT; another one, of a later version, chooses nothing.
      student: its fields, of which method and plan matter; the teacher has no plan.
    """
    return COMPAT.get(compat, {}) | special_choices(compat, student)


def special_choices(compat: str, student: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `auto_choices` that come from the method and the plan."""
    by_method = METHOD_CHOICES.get(student["method"], {}).get(compat, {})
    return (
        _method_defaults(student["method"])
        | by_method
        | PLAN_CHOICES.get(student.get("plan", ""), {})
    )


_REMEDY = "start from base_config()"


def base_config() -> ml_collections.ConfigDict:
    """Return every field at its default, ready for overrides; `students` is empty."""
    return to_config_dict(Config, is_open=_has_method_defaults)


def student(**overrides: Any) -> ml_collections.ConfigDict:
    """Return a student whose fields inherit from `config.student` unless given here.

    Example: `config.students.spaced_1_5 = student(plan="spaced")`.

    Raises:
      ConfigError: a field that students do not have.
    """
    fields = to_config_dict(StudentConfig, is_open=lambda _: True)
    for name in overrides:
        registry.lookup(dict.fromkeys(fields), name, "student field")
    fields.update(overrides)
    return fields


def from_config_dict(config: ml_collections.ConfigDict) -> Config:
    """Resolve what was left open and validate everything.

    Raises:
      ConfigError: the first field that is missing, unknown, of the wrong type, out of
        range or not among the choices; the message names it by its dotted path.
    """
    raw = config.to_dict()
    resolved = _resolve(raw, (), {}, {})
    unused = sorted(set(raw.get("stages") or {}) - _stage_names(resolved))
    if unused:
        raise ConfigError(
            f"config.stages.{unused[0]} trains a network that nobody learns from; name "
            f"it in config.teacher.stage='{unused[0]}/NETWORK' or config.tutor.stage, "
            "or leave it out."
        )
    return resolved


def _stage_names(config: Config) -> set[str]:
    names = set(config.stages)
    return names.union(*map(_stage_names, config.stages.values()))


def _resolve(
    raw: dict,
    chain: tuple[str, ...],
    outer: Mapping[str, Any],
    stages: Mapping[str, dict],
) -> Config:
    """Return the config of a run, or of a stage that trains a teacher for one.

    Args:
      raw: all fields.
      chain: names of the stages from the run down to this one; () for the run.
      outer: what a stage has in common with its run, by dotted path.
      stages: fields of every stage that this one may learn from, besides its own.
    """
    raw = _with(raw, outer)
    at = f"config.stages.{chain[-1]}" if chain else "config"
    students = raw.pop("students", None) or {}
    stages = {**stages, **(raw.pop("stages", None) or {})}
    if not students:
        raise ConfigError(
            f"{at}.students is empty; add at least one, e.g. "
            f"{at}.students.spaced_1_5 = student(plan='spaced')."
        )
    defaults = raw.get("student") or {}
    resolved = parse(Config, raw | {"student": _fill(defaults)}, at, _REMEDY)
    shared = {path: _at(raw, path) for path in SHARED_WITH_STAGES}
    resolved = _of_stages(resolved, chain, shared, stages)
    fixed = bool(resolved.teacher.stage)
    parsed = {}
    for name, fields in students.items():
        path = f"{at}.students.{name}"
        _refuse_odd_name(name, path, "student")
        if name in ("teacher", "tutor"):
            raise ConfigError(f"{path}: '{name}' is the {name}'s name; choose another.")
        merged = _fill(_inherit(fields, defaults))
        parsed[name] = _resolve_auto(
            parse(StudentConfig, merged, path, _REMEDY), resolved.compat, fixed
        )
    wanted = reference_names(resolved.reference)
    if wanted and wanted != (DEFAULT_REFERENCE,) and not set(wanted) & set(parsed):
        registry.lookup(parsed, wanted[0], f"{at}.reference")
    return dataclasses.replace(
        resolved,
        teacher=_resolve_auto(resolved.teacher, resolved.compat),
        student=_resolve_auto(resolved.student, resolved.compat, fixed),
        students=dict(sorted(parsed.items(), key=_table_order)),
    )


SHARED_WITH_STAGES = (
    "seed",
    "num_seeds",
    "num_devices",
    "compute_dtype",
    "remat",
    "checkpoint",
    "progress",
    "data.dir",
    "data.stream_memory_mib",
    "data.stream_threads",
)
"""What a stage takes from the run it trains a teacher for: repetition k of the run
learns from repetition k of the stage, on the same machine in the same way."""


def _at(raw: Any, path: str) -> Any:
    for name in path.split("."):
        raw = raw[name]
    return raw


def _with(raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(raw)
    for path, value in values.items():
        name, _, below = path.partition(".")
        # A field that is missing is told of where all fields are looked at.
        below_it = result.get(name) or {}
        result[name] = _with(below_it, {below: value}) if below else value
    return result


def _refuse_odd_name(name: str, path: str, what: str) -> None:
    if not name.isidentifier() or len(name) > 48:
        raise ConfigError(
            f"{path}: a {what}'s name must be letters, digits and '_', at most 48, "
            "because files carry it."
        )


def _of_stages(
    config: Config,
    chain: tuple[str, ...],
    shared: Mapping[str, Any],
    stages: Mapping[str, dict],
) -> Config:
    """Return the config with its trained networks, and the stages that these need.

    Args:
      config: all but that.
      chain: as for `_resolve`.
      shared: what they have in common with this run, by dotted path.
      stages: fields of every stage that there is.
    """
    used: dict[str, Config] = {}
    networks: dict[str, Any] = {}
    for role in ("teacher", "tutor"):
        settings = getattr(config, role)
        if not settings.stage:
            if role == "tutor" and settings.model != NO_TEACHER:
                raise ConfigError(
                    f"config.tutor.model='{settings.model}' without a stage to "
                    "train it; name one in config.tutor.stage, which brings the model."
                )
            continue
        if role == "teacher" and settings.model == NO_TEACHER:
            raise ConfigError(
                f"config.teacher.stage='{settings.stage}' brings a teacher, but "
                "config.teacher.model='none'; leave one of them out."
            )
        field = f"config.{role}.stage='{settings.stage}'"
        if chain:
            field = f"config.stages.{chain[-1]}.{role}.stage='{settings.stage}'"
        name, _, network = settings.stage.partition("/")
        fields = registry.lookup(stages, name, f"{field}: stage")
        _refuse_odd_name(name, f"config.stages.{name}", "stage")
        if name in chain:
            circle = " -> ".join((*chain[chain.index(name) :], name))
            raise ConfigError(
                f"{field} closes a circle of stages, each of which needs the next "
                f"one first: {circle}; let one of them do without."
            )
        stage = _resolve(fields, (*chain, name), shared, stages)
        trained: dict[str, Any] = dict(stage.students)
        if stage.teacher.model != NO_TEACHER:
            trained["teacher"] = stage.teacher
        what = f"{field} (give STAGE/NETWORK): network of stage '{name}'"
        source = registry.lookup(trained, network, what)
        used[name] = stage
        networks[role] = dataclasses.replace(
            settings, model=source.model, arch=source.arch
        )
    return dataclasses.replace(config, stages=used, **networks)


def reference_names(field: str) -> tuple[str, ...]:
    """Return the students that `config.reference` names."""
    names = (name.strip() for name in field.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def generation(config: Config) -> int:
    """Return how many stages, one before the other, come before a run."""
    return max((1 + generation(stage) for stage in config.stages.values()), default=0)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the resolved config as plain JSON-able values."""
    return dataclasses.asdict(config)


def science(config: Config) -> dict[str, Any]:
    """Return the flat fields that decide the numbers: dotted path -> value.

    Left out are operational fields (paths, progress, checkpoint cadence), which may
    change between a run and its continuation.
    """
    return dict(_science_fields(config, ""))


def fingerprint(config: Config) -> str:
    """Return the SHA-256 of `science(config)`."""
    text = json.dumps(science(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def space_interval_steps(student: StudentConfig, steps_per_epoch: int) -> int:
    """Return I = floor(steps_per_epoch * s), the released rounding (method A.2)."""
    # The product of, say, 10 * 0.7 is 6.999...: round away float noise first.
    return math.floor(round(steps_per_epoch * student.space_interval_epochs, 6))


def _table_order(entry: tuple[str, StudentConfig]):
    # ConfigDict does not keep the order in which students were written.
    name, student = entry
    return PLANS.index(student.plan), student.space_interval_epochs, name


def _inherit(fields: dict, defaults: dict) -> dict:
    merged = dict(fields)
    for name, default in defaults.items():
        if isinstance(default, dict):
            merged[name] = _inherit(fields.get(name) or {}, default)
        elif merged.get(name) is None:
            merged[name] = default
    return merged


def _has_method_defaults(field: dataclasses.Field) -> bool:
    return "by_method" in field.metadata


def _method_defaults(method: str) -> dict[str, Any]:
    return {
        field.name: field.metadata["by_method"].get(method, field.default)
        for field in dataclasses.fields(StudentConfig)
        if _has_method_defaults(field)
    }


def _fill(fields: dict) -> dict:
    """Give the fields that are still open the default of the student's method."""
    defaults = _method_defaults(str(fields.get("method")))
    return {
        name: defaults.get(name) if value is None else value
        for name, value in fields.items()
    }


def _resolve_auto(network: Any, compat: str, fixed_teacher: bool = False) -> Any:
    """Return a teacher's or student's config without open fields."""
    choices = auto_choices(compat, vars(network))
    if fixed_teacher:
        choices |= FIXED_TEACHER_CHOICES
    open_names = [n for n in choices if getattr(network, n, None) == AUTO]
    if vars(network).get("plan") == "none":
        # Whatever the run's other students inherit.
        open_names += ["method", "quote"]
    return dataclasses.replace(network, **{n: choices[n] for n in open_names})


def _science_fields(node, prefix: str):
    for field in dataclasses.fields(node):
        if field.metadata.get("operational"):
            continue
        value = getattr(node, field.name)
        path = f"{prefix}{field.name}"
        if isinstance(value, dict):
            for name, entry in sorted(value.items()):
                yield from _science_fields(entry, f"{path}.{name}.")
        elif dataclasses.is_dataclass(value):
            # What students inherit is already inside each student.
            if field.name != "student":
                yield from _science_fields(value, f"{path}.")
        else:
            yield path, value
