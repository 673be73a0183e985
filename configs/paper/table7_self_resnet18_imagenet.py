r"""Table 7, ResNet-18 on ImageNet-1K: self KD, spaced self KD and their controls.

    python -m spaced_kd.main --config=configs/paper/table7_self_resnet18_imagenet.py \
        --workdir=runs/table7_self_resnet18_imagenet

The data: as for configs/imagenet.py.
Deviation: the ImageNet stem, as in configs/imagenet.py. Hardware: 8 GPUs; not measured
yet. With --config.compute_dtype=bfloat16, arithmetic at a sustained 120 TFLOP/s each
(H100 class) gives about 9 hours for 3 seeds of six arms (docs/recipes.md says how it is
counted), in which the hosts would have to decode 33,000 images a second (279 passes
over the data a seed: the stream is as long as self_kd_double needs, and both spaced
arms read their batches again); at 150 a second and core, say, reading alone takes 124
hours on 16 cores. --config.num_seeds=1 takes a third.
Expected accuracy (paper, Table 7; at 20 / 40 / 60 / 80 epochs of one run, no s.d.
given): self KD 44.87 / 46.78 / 47.78 / 47.99 (self_kd), spaced self KD 47.03 / 49.94 /
50.22 / 51.57 (spaced). These are epochs of the stream, in which spaced makes twice the
updates: its evaluations, which count its own updates, have the paper's epoch e at about
2e. The space interval is 1.5 epochs in this table, not 4.0 as in Table 2. The other
arms are not the paper's (docs/recipes.md).

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.self_kd(config, "imagenet")
    config.student.model = "resnet18_branches"
    config.student.arch.stem = "imagenet"
    config.student.space_interval_epochs = 1.5
    config.students = recipes.self_kd_arms(config)
    recipes.follow(config, variant)
    return config
