r"""Figure 3, ResNet-18 on CIFAR-100: spacing in a part of the training only.

    python -m spaced_kd.main --config=configs/paper/figure3_critical_period.py \
        --workdir=runs/figure3_critical_period

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 1.7 hours for 3 seeds of a teacher and
16 students. Compilation comes on top: 8 programs of up to 14 students, one for each set
of students that the teacher's steps take along.
Expected accuracy (paper, Table 6, its two lines): online 71.05, spaced 1.5 72.43. The
rest is a drawing whose numbers the text does not have; it claims that a late start is
better than an early one.
(a) is window_A_B: spaced in the 10 epochs from A to B alone, 6 rounds of 586 steps and
one of 394. (b) is from_A: from A to the end. What (b) has at 0 is spaced_1_5, and at 70
it is window_70_80. The paper does not say what the student does outside: online KD (our
default), or the labels alone, --config.student.outside=hard_only. Nothing is left
unreplayed, so that all students have 31,280 updates; they share the teacher.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.students = arms.critical_period()
    config.reference = "online,spaced_1_5"
    recipes.follow(config, variant)
    return config
