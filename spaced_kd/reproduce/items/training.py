"""Figures 3 and 5: when to space, and at which learning rate and batch size."""

from spaced_kd.reproduce.items.base import Column, Item, Place, Row

_DATA, _MODEL = "CIFAR-100", "ResNet-18"

_PERIODS = "paper/figure3_critical_period"
_WINDOW = 10
_STARTS = range(0, 80, _WINDOW)


def _spaced_from(start: int) -> str:
    """Return who is spaced from an epoch to the end: two of them have other names."""
    named = {_STARTS[0]: "spaced_1_5", _STARTS[-1]: "window_70_80"}
    return named.get(start, f"from_{start}")


def _period(panel: str, start: int, network: str) -> Row:
    networks = {"online": "online", "spaced": "spaced_1_5", "spaced_here": network}
    places = {column: Place(_PERIODS, name) for column, name in networks.items()}
    label = f"{panel}, from epoch {start}"
    return Row(label, _DATA, _MODEL, places, panel=panel, x=float(start))


FIGURE3 = Item(
    "figure3",
    "Spacing in a part of training",
    {
        "online": Column("online all along"),
        "spaced": Column("spaced 1.5 all along"),
        "spaced_here": Column("spaced 1.5 here, else online"),
    },
    (
        *(
            _period("for 10 epochs", start, f"window_{start}_{start + _WINDOW}")
            for start in _STARTS
        ),
        *(_period("to the end", start, _spaced_from(start)) for start in _STARTS),
    ),
    (("spaced_here", "online"), ("spaced_here", "spaced")),
    (
        "The text gives no numbers and no grid: the starts are ours.",
        "What the student does outside is not said; here it is online KD. The labels "
        "alone are --config.student.outside=hard_only.",
    ),
    kind="figure",
    axis="spaced from epoch",
)

_GRID = "paper/figure5"
_SWEEPS = {
    "learning rate": ("learning_rate", "lr", ("0.001", "0.005", "0.01", "0.05", "0.1")),
    "batch size": ("batch_size", "batch", ("32", "64", "128", "256", "512")),
}
"""Panel -> variant of the grid, how its cells' names begin, and their values."""


def _cell(panel: str, variant: str, name: str, value: str) -> Row:
    networks = {"baseline": "baseline", "online": "online", "spaced": "spaced_1_5"}
    cell = f"{name}_{value.replace('.', '_')}"
    places = {
        column: Place(_GRID, network, variant, cell)
        for column, network in networks.items()
    }
    label = f"{panel} {value}"
    return Row(label, _DATA, _MODEL, places, panel=panel, x=float(value))


FIGURE5 = Item(
    "figure5",
    "Learning rates and batch sizes",
    {
        "baseline": Column("w/o KD"),
        "online": Column("online KD"),
        "spaced": Column("spaced 1.5"),
    },
    tuple(
        _cell(panel, variant, name, value)
        for panel, (variant, name, values) in _SWEEPS.items()
        for value in values
    ),
    (("spaced", "online"),),
    (
        "The text gives no numbers and no grid: the values are ours. 0.01 and 128 are "
        "the run of Table 1.",
        "The learning rate is not rescaled with the batch; the feature loss, a norm of "
        "the whole batch's difference, weighs more in larger ones.",
    ),
    kind="figure",
    axis="learning rate or batch size",
)
