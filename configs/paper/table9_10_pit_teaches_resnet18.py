r"""Tables 9 and 10, reading A: PiT-Tiny teaches ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table9_10_pit_teaches_resnet18.py \
        --workdir=runs/table9_10_pit_teaches_resnet18

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 5.3 hours for 3 seeds.
Expected accuracy (paper, Tables 9 and 10; best epoch on the test set, mean of 3, no
s.d. given): teacher 73.78, online 77.13, spaced 78.77, offline 78.50. The paper's
baseline is the teacher alone, which is this run's teacher; baseline here is the student
on the labels, which the paper does not have at 224 pixels.
As the captions say; reading B is configs/paper/table9_10_resnet56_teaches_pit.py. A
student at 77 to 79 cannot come from the ResNets' recipe (68 to 73), so that all is in
the transformers': 224 pixels, 300 epochs, RandAugment, and with `:released` their
losses. The student has the ImageNet stem and the optimiser of the released
vit/configs/resnet/r-18_c100.yaml: SGD, a cosine from 0.1. No released code trains this
pair: its wrapper fails with a CNN as the student.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.transformer(config, "cifar100")
    recipes.cnn_among_transformers(config.student)
    config.teacher.model = "pit_tiny"
    config.student.arch.stem = "imagenet"
    config.students = arms.pair()
    config.reference = "online,offline"
    recipes.follow(config, variant)
    return config
