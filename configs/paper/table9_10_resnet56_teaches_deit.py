r"""Tables 9 and 10, reading B: ResNet-56 teaches DeiT-Tiny on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table9_10_resnet56_teaches_deit.py \
        --workdir=runs/table9_10_resnet56_teaches_deit

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 9.5 hours for 3 seeds.
Expected accuracy (paper, Tables 9 and 10; best epoch on the test set, mean of 3, no
s.d. given): baseline 64.65, online 78.61, spaced 79.38, offline 78.80. Here the paper's
baseline is the student alone (64.77 in Table 1).
The roles as in the released vit/configs/deit/deit-ti_c100_ours.yaml; reading A, which
the captions say, is configs/paper/table9_10_deit_teaches_resnet18.py.
Deviation: there the teacher sees 32 pixels, and its feature maps guide the student;
here both networks see 224, and the losses are those of the transformers' other runs.
Another teacher, ResNet-18 (about 5 hours): --config.teacher.model=resnet18
--config.teacher.arch.stem=imagenet.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "cifar100")
    recipes.cnn_among_transformers(config.teacher)
    config.teacher.model = "resnet56"
    config.student.model = "deit_tiny_distilled"
    config.students = arms.pair()
    config.students.baseline.model = "deit_tiny"
    config.reference = "online,offline"
    recipes.follow(config, variant)
    return config
