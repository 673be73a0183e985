r"""Every distillation method on handwritten digits, plain and spaced, minutes on a CPU.

    python -m spaced_kd.main --config=configs/digits_methods.py:taught \
        --workdir=runs/digits_methods/taught

and likewise the parts alone, mutual, shake, ban, takd, dlb_teaches and ps_kd_teaches;
then the table:

    python benchmarks/methods_table.py runs/digits_methods

The images and networks of configs/digits.py, 5 seeds. Each method as its authors set it
(`arms.METHOD_FIELDS`); METHOD_plain and METHOD_spaced differ in the plan alone.
taught: all that learn from the run's teacher, which they share. alone: DLB and PS-KD,
their own teachers. mutual: DML. shake: with a teacher that a stage trains. ban, takd:
plain is the student of a finished teacher or assistant. dlb_teaches, ps_kd_teaches: the
teacher learns by the method, the students by `kd` (paper Table 4).
Where a spaced student makes two updates of a batch, METHOD_twice makes both at once.
DLB's and PS-KD's are two updates of one network: METHOD_longer makes as many in twice
the epochs.
Hardware: 2 CPU cores, 18 minutes in all. docs/methods.md has the table.
Variants: the parts (`:taught` is the default), `:smoke` (seconds).
"""

from spaced_kd import arms, recipes
from spaced_kd.config import NO_TEACHER, base_config, student

TAUGHT = ("kd", "pld", "sinkd", "taid", "nd", "diswot", "ofa", "dho", "label_mix")


def get_config(variant: str = "taught"):
    config = base_config()
    config.num_seeds = 5
    config.num_epochs = 60
    recipes.digits(config)
    config.teacher.model = config.student.model = "small_cnn"
    config.reference = ""
    if variant not in PARTS:
        raise ValueError(f"unknown variant '{variant}'; known: {', '.join(PARTS)}")
    part = PARTS[variant]
    config.students = part(config)
    config.students.baseline = student(plan="none")
    return config


def taught(config):
    del config
    return arms.plain_and_spaced(*TAUGHT)


def alone(config):
    config.teacher.model = NO_TEACHER
    methods = "dlb", "ps_kd"
    return arms.plain_and_spaced(*methods) | arms.as_many_updates(*methods)


def mutual(config):
    config.teacher.model = NO_TEACHER
    return arms.plain_and_spaced("dml") | arms.as_many_updates("dml")


def shake(config):
    config.stages = {"first": recipes.stage(config, "small_cnn")}
    config.teacher.stage = "first/alone"
    return arms.plain_and_spaced("shake") | arms.as_many_updates("shake")


def ban(config):
    recipes.born_again(config)
    return {"ban_plain": student(plan="offline"), "ban_spaced": student(plan="spaced")}


def takd(config):
    config.stages = {"first": recipes.stage(config, "small_cnn")}
    config.tutor.stage = "first/alone"
    config.teacher.method = "kd"
    config.teacher.feature_weight = config.student.feature_weight = 0.0
    return {
        "takd_plain": student(plan="offline"),
        "takd_spaced": student(plan="spaced"),
    }


def teaches(method):
    def students(config):
        config.teacher.method = method
        return {
            f"{method}_teaches_plain": student(plan="online"),
            f"{method}_teaches_spaced": student(plan="spaced"),
        }

    return students


def smoke(config):
    config.num_seeds = 1
    config.num_epochs = 3
    return arms.plain_and_spaced(*TAUGHT[:2])


PARTS = {
    "taught": taught,
    "alone": alone,
    "mutual": mutual,
    "shake": shake,
    "ban": ban,
    "takd": takd,
    "dlb_teaches": teaches("dlb"),
    "ps_kd_teaches": teaches("ps_kd"),
    "smoke": smoke,
}
