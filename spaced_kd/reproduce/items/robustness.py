"""Tables 5, 12 and 13, Figures 4 and 6: noise on weights and images, attacks."""

from collections.abc import Iterable, Sequence

from spaced_kd.analysis.attacks.options import Options as AttackOptions
from spaced_kd.analysis.noise import KINDS
from spaced_kd.analysis.noise import Options as NoiseOptions
from spaced_kd.analysis.scores import METRICS
from spaced_kd.corruption import PAPER
from spaced_kd.reproduce.items.base import Column, Item, Measure, Place, Row

_RUNS = {
    "ResNet-18": "paper/table1_resnet18_cifar100",
    "ResNet-50": "paper/table1_resnet50_cifar100",
    "ResNet-101": "paper/table1_resnet101_cifar100",
}
"""The networks of Table 1 whose robustness the paper measures, at CIFAR-100."""

_COMPARED = {"online": "online", "spaced": "spaced_1_5"}
_PAIR = {"online": Column("online KD"), "spaced": Column("spaced 1.5")}

# Published corrupted sets have other constants than the paper's.
_OWN_IMAGES = (("source", "own"),)


def _places(
    model: str, analysis: str, measure: Measure, options=()
) -> dict[str, Place]:
    return {
        column: Place(
            _RUNS[model], network, analysis=analysis, options=options, measure=measure
        )
        for column, network in _COMPARED.items()
    }


def _corrupted(name: str, severity: int, model: str) -> Row:
    places = {}
    for kind, suffix in (("accuracy", ""), ("relative", "_relative")):
        measure = Measure((kind, name, str(severity)))
        of = _places(model, "corruptions", measure, _OWN_IMAGES)
        places |= {f"{column}{suffix}": place for column, place in of.items()}
    what = f"{name} {severity}"
    return Row(f"{what} / {model}", what, model, places)


def _corruptions(name: str, title: str, severities: Sequence[int]) -> Item:
    return Item(
        name,
        title,
        _PAIR
        | {
            "online_relative": Column("online KD, % of clean", control=True),
            "spaced_relative": Column("spaced 1.5, % of clean", control=True),
        },
        tuple(
            _corrupted(corruption, severity, model)
            for corruption in PAPER
            for severity in severities
            for model in _RUNS
        ),
        (("spaced", "online"), ("spaced_relative", "online_relative")),
        (
            "In percent of the accuracy on clean images a network that is better "
            "everywhere is not more robust.",
            "Frost takes photographs; without them, textures of our own.",
        ),
    )


TABLE5 = _corruptions("table5", "Corrupted test images, severity 1", (1,))
TABLE12 = _corruptions("table12", "Corrupted test images, severities 3 and 5", (3, 5))

_RADII = AttackOptions().radii[:-1]  # the last one checks the attack


def _attacked(model: str, eps: float) -> Row:
    measure = Measure(("curves", "bim", "acc1"), ("eps",), eps)
    places = _places(model, "attacks", measure)
    label = f"{model}, eps {eps:g}/255"
    return Row(label, "CIFAR-100", model, places, paper=model, panel=model, x=eps)


TABLE13 = Item(
    "table13",
    "Accuracy under BIM",
    _PAIR,
    tuple(_attacked(model, eps) for model in _RUNS for eps in _RADII),
    (("spaced", "online"),),
    (
        "The paper gives neither eps nor steps: its one number a network stands beside "
        "every eps of ours, of which those near it may be its own.",
        "Steps of eps / 4, 10 of them, within pixels of [0, 1].",
    ),
    axis="eps, 1/255",
)


def _noisy(model: str, kind: str, metric: str, sigmas: Iterable[float]) -> list[Row]:
    panel = f"{model}, {METRICS[metric]}, {kind} noise"
    return [
        Row(
            f"{panel}, σ {sigma:g}",
            "CIFAR-100, training images",
            model,
            _places(
                model,
                "noise",
                Measure((kind, "train", "mean", metric), (kind, "sigma"), sigma),
            ),
            panel=panel,
            x=sigma,
            unit="%" if metric == "acc1" else "nats",
        )
        for sigma in sigmas
    ]


def _levels(kind: str) -> list[float]:
    return [float(level) for level in getattr(NoiseOptions(), kind).split(",")]


FIGURE4 = Item(
    "figure4",
    "Training images under Gaussian noise on the parameters",
    _PAIR,
    tuple(
        point
        for kind in KINDS
        for model in _RUNS
        for metric in METRICS
        for point in _noisy(model, kind, metric, _levels(kind))
    ),
    (("spaced", "online"),),
    (
        "The text gives no numbers, levels or tensors: every trainable tensor gets the "
        "noise, absolute or relative to its own root mean square.",
    ),
    kind="figure",
    axis="σ",
)

_SEVERITIES = (1, 3, 5)


def _shown(name: str) -> Row:
    pictures = {"clean": "clean"} | {
        f"severity_{level}": f"{name}/{level}" for level in _SEVERITIES
    }
    places = {
        column: Place(
            _RUNS["ResNet-18"],
            _COMPARED["online"],
            analysis="corruptions",
            options=_OWN_IMAGES,
            measure=Measure(("pictures", picture), once=True),
        )
        for column, picture in pictures.items()
    }
    return Row(name, "CIFAR-100", "", places)


FIGURE6 = Item(
    "figure6",
    "The corruptions on one test image",
    {"clean": Column("clean")}
    | {f"severity_{level}": Column(f"severity {level}") for level in _SEVERITIES},
    tuple(_shown(name) for name in PAPER),
    (),
    kind="figure",
    unit="picture",
)
