r"""Table 4, shadow distillation: ResNet-34 teaches ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table4_shake.py \
        --workdir=runs/table4_shake

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 1.0 hours for 3 seeds.
Expected accuracy (paper, Table 4): without 69.02, shadow distillation 72.02, with
spacing 72.64. These are the level of a ResNet-20 (method D.4): `:small` is ResNet-56
and ResNet-20.
The teacher is trained by a run of its own (docs/chains.md) and stays as it is. Spaced,
the shadow head and the student take turns; interleaved they do so batch by batch.

Variants: `:released`, `:paper` (whom to follow; nothing is released for this table),
`:smoke`, `:small`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "recommended"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    small = variant == "small"
    config.student.model = "resnet20" if small else "resnet18"
    config.student.method = "shake"
    config.student.temperature = 4.0
    config.stages = {
        "teacher": recipes.stage(config, "resnet56" if small else "resnet34")
    }
    config.teacher.stage = "teacher/alone"
    config.students = {
        "baseline": student(plan="none"),
        "shake": student(plan="online"),
        "interleaved": student(plan="interleaved"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    config.reference = "shake,interleaved"
    recipes.follow(config, "recommended" if small else variant)
    return config
