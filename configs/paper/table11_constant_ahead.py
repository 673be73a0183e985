r"""Table 11, ResNet-18 on CIFAR-100: a teacher that stays ahead and never stands still.

    python -m spaced_kd.main --config=configs/paper/table11_constant_ahead.py \
        --workdir=runs/table11_constant_ahead

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 1.3 hours for 3 seeds of 11 students.
Expected accuracy (paper, Table 11; best epoch on the test set, mean of 3, no s.d.
given): 0 epochs ahead 71.05 (online), 0.5 70.67, 1.0 70.85, 1.5 70.69, 2.0 71.04, 2.5
70.78.
The paper does not say what the student sees. delayed_* (our default): the teacher's
batches, so much later, so that only the standing still is missing from spacing. late_*:
the teacher's current batch; the student just begins later. Either makes that many
epochs less of updates than online.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.students = arms.constant_ahead()
    recipes.follow(config, variant)
    return config
