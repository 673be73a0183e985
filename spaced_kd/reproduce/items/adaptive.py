"""Intervals that change along training: not in the paper, which leaves them open."""

from spaced_kd.reproduce.items.base import Best, Column, Item, row

_CONSTANT = {
    f"spaced_{epochs.replace('.', '_')}": Column(epochs, float(epochs))
    for epochs in ("0.5", "1.0", "1.5", "2.0", "3.0", "4.0", "6.0")
}
_VARYING = {
    name: Column(name) for name in ("linear", "expanding", "random", "gap", "plateau")
}
_LIMITS = {
    "baseline": Column("w/o KD"),
    "online": Column("online", 0.0),
    "offline": Column("offline"),
}

_BEST = {
    "best": Best("best constant, chosen on the other seeds", tuple(_CONSTANT)),
    "luckiest": Best("best constant of these seeds", tuple(_CONSTANT), elsewhere=False),
}

ADAPTIVE = Item(
    "adaptive",
    "Intervals that change along training, against constant ones",
    _LIMITS | _CONSTANT | _VARYING,
    (
        row(
            "handwritten digits",
            "small CNN",
            "digits_adaptive",
            {name: name for name in (*_LIMITS, *_CONSTANT, *_VARYING)},
        ),
    ),
    (
        *((name, best) for name in _VARYING for best in _BEST),
        *((name, "online") for name in (*_VARYING, *_CONSTANT)),
    ),
    (
        "No number of the paper: it leaves the question open. All students make the "
        "same number of updates, because all replay what is left at the end.",
        "Each seed is a run of its own, in which feedback decides by what that seed "
        "measures.",
        "The best of seven constant intervals on these very seeds is partly the "
        "luckiest, which favours the constant ones. The one that is best on the other "
        "seeds tends to be bad on the seed left out, which favours the varying ones. "
        "Only what holds against both holds.",
    ),
    kind="study",
    axis="constant interval, epochs (0: online)",
    best=_BEST,
)
