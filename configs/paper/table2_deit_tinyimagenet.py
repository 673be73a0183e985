r"""Table 2, DeiT-Tiny on Tiny-ImageNet: the column without distillation.

    python -m spaced_kd.main --config=configs/paper/table2_deit_tinyimagenet.py \
        --workdir=runs/table2_deit_tinyimagenet

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 3.1 hours for 3 seeds.
Expected accuracy (paper, Table 2; no s.d. given): w/o KD 50.17, self KD 49.73, spaced
self KD 53.59. Self KD itself is not built yet: this file trains the first column alone.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "tiny_imagenet")
    config.teacher.model = config.student.model = "deit_tiny"
    config.students = {
        "baseline": student(plan="none"),
    }
    recipes.follow(config, variant)
    return config
