r"""Table 2, ResNet-18 on Tiny-ImageNet: self KD, spaced self KD and their controls.

    python -m spaced_kd.main --config=configs/paper/table2_resnet18_tinyimagenet.py \
        --workdir=runs/table2_resnet18_tinyimagenet

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 6.9 hours for 3 seeds of six arms
(docs/recipes.md says how it is counted).
Expected accuracy (paper, Table 2; no s.d. given): w/o KD 53.08 (baseline), self KD
61.08 (self_kd), spaced self KD 62.83 (spaced). They are probably the best epoch, on the
test set, of the ensemble of all exits, which is what the released code keeps. The first
column is copied from Table 1, that is from another pipeline. Here it is trained in the
recipe of the other arms, on the network without branches. The paper has none of the
other arms: self_kd_double, interleaved and spaced_half are controls, because spaced
makes twice the updates of self_kd (docs/recipes.md).

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.self_kd(config, "tiny_imagenet")
    config.student.model = "resnet18_branches"
    config.students = recipes.self_kd_arms(config)
    recipes.follow(config, variant)
    return config
