"""The paper's tables and figures as rows of places where our numbers come from."""

from spaced_kd import registry
from spaced_kd.reproduce.items import (
    adaptive,
    imagenet,
    main,
    methods,
    pairs,
    robustness,
    training,
)
from spaced_kd.reproduce.items.base import (
    TEACHER,
    Best,
    Column,
    Item,
    Measure,
    Place,
    Row,
)

__all__ = [
    "ITEMS",
    "TEACHER",
    "Best",
    "Column",
    "Item",
    "Measure",
    "Place",
    "Row",
    "lookup",
]

ITEMS: dict[str, Item] = {
    "table1": main.TABLE1,
    "table2": main.TABLE2,
    "table3": methods.TABLE3,
    "table4": methods.TABLE4,
    "table5": robustness.TABLE5,
    "table6": main.TABLE6,
    "table7": imagenet.TABLE7,
    "table8": imagenet.TABLE8,
    "table9": pairs.TABLE9,
    "table10": pairs.TABLE10,
    "table11": pairs.TABLE11,
    "table12": robustness.TABLE12,
    "table13": robustness.TABLE13,
    "figure2": main.FIGURE2,
    "figure3": training.FIGURE3,
    "figure4": robustness.FIGURE4,
    "figure5": training.FIGURE5,
    "figure6": robustness.FIGURE6,
    "adaptive": adaptive.ADAPTIVE,
}
"""Name -> item, tables before figures, in the order of the paper."""


def lookup(name: str) -> Item:
    """Return an item by name.

    Raises:
      ConfigError: there is none; lists the nearest names first.
    """
    return registry.lookup(ITEMS, name, "item")
