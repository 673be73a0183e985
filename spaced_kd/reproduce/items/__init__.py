"""The paper's tables and figures as rows of places where our numbers come from."""

from spaced_kd import registry
from spaced_kd.reproduce.items import main
from spaced_kd.reproduce.items.base import (
    TEACHER,
    Column,
    Item,
    Measure,
    Place,
    Row,
)

__all__ = ["ITEMS", "TEACHER", "Column", "Item", "Measure", "Place", "Row", "lookup"]

ITEMS: dict[str, Item] = {
    "table1": main.TABLE1,
    "table2": main.TABLE2,
    "table6": main.TABLE6,
    "figure2": main.FIGURE2,
}
"""Name -> item, tables before figures, in the order of the paper."""


def lookup(name: str) -> Item:
    """Return an item by name.

    Raises:
      ConfigError: there is none; lists the nearest names first.
    """
    return registry.lookup(ITEMS, name, "item")
