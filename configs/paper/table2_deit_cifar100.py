r"""Table 2, DeiT-Tiny on CIFAR-100: the column without distillation.

    python -m spaced_kd.main --config=configs/paper/table2_deit_cifar100.py \
        --workdir=runs/table2_deit_cifar100

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 1.6 hours for 3 seeds.
Expected accuracy (paper, Table 2; no s.d. given): w/o KD 64.77, self KD 65.24, spaced
self KD 68.26. Self KD itself is not built yet: this file trains the first column alone.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "cifar100")
    config.teacher.model = config.student.model = "deit_tiny"
    config.students = {
        "baseline": student(plan="none"),
    }
    recipes.follow(config, variant)
    return config
