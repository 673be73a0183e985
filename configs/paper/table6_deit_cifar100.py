r"""Table 6, DeiT-Tiny on CIFAR-100: the interval sweep.

    python -m spaced_kd.main --config=configs/paper/table6_deit_cifar100.py \
        --workdir=runs/table6_deit_cifar100

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 7.6 hours for 3 seeds of a teacher and
7 students.
Expected accuracy (paper, Table 6; best epoch on the test set, mean of 3, no s.d.
given): baseline 64.77, online 65.67, spaced 0.5 66.03, 1.0 66.22, 1.5 67.30, 2.0 66.45,
offline ("max") 65.69.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "cifar100")
    config.teacher.model = "deit_tiny"
    config.student.model = "deit_tiny_distilled"
    config.students = arms.interval_sweep()
    config.students.baseline.model = "deit_tiny"
    recipes.follow(config, variant)
    return config
