r"""Table 6, ResNet-101 on CIFAR-100: the interval sweep.

    python -m spaced_kd.main --config=configs/paper/table6_resnet101_cifar100.py \
        --workdir=runs/table6_resnet101_cifar100

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 4 hours for 3 seeds of a teacher and 7
students.
Expected accuracy (paper, Table 6; best epoch on the test set, mean of 3, no s.d.
given): baseline 70.04, online 72.03, spaced 0.5 73.11, 1.0 73.22, 1.5 72.91, 2.0 73.22,
offline ("max") 74.01.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.teacher.model = config.student.model = "resnet101"
    config.students = arms.interval_sweep()
    recipes.follow(config, variant)
    return config
