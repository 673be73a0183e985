r"""Table 4, deep mutual learning: two ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table4_dml.py \
        --workdir=runs/table4_dml

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 0.8 hours for 3 seeds.
Expected accuracy (paper, Table 4; which peer is not said): without 68.92, mutual
learning 70.31, with spacing 71.80. 68.92 is near a ResNet-32's (method D.4), which is
`:small`.
The peer is `exit1` in the table of exits, the network quoted `exit2`. Spaced, both make
their updates of a batch apart, and so do the two of `interleaved`, at once: the control
for the turns without the space.

Variants: `:released`, `:paper` (whom to follow; nothing is released for this table),
`:smoke`, `:small`.
"""

from spaced_kd import recipes
from spaced_kd.config import NO_TEACHER, base_config, student


def get_config(variant: str = "recommended"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    small = variant == "small"
    config.teacher.model = NO_TEACHER
    config.student.model = "resnet32" if small else "resnet18"
    config.student.method = "dml"
    config.student.temperature = 1.0
    config.students = {
        "baseline": student(plan="none"),
        "dml": student(plan="online"),
        "interleaved": student(plan="interleaved"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    config.reference = "dml,interleaved"
    recipes.follow(config, "recommended" if small else variant)
    return config
