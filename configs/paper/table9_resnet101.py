r"""Table 9, ResNet-101 teaches ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table9_resnet101.py \
        --workdir=runs/table9_resnet101

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 1.1 hours for 3 seeds.
Expected accuracy (paper, Table 9; best epoch on the test set, mean of 3, no s.d.
given): teacher 69.54, online 71.61, spaced 73.04. The paper's baseline is the teacher
alone, which is this run's teacher; baseline here is the student on the labels, 68.12 in
Table 1. Table 10 has no such row; offline is trained as for the others.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.teacher.model = "resnet101"
    config.students = arms.pair()
    config.reference = "online,offline"
    recipes.follow(config, variant)
    return config
