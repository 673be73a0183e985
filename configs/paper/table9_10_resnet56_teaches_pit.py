r"""Tables 9 and 10, reading B: ResNet-56 teaches PiT-Tiny on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table9_10_resnet56_teaches_pit.py \
        --workdir=runs/table9_10_resnet56_teaches_pit

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 8.2 hours for 3 seeds.
Expected accuracy (paper, Tables 9 and 10; best epoch on the test set, mean of 3, no
s.d. given): baseline 73.78, online 77.13, spaced 78.77, offline 78.50. Here the paper's
baseline is the student alone (73.45 in Table 1).
The roles as in the released vit/configs/pit/pit-ti_c100_ours.yaml; reading A, which the
captions say, is configs/paper/table9_10_pit_teaches_resnet18.py.
Deviation: there the teacher sees 32 pixels, and its feature maps guide the student;
here both networks see 224, and the losses are those of the transformers' other runs.
Another teacher, ResNet-18 (about 3.6 hours): --config.teacher.model=resnet18
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
    config.student.model = "pit_tiny"
    config.students = arms.pair()
    config.reference = "online,offline"
    recipes.follow(config, variant)
    return config
