r"""Table 4, teacher assistants: ResNet-50, ResNet-34, ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table4_takd.py \
        --workdir=runs/table4_takd

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 0.9 hours for 3 seeds.
Expected accuracy (paper, Table 4): without 61.37, with an assistant 61.82, with spacing
63.48. The first two are the published ones of a ResNet-8 (method D.4), so that only the
differences compare; `:small` has that method's own networks, ResNet-110, 20 and 8.
The tutor is trained by a run of its own (docs/chains.md); the run's teacher is the
assistant, which learns from it. takd learns from the finished assistant, spaced_1_5
from the assistant as it trains. Weight and temperature are Table 1's; the authors of
the method search for them.

Variants: `:released`, `:paper` (whom to follow; nothing is released for this table),
`:smoke`, `:small`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "recommended"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    small = variant == "small"
    tutor, assistant, learner = (
        ("resnet110", "resnet20", "resnet8")
        if small
        else ("resnet50", "resnet34", "resnet18")
    )
    config.teacher.model, config.student.model = assistant, learner
    config.teacher.method = "kd"
    config.teacher.feature_weight = config.student.feature_weight = 0.0
    config.stages = {"tutor": recipes.stage(config, tutor)}
    config.tutor.stage = "tutor/alone"
    config.students = {
        "baseline": student(plan="none"),
        "takd": student(plan="offline"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    config.reference = "takd"
    recipes.follow(config, "recommended" if small else variant)
    return config
