"""Tables 3 and 4: other losses, other methods."""

from spaced_kd.reproduce.items.base import TEACHER, Column, Item, Place, Row

_DATA, _MODEL = "CIFAR-100", "ResNet-18"

_LOSSES = {
    "L1": ("l1", "l1"),
    "Smooth L1": ("smooth_l1", "smooth_l1"),
    "MSE (Mean)": ("mse", "mse"),
    "MSE (Sum)": ("dist", "mse_sum"),
    "Cross-Entropy": ("ce", "soft_cross_entropy"),
}
"""The paper's name of a loss -> what it is, of features and of logits."""


def _loss_row(name: str, label: str, config: str, loss: str) -> Row:
    places = {
        "baseline": Place(config, "baseline"),
        "online": Place(config, f"online_{loss}"),
        "spaced": Place(config, f"spaced_{loss}"),
    }
    return Row(label, _DATA, _MODEL, places, paper=name)


TABLE3 = Item(
    "table3",
    "Five losses, online and with 1.5 epochs of space",
    {
        "baseline": Column("w/o KD", control=True),
        "online": Column("online"),
        "spaced": Column("spaced 1.5"),
    },
    (
        *(
            _loss_row(name, f"{name}, of features", "paper/table3_feature_losses", loss)
            for name, (loss, _) in _LOSSES.items()
        ),
        *(
            _loss_row(name, f"{name}, of logits", "paper/table3_logit_losses", loss)
            for name, (_, loss) in _LOSSES.items()
        ),
    ),
    (("spaced", "online"), ("online", "baseline")),
    (
        "Two readings. Of features, as a flag of the released code swaps them at a "
        "weight of 0.03; of logits, at a weight of 0.3 and without features.",
        "'MSE (Sum), of features' is the Euclidean norm of the whole batch's "
        "difference, as released; a sum of squares would be 100 times the "
        "cross-entropy.",
    ),
)


def _method(
    label: str,
    model: str,
    config: str,
    networks: dict[str, str],
    *,
    variant: str = "",
    paper: str = "",
    notes: tuple[str, ...] = (),
) -> Row:
    places = {
        column: Place(f"paper/{config}", network, variant)
        for column, network in networks.items()
    }
    return Row(label, _DATA, model, places, paper=paper, notes=notes)


def _named(method: str) -> dict[str, str]:
    return {"without": "baseline", "method": method, "spaced": "spaced_1_5"}


def _mutual(method: str) -> dict[str, str]:
    return _named(method) | {"interleaved": "interleaved"}


_TAUGHT = {
    "without": TEACHER,
    "method": "online",
    "spaced": "spaced_1_5",
    "labels": "baseline",
}
"""DLB and PS-KD train the teacher, and "w/o KD" is that teacher (paper A.3)."""

TABLE4 = Item(
    "table4",
    "Six other methods, as they are and with 1.5 epochs of space",
    {
        "without": Column("w/o KD"),
        "method": Column("the method"),
        "spaced": Column("spaced 1.5"),
        "interleaved": Column("both updates at once", control=True),
        "labels": Column("student on the labels", control=True),
    },
    (
        _method("BAN", _MODEL, "table4_ban", _named("ban")),
        _method(
            "BAN, third generation",
            _MODEL,
            "table4_ban_generations",
            {"without": "baseline", "method": "gen3"},
            paper="BAN",
            notes=("Each generation is a run of its own, so that none is spaced.",),
        ),
        _method("TAKD", _MODEL, "table4_takd", _named("takd")),
        _method(
            "TAKD, its own networks",
            "ResNet-8",
            "table4_takd",
            _named("takd"),
            variant="small",
            paper="TAKD",
            notes=("ResNet-110, 20 and 8, whose numbers the paper's are.",),
        ),
        _method("DML", _MODEL, "table4_dml", _mutual("dml")),
        _method(
            "DML, small",
            "ResNet-32",
            "table4_dml",
            _mutual("dml"),
            variant="small",
            paper="DML",
        ),
        _method("SHAKE", _MODEL, "table4_shake", _mutual("shake")),
        _method(
            "SHAKE, small",
            "ResNet-20",
            "table4_shake",
            _mutual("shake"),
            variant="small",
            paper="SHAKE",
            notes=("Taught by a ResNet-56.",),
        ),
        _method("DLB", _MODEL, "table4_dlb", _TAUGHT),
        _method("PSKD", _MODEL, "table4_ps_kd", _TAUGHT),
    ),
    (("spaced", "method"), ("spaced", "interleaved"), ("method", "without")),
    (
        "Ours are all trained by the recipe of Table 1 and the paper's by six others, "
        "so that only differences within a row compare.",
        "In the rows DLB and PSKD 'w/o KD' is the teacher, which the method trains, as "
        "in the paper; an equal student on the labels alone stands beside it.",
        "Spaced DML and SHAKE train their two networks in turns; 'both updates at "
        "once' does so without the space.",
    ),
)
