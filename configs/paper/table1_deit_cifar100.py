r"""Table 1, DeiT-Tiny on CIFAR-100: online KD with and without spacing.

    python -m spaced_kd.main --config=configs/paper/table1_deit_cifar100.py \
        --workdir=runs/table1_deit_cifar100

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 3.4 hours for 3 seeds.
Expected accuracy (paper, Table 1; best epoch on the test set, mean of 3, no s.d.
given): baseline 64.77, online 65.67, spaced 67.30.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "cifar100")
    config.teacher.model = "deit_tiny"
    config.student.model = "deit_tiny_distilled"
    config.students = {
        "baseline": student(plan="none", model="deit_tiny"),
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    recipes.follow(config, variant)
    return config
