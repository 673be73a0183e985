r"""Table 4, a teacher by progressive self-distillation: ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table4_ps_kd.py \
        --workdir=runs/table4_ps_kd

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 0.4 hours for 3 seeds.
Expected accuracy (paper, Table 4 and A.3): without 74.92, online 75.20, with spacing
75.38. "Without" is the teacher, trained by the method; an equal student learns from it
online or with spacing. Its loss is not said: it is Table 1's.

Variants: `:released`, `:paper` (whom to follow; nothing is released for this table),
`:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "recommended"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.teacher.method = "ps_kd"
    config.students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    recipes.follow(config, variant)
    return config
