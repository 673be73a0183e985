r"""Every distillation method on handwritten digits, plain and spaced, minutes on a CPU.

    for part in taught alone mutual shake; do
      python -m spaced_kd.main --config=configs/digits_methods.py:$part \
          --workdir=runs/digits_methods/$part
    done
    python benchmarks/methods_table.py runs/digits_methods

The images and networks of configs/digits.py, 5 seeds. Each method as its authors set it
(`arms.METHOD_FIELDS`); METHOD_plain and METHOD_spaced differ in the plan alone. taught:
all that learn from the run's teacher, which they share. alone: DLB and PS-KD, their own
teachers. mutual: DML. shake: with a teacher that a stage trains. Where a spaced student
makes two updates of a batch, METHOD_twice makes both at once. DLB's and PS-KD's are two
updates of one network: METHOD_longer makes as many in twice the epochs.
Hardware: 2 CPU cores, about 10 minutes in all. docs/methods.md has the table.
Variants: `:taught` (default), `:alone`, `:mutual`, `:shake`, `:smoke` (seconds).
"""

from spaced_kd import arms, recipes
from spaced_kd.config import NO_TEACHER, base_config, student

TAUGHT = ("kd", "pld", "sinkd", "taid", "nd", "diswot", "ofa", "dho", "label_mix")


def get_config(variant: str = "taught"):
    config = base_config()
    config.num_seeds = 5
    config.num_epochs = 60
    recipes.digits(config)
    config.teacher.model = "small_cnn"
    config.student.model = "small_cnn"
    config.reference = ""
    if variant == "taught":
        methods = TAUGHT
    elif variant == "smoke":
        methods = TAUGHT[:2]
    elif variant == "alone":
        config.teacher.model = NO_TEACHER
        methods = ("dlb", "ps_kd")
    elif variant == "mutual":
        config.teacher.model = NO_TEACHER
        methods = ("dml",)
    elif variant == "shake":
        config.stages = {"teacher": recipes.stage(config, "small_cnn")}
        config.teacher.stage = "teacher/alone"
        methods = ("shake",)
    else:
        raise ValueError(
            f"unknown variant '{variant}'; known: taught, alone, mutual, shake, smoke"
        )
    config.students = arms.plain_and_spaced(*methods)
    if methods[0] not in TAUGHT:
        config.students.update(arms.as_many_updates(*methods))
    config.students.baseline = student(plan="none")
    if variant == "smoke":
        config.num_seeds = 1
        config.num_epochs = 3
    return config
