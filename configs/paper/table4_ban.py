r"""Table 4, born-again networks: ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table4_ban.py \
        --workdir=runs/table4_ban

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 0.4 hours for 3 seeds.
Expected accuracy (paper, Table 4; no protocol but "the original pipeline"): without
56.75, born again 60.56, with spacing 61.83. These are far below Table 1's ResNet-18;
the recipe here is Table 1's, so only the differences compare.
ban learns from the finished teacher of this run, its equal; spaced_1_5 from the same
one as it trains. baseline is the teacher once more, from the student's initial weights.
More generations: table4_ban_generations.py.

Variants: `:released`, `:paper` (whom to follow; nothing is released for this table),
`:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "recommended"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    recipes.born_again(config)
    config.students = {
        "baseline": student(plan="none"),
        "ban": student(plan="offline"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    config.reference = "ban"
    recipes.follow(config, variant)
    return config
