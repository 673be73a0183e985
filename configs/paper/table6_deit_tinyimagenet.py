r"""Table 6, DeiT-Tiny on Tiny-ImageNet: the interval sweep.

    python -m spaced_kd.main --config=configs/paper/table6_deit_tinyimagenet.py \
        --workdir=runs/table6_deit_tinyimagenet

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 15 hours for 3 seeds of a teacher and 7
students.
Expected accuracy (paper, Table 6; best epoch on the test set, mean of 3, no s.d.
given): baseline 50.23, online 51.82, spaced 0.5 54.20, 1.0 53.55, 1.5 52.92, 2.0 53.48,
offline ("max") 52.21.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "tiny_imagenet")
    config.teacher.model = "deit_tiny"
    config.student.model = "deit_tiny_distilled"
    config.students = arms.interval_sweep()
    config.students.baseline.model = "deit_tiny"
    recipes.follow(config, variant)
    return config
