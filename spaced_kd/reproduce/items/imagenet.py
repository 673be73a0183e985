"""Tables 7 and 8: ImageNet-1K, at several epochs of one run."""

from collections.abc import Sequence

from spaced_kd.reproduce.items.base import Column, Item, Place, Row

_ONLINE = {"online": "online", "spaced": "spaced_1_5"}
_SELF = {
    "self_kd": "self_kd",
    "self_spaced": "spaced",
    "self_kd_double": "self_kd_double",
    "interleaved": "interleaved",
    "spaced_half": "spaced_half",
}

_COLUMNS = {
    "online": Column("online KD"),
    "spaced": Column("online KD, spaced 1.5"),
    "self_kd": Column("self KD"),
    "self_spaced": Column("self KD, spaced 1.5"),
    "self_kd_double": Column("self KD, twice the epochs", control=True),
    "interleaved": Column("both updates at once", control=True),
    "spaced_half": Column("self KD, spaced, half the epochs", control=True),
}

_COMPARISONS = (
    ("spaced", "online"),
    ("self_spaced", "self_kd"),
    ("self_spaced", "self_kd_double"),
    ("self_spaced", "interleaved"),
    ("spaced_half", "self_kd"),
)

_NOTES = (
    "An epoch is a share of each network's own updates: spaced self KD, which makes "
    "two of each batch, has made twice as many by then.",
)


def _rows(
    model: str, epochs: Sequence[int], online: str, by_itself: str
) -> tuple[Row, ...]:
    configs = {online: _ONLINE, by_itself: _SELF}
    return tuple(
        Row(
            f"epoch {epoch}",
            "ImageNet-1K",
            model,
            {
                column: Place(config, network, share=epoch / epochs[-1])
                for config, networks in configs.items()
                for column, network in networks.items()
            },
        )
        for epoch in epochs
    )


TABLE7 = Item(
    "table7",
    "ResNet-18 on ImageNet-1K, along one run",
    _COLUMNS,
    _rows(
        "ResNet-18",
        (20, 40, 60, 80),
        "imagenet",
        "paper/table7_self_resnet18_imagenet",
    ),
    _COMPARISONS,
    (*_NOTES, "Ours has the ImageNet stem: the released one takes 15 times as long."),
)

TABLE8 = Item(
    "table8",
    "DeiT-Tiny on ImageNet-1K, along one run",
    _COLUMNS,
    _rows(
        "DeiT-Tiny",
        (100, 200, 300),
        "paper/table8_deit_imagenet",
        "paper/table8_self_deit_imagenet",
    ),
    _COMPARISONS,
    _NOTES,
)
