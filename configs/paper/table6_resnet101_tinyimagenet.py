r"""Table 6, ResNet-101 on Tiny-ImageNet: the interval sweep.

    python -m spaced_kd.main --config=configs/paper/table6_resnet101_tinyimagenet.py \
        --workdir=runs/table6_resnet101_tinyimagenet

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 32 hours for 3 seeds of a teacher and 7
students.
Expected accuracy (paper, Table 6; best epoch on the test set, mean of 3, no s.d.
given): baseline 56.99, online 61.29, spaced 0.5 62.70, 1.0 62.64, 1.5 63.76, 2.0 62.80,
offline ("max") 63.10.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "tiny_imagenet")
    config.teacher.model = config.student.model = "resnet101"
    config.students = arms.interval_sweep()
    recipes.follow(config, variant)
    return config
