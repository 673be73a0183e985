"""Fields of a teacher, its tutor and a student: loss, network, and when it learns."""

import dataclasses
import math

from spaced_kd.config.method import MethodConfig
from spaced_kd.config.names import AUTO, INTERVALS, NO_TEACHER, PLANS
from spaced_kd.config.network import ArchConfig, OptimConfig
from spaced_kd.fields import option, section


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
    interval_schedule: str = option(
        "constant",
        "plan spaced: how the interval changes along training (docs/adaptive.md); "
        "space_interval_epochs is the first one",
        choices=INTERVALS,
    )
    final_interval_epochs: float = option(
        0.0,
        "where the interval ends (linear), the longest one (expanding, gap, plateau), "
        "the other end of its range (random), epochs; for interval_schedule other than "
        "constant",
        low=0.0,
    )
    interval_growth: float = option(
        1.5,
        "interval_schedule expanding: each interval is so many times the one before; "
        "plateau: the next one, where the loss did not fall",
        above=1.0,
    )
    interval_seed: int = option(
        0, "interval_schedule random: seed of the intervals, of all repetitions", low=0
    )
    gap_growth: float = option(
        1.5,
        "interval_schedule gap: replay when KL(teacher || student) is so many times "
        "what it was after the last replay",
        above=1.0,
    )
    gap_images: int = option(
        512,
        "interval_schedule gap: training images that it is measured on, as many of "
        "each class, not augmented; at most all",
        low=1,
    )
    plateau_tolerance: float = option(
        0.01,
        "interval_schedule plateau: the interval grows unless a replay's mean loss is "
        "lower by this share than that of the replay before",
        low=0.0,
        high=1.0,
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


def space_interval_steps(student: StudentConfig, steps_per_epoch: int) -> int:
    """Return I = floor(steps_per_epoch * s), the released rounding (method A.2)."""
    return whole_steps(student.space_interval_epochs, steps_per_epoch)


def whole_steps(epochs: float, steps_per_epoch: int) -> int:
    """Return the whole steps of so many epochs, rounded down."""
    # The product of, say, 10 * 0.7 is 6.999...: round away float noise first.
    return math.floor(round(steps_per_epoch * epochs, 6))
