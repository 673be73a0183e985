"""Fields of a whole run, which holds all the other groups."""

import dataclasses

from spaced_kd.config.data import DataConfig
from spaced_kd.config.names import AUTO, DEFAULT_REFERENCE
from spaced_kd.config.roles import StudentConfig, TeacherConfig, TutorConfig
from spaced_kd.fields import named, option, section


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
    imports: str = option(
        "",
        "modules of your own, separated by commas, which register models, data sets, "
        "methods or analyses (spaced_kd.register); imported before names are looked "
        "up, in every process that opens the run",
        operational=True,
    )
    report: bool = option(
        True,
        "draw figures and report.html at the end; the numbers are there without",
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


def reference_names(field: str) -> tuple[str, ...]:
    """Return the students that `config.reference` names."""
    names = (name.strip() for name in field.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def generation(config: Config) -> int:
    """Return how many stages, one before the other, come before a run."""
    return max((1 + generation(stage) for stage in config.stages.values()), default=0)
