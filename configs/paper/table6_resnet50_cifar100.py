r"""Table 6, ResNet-50 on CIFAR-100: the interval sweep.

    python -m spaced_kd.main --config=configs/paper/table6_resnet50_cifar100.py \
        --workdir=runs/table6_resnet50_cifar100

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 2.1 hours for 3 seeds of a teacher and
7 students.
Expected accuracy (paper, Table 6; best epoch on the test set, mean of 3, no s.d.
given): baseline 69.62, online 71.85, spaced 0.5 73.39, 1.0 73.25, 1.5 73.77, 2.0 73.28,
offline ("max") 73.35.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.teacher.model = config.student.model = "resnet50"
    config.students = arms.interval_sweep()
    recipes.follow(config, variant)
    return config
