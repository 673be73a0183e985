r"""Table 6, PiT-Tiny on Tiny-ImageNet: the interval sweep.

    python -m spaced_kd.main --config=configs/paper/table6_pit_tinyimagenet.py \
        --workdir=runs/table6_pit_tinyimagenet

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 8.4 hours for 3 seeds of a teacher and
7 students.
Expected accuracy (paper, Table 6; best epoch on the test set, mean of 3, no s.d.
given): baseline 57.89, online 58.25, spaced 0.5 59.45, 1.0 59.77, 1.5 60.25, 2.0 59.75,
offline ("max") 58.23.
The released PiT configs that are named 1_5 and 2_0 have an interval of 1.0, so that the
paper's three cells 1.0 to 2.0 may be three runs of one setting.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "tiny_imagenet")
    config.teacher.model = config.student.model = "pit_tiny"
    config.students = arms.interval_sweep()
    recipes.follow(config, variant)
    return config
