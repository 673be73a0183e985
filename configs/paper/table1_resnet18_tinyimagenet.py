r"""Table 1, ResNet-18 on Tiny-ImageNet: online KD with and without spacing.

    python -m spaced_kd.main --config=configs/paper/table1_resnet18_tinyimagenet.py \
        --workdir=runs/table1_resnet18_tinyimagenet

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 3.2 hours for 3 seeds.
Expected accuracy (paper, Table 1; best epoch on the test set, mean of 3, no s.d.
given): baseline 53.08, online 59.19, spaced 60.75.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "tiny_imagenet")
    config.teacher.model = config.student.model = "resnet18"
    config.students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    recipes.follow(config, variant)
    return config
