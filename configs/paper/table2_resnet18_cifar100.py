r"""Table 2, ResNet-18 on CIFAR-100: the column without distillation.

    python -m spaced_kd.main --config=configs/paper/table2_resnet18_cifar100.py \
        --workdir=runs/table2_resnet18_cifar100

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 0.2 hours for 3 seeds.
Expected accuracy (paper, Table 2; no s.d. given): w/o KD 68.12, self KD 73.29, spaced
self KD 75.73. The paper copied its first column from Table 1, that is from another
pipeline; this file trains it in the self-distillation recipe, which is what the other
two columns must be compared with. Self KD itself is not built yet.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "released"):
    config = base_config()
    recipes.self_kd(config, "cifar100")
    config.teacher.model = config.student.model = "resnet18"
    config.students = {
        "baseline": student(plan="none"),
    }
    recipes.follow(config, variant)
    return config
