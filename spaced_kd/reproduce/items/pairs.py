"""Tables 9, 10 and 11: other teachers, and a teacher that never stands still."""

from spaced_kd.reproduce.items.base import TEACHER, Column, Item, Place, Row

_DATA = "CIFAR-100"

_LEARNERS = {"online": "online", "spaced": "spaced_1_5", "offline": "offline"}
_TAUGHT = {"baseline": TEACHER, "labels": "baseline"} | _LEARNERS
"""The paper's "Baseline" is the teacher alone."""

_SIZES = {
    f"ResNet-18 x{factor}": f"table9_10_resnet18_x{factor}" for factor in (2, 4, 8)
}
_DEPTHS = {"ResNet-50": "table9_resnet50", "ResNet-101": "table9_resnet101"}
_READING_A = {
    "DeiT-Tiny": "table9_10_deit_teaches_resnet18",
    "PiT-Tiny": "table9_10_pit_teaches_resnet18",
}
_READING_B = {
    "DeiT-Tiny": "table9_10_resnet56_teaches_deit",
    "PiT-Tiny": "table9_10_resnet56_teaches_pit",
}


def _taught(teacher: str, config: str) -> Row:
    places = {
        column: Place(f"paper/{config}", network) for column, network in _TAUGHT.items()
    }
    return Row(teacher, _DATA, teacher, places)


def _reading_a(teacher: str, config: str) -> Row:
    row = _taught(teacher, config)
    return row._replace(label=f"{teacher} teaches ResNet-18", paper=teacher)


def _reading_b(student: str, config: str) -> Row:
    networks = _LEARNERS | {"baseline": "baseline"}
    places = {
        column: Place(f"paper/{config}", network)
        for column, network in networks.items()
    }
    label = f"ResNet-56 teaches {student}"
    return Row(label, _DATA, "ResNet-56", places, paper=student)


def _without_baseline(row: Row) -> Row:
    places = {name: place for name, place in row.places.items() if name != "baseline"}
    return row._replace(places=places)


_TRANSFORMERS = (
    *(_reading_a(net, config) for net, config in _READING_A.items()),
    *(_reading_b(net, config) for net, config in _READING_B.items()),
)

_NOTES = (
    "x2, x4 and x8 are factors of the parameters, as in the released networks; factors "
    "of the channels are --config.teacher.arch.param_factor=1 and "
    "--config.teacher.arch.channel_multiple.",
    "The paper's rows DeiT-Tiny and PiT-Tiny are read in two ways: as the teacher of "
    "ResNet-18, as the captions say, and as the student of a CNN, as the released "
    "configs have it. Both are trained by the recipe of the transformers.",
)

TABLE9 = Item(
    "table9",
    "Other teachers, online and with 1.5 epochs of space",
    {
        "baseline": Column("baseline"),
        "online": Column("online KD"),
        "spaced": Column("spaced 1.5"),
        "labels": Column("student on the labels", control=True),
        "offline": Column("offline KD", control=True),
    },
    (
        *(_taught(net, config) for net, config in (_SIZES | _DEPTHS).items()),
        *_TRANSFORMERS,
    ),
    (("spaced", "online"), ("spaced", "offline")),
    (
        *_NOTES,
        "The baseline is the teacher alone, as the paper's must be; where a CNN "
        "teaches a transformer it is the student on the labels.",
    ),
)

TABLE10 = Item(
    "table10",
    "Other teachers, offline and with 1.5 epochs of space",
    {
        "offline": Column("offline KD"),
        "spaced": Column("spaced 1.5"),
        "online": Column("online KD", control=True),
        "labels": Column("student on the labels", control=True),
    },
    tuple(
        _without_baseline(row)
        for row in (
            *(_taught(net, config) for net, config in _SIZES.items()),
            *_TRANSFORMERS,
        )
    ),
    (("spaced", "offline"), ("spaced", "online")),
    _NOTES,
)

_AHEAD = ("0.0", "0.5", "1.0", "1.5", "2.0", "2.5")


def _constant(label: str, reading: str) -> Row:
    places = {}
    for epochs in _AHEAD:
        part = epochs.replace(".", "_")
        network = "online" if epochs == "0.0" else f"{reading}_{part}"
        places[f"ahead_{part}"] = Place("paper/table11_constant_ahead", network)
    return Row(label, _DATA, "ResNet-18", places, paper=_DATA)


TABLE11 = Item(
    "table11",
    "A teacher that stays ahead and never stands still",
    {
        f"ahead_{epochs.replace('.', '_')}": Column(epochs, float(epochs))
        for epochs in _AHEAD
    },
    (
        _constant("CIFAR-100, delayed", "delayed"),
        _constant("CIFAR-100, late start", "late"),
    ),
    tuple((f"ahead_{epochs.replace('.', '_')}", "ahead_0_0") for epochs in _AHEAD[1:]),
    (
        "Two readings: the student learns the teacher's batches so much later, or its "
        "current batch from a later start. Either has so many epochs of updates less.",
    ),
)
