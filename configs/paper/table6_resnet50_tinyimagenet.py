r"""Table 6, ResNet-50 on Tiny-ImageNet: the interval sweep.

    python -m spaced_kd.main --config=configs/paper/table6_resnet50_tinyimagenet.py \
        --workdir=runs/table6_resnet50_tinyimagenet

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 17 hours for 3 seeds of a teacher and 7
students.
Expected accuracy (paper, Table 6; best epoch on the test set, mean of 3, no s.d.
given): baseline 56.41, online 60.99, spaced 0.5 62.13, 1.0 62.27, 1.5 63.30, 2.0 62.55,
offline ("max") 62.47.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "tiny_imagenet")
    config.teacher.model = config.student.model = "resnet50"
    config.students = arms.interval_sweep()
    recipes.follow(config, variant)
    return config
