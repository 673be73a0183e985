r"""Table 4, born-again networks, four generations: ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table4_ban_generations.py \
        --workdir=runs/table4_ban_generations

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 0.5 hours for 3 seeds.
Expected accuracy (paper, Table 4; one number, generation unknown): without 56.75, born
again 60.56. The recipe here is Table 1's, so only the differences compare.
Generation k learns from generation k - 1, which has been trained by a run of its own
(docs/chains.md), in the workdir's folder stages. The report's teacher is generation 2,
its student generation 3.

Variants: `:released`, `:paper` (whom to follow; nothing is released for this table),
`:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "recommended"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    recipes.born_again(config)
    stages = {"gen0": recipes.stage(config, "resnet18")}
    config.teacher.stage = "gen0/alone"
    for number in (1, 2):
        config.students = {"alone": student(plan="online")}
        stages[f"gen{number}"] = config.copy_and_resolve_references()
        config.teacher.stage = f"gen{number}/alone"
    config.stages = stages
    config.students = {
        "baseline": student(plan="none"),
        "gen3": student(plan="online"),
    }
    config.reference = "baseline"
    recipes.follow(config, variant)
    return config
