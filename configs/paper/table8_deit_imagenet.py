r"""Table 8, DeiT-Tiny on ImageNet-1K: online KD with and without spacing.

    python -m spaced_kd.main --config=configs/paper/table8_deit_imagenet.py \
        --workdir=runs/table8_deit_imagenet

The data: as for configs/imagenet.py.
Hardware: 8 GPUs; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s each (H100 class) gives about 8.4 hours for 3 seeds, for which
the hosts would have to decode 77,000 images a second (3 seeds, each image read by the
teacher and again by the replay); at 150 a second and core, say, reading alone takes 267
hours on 16 cores. --config.num_seeds=1 takes a third.
Expected accuracy (paper, Table 8; at 100 / 200 / 300 epochs of one run, no s.d. given):
online 58.18 / 65.93 / 72.04, spaced 58.47 / 66.54 / 72.34. The released transformers
have no loader for ImageNet; the recipe is theirs for the other data sets.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "imagenet")
    config.teacher.model = "deit_tiny"
    config.student.model = "deit_tiny_distilled"
    config.students = {
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    recipes.follow(config, variant)
    return config
