"""What a config can ask for and no run can do, found before anything is trained.

Each function raises a ConfigError of one line: what, the value, what to do.
"""

from spaced_kd import registry
from spaced_kd.config import (
    FEEDBACK_INTERVALS,
    LEADING,
    NO_TEACHER,
    TWO_WAY,
    WITH_BRANCHES,
    WITH_PEER,
    WITH_TRAINED_TEACHER,
    WITH_TWO_HEADS,
    WITHOUT_TEACHER,
    Config,
    StudentConfig,
    TeacherConfig,
)
from spaced_kd.errors import ConfigError
from spaced_kd.methods import METHODS
from spaced_kd.methods.base import Method
from spaced_kd.models import MODELS
from spaced_kd.parallel import SeedGroup
from spaced_kd.state import BRANCHES, SOFT_HEAD
from spaced_kd.types import ENSEMBLE, Dataset, ModelOutput, Split


def networks_named(config: Config) -> None:
    """Refuse a method whose teacher is not there, or not the one that it needs."""
    if config.teacher.model != NO_TEACHER:
        _teacher(config)
    elif config.tutor.stage:
        raise ConfigError(
            f"config.tutor.stage='{config.tutor.stage}' would teach the run's teacher, "
            "but config.teacher.model='none'; name a model there, or leave the tutor's "
            "stage empty."
        )
    for name, student in config.students.items():
        field = f"config.students.{name}.method"
        registry.lookup(METHODS, student.method, field)
        field = f"{field}='{student.method}'"
        if student.method in WITH_TRAINED_TEACHER and not config.teacher.stage:
            raise ConfigError(
                f"{field} needs a trained teacher that stays as it is; train it in a "
                "stage and name it in config.teacher.stage."
            )
        if config.teacher.model != NO_TEACHER:
            if student.method in WITH_PEER:
                raise ConfigError(
                    f"{field} owns both of its networks and can share no teacher; set "
                    "config.teacher.model='none', and give other students a run of "
                    "their own."
                )
        elif student.method not in WITHOUT_TEACHER:
            raise ConfigError(
                f"{field} needs a teacher, but config.teacher.model='none'; name a "
                "model there, or set method='self_kd' or plan='none'."
            )


def feedback(config: Config, dataset: Dataset) -> None:
    """Refuse intervals that follow what is measured where that cannot be decided."""
    for name, student in config.students.items():
        if student.plan == "spaced" and student.interval_schedule in FEEDBACK_INTERVALS:
            field = f"config.students.{name}"
            _feedback_of_one(config, student, field)
            streamed = not isinstance(dataset.train, Split)
            if student.interval_schedule == "gap" and streamed:
                raise ConfigError(
                    f"{field}.interval_schedule='gap' measures on training images in "
                    f"memory, but those of {dataset.name} come as files; take "
                    "'plateau', or a schedule without feedback."
                )


def _feedback_of_one(config: Config, student: StudentConfig, field: str) -> None:
    what = f"{field}.interval_schedule='{student.interval_schedule}'"
    if config.num_seeds != 1:
        raise ConfigError(
            f"{what} decides by what a repetition measures, and the config.num_seeds="
            f"{config.num_seeds} of a run share one plan; set num_seeds=1, and run the "
            "seeds as separate runs (--config.seed=...)."
        )
    if student.method in (*LEADING, *WITHOUT_TEACHER):
        raise ConfigError(
            f"{what} is about how far the run's teacher is ahead, and method="
            f"'{student.method}' does not follow it; take a schedule without feedback."
        )
    if config.teacher.stage:
        raise ConfigError(
            f"{what} waits for a teacher that trains, but config.teacher.stage brings "
            "a trained one; take plan='online'."
        )
    if student.remainder != "flush":
        raise ConfigError(
            f"{what} needs as many updates whatever is decided, because learning rates "
            f"depend on their number; set {field}.remainder='flush', not "
            f"'{student.remainder}'."
        )
    if student.replay_fraction != 1.0:
        raise ConfigError(
            f"{what} needs as many updates whatever is decided, and {field}."
            f"replay_fraction={student.replay_fraction:g} rounds in every replay; "
            "set it to 1."
        )


def _teacher(config: Config) -> None:
    teacher, tutor = config.teacher, config.tutor.stage
    registry.lookup(METHODS, teacher.method, "config.teacher.method")
    field = f"config.teacher.method='{teacher.method}'"
    if teacher.stage:
        if teacher.method != "hard" or tutor:
            raise ConfigError(
                f"config.teacher.stage='{teacher.stage}' brings a trained teacher that "
                "learns no more; leave config.teacher.method at 'hard' and "
                "config.tutor.stage empty."
            )
        for name, student in config.students.items():
            if student.plan in ("constant_ahead", "lagged"):
                raise ConfigError(
                    f"config.students.{name}.plan='{student.plan}' needs a teacher "
                    "that trains, but config.teacher.stage brings a trained one; take "
                    "plan='online'."
                )
        return
    if teacher.method in (*WITH_BRANCHES, *TWO_WAY, *WITH_TWO_HEADS):
        raise ConfigError(
            f"{field} is for students; give the teacher 'hard', 'dlb', 'ps_kd', or a "
            "method that learns from config.tutor."
        )
    if bool(tutor) == (teacher.method in WITHOUT_TEACHER):
        needed = "learns from no tutor; leave config.tutor.stage empty, or set 'kd'"
        if not tutor:
            needed = "needs a trained network to learn from; name it in config.tutor"
            needed += ".stage, or set method='hard'"
        raise ConfigError(f"{field} {needed}.")


def training(config: Config) -> None:
    """Refuse initial weights, averages and clocks that nothing stands behind."""
    for name, student in config.students.items():
        _init(name, student, config.teacher)
    _average(config)
    if config.teacher.optim.schedule_clock != "own":
        raise ConfigError(
            "config.teacher.optim.schedule_clock='teacher' says nothing; set 'own'."
        )
    for name, student in config.students.items():
        stands = "in plan 'offline', where the teacher has stopped"
        if config.teacher.stage:
            stands = "where config.teacher.stage brings a trained teacher"
        elif student.plan != "offline":
            continue
        if student.optim.schedule_clock == "teacher":
            raise ConfigError(
                f"config.students.{name}.optim.schedule_clock='teacher' stands still "
                f"{stands}; set 'own'."
            )


def _average(config: Config) -> None:
    field = f"config.teacher.ema_decay={config.teacher.ema_decay:g}"
    averaged = [
        name
        for name, student in config.students.items()
        if student.teacher_weights == "ema" and student.plan != "none"
    ]
    if averaged and not config.teacher.ema_decay:
        raise ConfigError(
            f"config.students.{averaged[0]}.teacher_weights='ema' needs the average of "
            f"a teacher that trains, but {field} keeps none; give e.g. 0.999, or set "
            "'live'."
        )
    if config.teacher.ema_decay and not averaged:
        raise ConfigError(
            f"{field} keeps an average that no student sees; give some students "
            "teacher_weights='ema', or set it to 0."
        )
    if config.teacher.ema_decay and config.teacher.stage:
        raise ConfigError(
            f"{field} averages a teacher that trains, but config.teacher.stage brings "
            "a trained one; set it to 0, and teacher_weights to 'live'."
        )


def _init(name: str, student: StudentConfig, teacher: TeacherConfig) -> None:
    if student.init == "same" and teacher.stage:
        raise ConfigError(
            f"config.students.{name}.init='same' asks for the weights that the teacher "
            "began with, but config.teacher.stage brings it trained; set "
            "init='different'."
        )
    if student.init == "same" and teacher.model == NO_TEACHER:
        raise ConfigError(
            f"config.students.{name}.init='same' asks for the teacher's weights, "
            "but config.teacher.model='none'; set init='different'."
        )
    alike = (student.model, student.arch) == (teacher.model, teacher.arch)
    if student.init == "same" and not alike:
        raise ConfigError(
            f"config.students.{name}.init='same' needs the teacher's architecture, "
            f"but model='{student.model}' and the teacher's '{teacher.model}', or "
            "their fields of arch, differ; set init='different'."
        )


def micro_batches(config: Config, groups: tuple[SeedGroup, ...]) -> None:
    """Refuse parts that a device's share of the batch does not divide into."""
    for group in groups:
        share = config.data.batch_size // len(group.devices)
        if share % config.micro_batches:
            raise ConfigError(
                f"config.micro_batches={config.micro_batches} does not divide the "
                f"{share} examples of a batch that a device sees; give a divisor."
            )


def teacher_outputs(config: TeacherConfig, outputs: ModelOutput) -> None:
    """Refuse a teacher of two heads, of which students would see one or both.

    Which, would depend on whether its forward pass is in train or in eval mode.
    """
    if outputs.soft_logits is not None:
        raise ConfigError(
            f"config.teacher.model='{config.model}' has a head that only soft targets "
            "train, and a teacher that trains shows students one answer; choose the "
            "model without it, or set config.teacher.arch.second_head=False."
        )


def one_of_two_outputs(name: str, config: StudentConfig, outputs: ModelOutput) -> None:
    """Refuse a network of a pair with exits or heads that nothing would train."""
    for field, what in (
        ("branch_logits", "several exits"),
        ("soft_logits", "two heads"),
    ):
        if getattr(outputs, field) is not None:
            models = " and ".join(sorted({config.model, config.dml_peer} - {""}))
            raise ConfigError(
                f"config.students.{name}.method='{config.method}' trains two networks "
                f"of one exit and one head each, but one of {models} has {what}; "
                "choose the model without."
            )


def student_outputs(
    name: str, config: StudentConfig, method: Method, outputs: ModelOutput
) -> None:
    """Refuse a network that the method, or what is quoted of it, does not fit."""
    field = f"config.students.{name}"
    _refuse_soft_head(config, method, outputs, field)
    _refuse_one_head(config, method, outputs, field)
    _refuse_branches_amiss(config, method, outputs, field)
    # The baseline inherits the fields from `config.student` and may ignore them.
    if method.needs_teacher or config.plan == "none":
        return
    for control, off in (("shuffle_teacher", False), ("teacher_weights", "live")):
        value = getattr(config, control)
        if value != off:
            raise ConfigError(
                f"{field}.{control}={value!r} would do nothing, because method="
                f"'{config.method}' sees no teacher's outputs; set it to {off!r}."
            )


def _refuse_soft_head(
    config: StudentConfig, method: Method, outputs: ModelOutput, field: str
) -> None:
    if outputs.soft_logits is not None and SOFT_HEAD not in method.trains:
        raise ConfigError(
            f"{field}.model='{config.model}' has a head that only soft targets train, "
            "and this network has no teacher; choose the model without it, or set "
            f"{field}.arch.second_head=False."
        )


def _refuse_one_head(
    config: StudentConfig, method: Method, outputs: ModelOutput, field: str
) -> None:
    if method.needs_soft_head and outputs.soft_logits is None:
        raise ConfigError(
            f"{field}.method='{config.method}' needs a network with two heads, but "
            f"model='{config.model}' has one; set {field}.arch.second_head=True "
            "(ResNets, small_cnn, mlp), or take 'deit_tiny_distilled'."
        )


def _refuse_branches_amiss(
    config: StudentConfig, method: Method, outputs: ModelOutput, field: str
) -> None:
    trains = BRANCHES in method.trains
    if trains and outputs.branch_logits is None:
        raise ConfigError(
            f"{field}.method='{config.method}' needs a network with several exits, but "
            f"model='{config.model}' has one; take '{_with_branches(config.model)}'."
        )
    if config.quote == ENSEMBLE and not trains:
        raise ConfigError(
            f"{field}.quote='ensemble' quotes branches that method='{config.method}' "
            "does not train; set quote='deepest', or method='self_kd'."
        )


def _with_branches(model: str) -> str:
    known = [name for name in MODELS if name.endswith("_branches")]
    own = f"{model}_branches"
    return own if own in known else "' or '".join(known)
