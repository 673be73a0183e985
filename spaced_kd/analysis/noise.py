"""Loss and accuracy under Gaussian noise on the parameters (paper Figure 4).

A network in a flat minimum should lose less. The paper (5.4) gives neither the levels
of the noise nor which tensors get it. Here every trainable tensor of the network does;
the method's adaptor and BatchNorm's running statistics stay as they are.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from spaced_kd import registry
from spaced_kd.analysis import directions, grids, profiles, scores
from spaced_kd.analysis.base import Analysis, Column, Drawn, Found, Values
from spaced_kd.analysis.profiles import Profile
from spaced_kd.analysis.scores import METRICS, Scores
from spaced_kd.analysis.subject import Run, Subject
from spaced_kd.fields import option
from spaced_kd.spread import Spread
from spaced_kd.style import Look
from spaced_kd.tables import Table
from spaced_kd.types import Params, Split

Evaluate = Callable[[Params], Mapping[str, Scores]]
"""Parameters -> split -> scores."""

KINDS = {"absolute": "σ", "relative": "σ / rms of the tensor's weights"}
"""Kind of noise -> what its levels are."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Which noise, and on how many images it is measured."""

    kind: str = option(
        "both",
        "standard deviation of the noise: absolute (the same for all tensors), "
        "relative (in units of each tensor's root mean square), or both",
        choices=("absolute", "relative", "both"),
    )
    absolute: str = option(
        "0,0.002,0.004,0.006,0.008,0.01,0.012,0.014,0.016,0.018,0.02",
        "levels of absolute noise, >= 0, rising, separated by commas",
    )
    relative: str = option(
        "0,0.05,0.1,0.15,0.2,0.25,0.3,0.35,0.4,0.45,0.5",
        "levels of relative noise, >= 0, rising, separated by commas",
    )
    num_draws: int = option(5, "independent draws of the noise", low=1)
    splits: str = option(
        "train,test", "images: train, test, or both, separated by commas"
    )
    num_train_examples: int = option(
        1000, "class-balanced training images; 0: all", low=0
    )
    num_test_examples: int = option(1000, "class-balanced test images; 0: all", low=0)
    seed: int = option(0, "of the noise", low=0)

    def __post_init__(self):
        """Refuse levels and splits that cannot be, before anything is measured."""
        _levels(self)
        _splits(self)


def curves(
    evaluate: Evaluate,
    params: Params,
    clean: Mapping[str, Scores],
    sigmas: Sequence[float],
    noise: Iterable[Params],
) -> Values:
    """Return mean and standard deviation over draws, at each level of the noise.

    Args:
      evaluate: scores of parameters.
      params: the network's.
      clean: their scores without noise, which need no draw.
      sigmas: the levels.
      noise: the draws, each of standard deviation 1 in the levels' unit.

    Returns:
      {"sigma": [...], split: {"mean" and "std": {"loss": [...], "acc1": [...]}}}. No
      mean where a draw's loss is not finite; std is of the sample, 0 for one draw.
    """
    drawn = [
        [evaluate(directions.moved(params, unit, s)) if s else clean for s in sigmas]
        for unit in noise
    ]
    summary: Values = {"sigma": list(sigmas)}
    for split in drawn[0][0]:
        values: Values = {"mean": {}, "std": {}}
        for metric in METRICS:
            by_draw = [[at[split][metric] for at in one] for one in drawn]
            spreads = [Spread.of(column) for column in zip(*by_draw, strict=True)]
            values["mean"][metric] = [spread.mean for spread in spreads]
            values["std"][metric] = [spread.std or 0.0 for spread in spreads]
        summary[split] = values
    return summary


def check(run: Run, options: Options) -> None:
    """Read the images: too few for the classes are a ConfigError."""
    _images(run, options)


def measure(subject: Subject, options: Options) -> Values:
    """Return the scores without noise ("clean"), and `curves` by kind of noise."""
    images = _images(subject.run, options)

    def evaluate(params: Params) -> Mapping[str, Scores]:
        return {
            name: scores.of_params(subject, params, split)
            for name, split in images.items()
        }

    params = subject.run.group.put(subject.variables["params"])
    found: Values = {"clean": evaluate(params)}
    for kind, sigmas in _levels(options).items():
        draws = range(options.num_draws)
        units = (directions.gaussian((options.seed, k), params) for k in draws)
        if kind == "relative":
            units = (directions.in_units_of_rms(unit, params) for unit in units)
        found[kind] = curves(evaluate, params, found["clean"], sigmas, units)
    return found


def _images(run: Run, options: Options) -> dict[str, Split]:
    return {
        name: run.split(name, count, f"--options.noise.num_{name}_examples")
        for name, count in _splits(options).items()
    }


def _levels(options: Options) -> dict[str, list[float]]:
    return {
        kind: grids.rising(getattr(options, kind), f"--options.noise.{kind}")
        for kind in KINDS
        if options.kind in (kind, "both")
    }


def _splits(options: Options) -> dict[str, int]:
    counts = {"train": options.num_train_examples, "test": options.num_test_examples}
    names = [name.strip() for name in options.splits.split(",")]
    return {
        name: registry.lookup(counts, name, "--options.noise.splits") for name in names
    }


def table(found: Found) -> Table | None:
    """Return by how many points accuracy drops at a middle level and at the highest."""
    if not found.rows:
        return None
    options = Options(**found.options)
    blocks = {split: _columns(options, split) for split in _splits(options)}
    rows = [row for s, columns in blocks.items() for row in found.block(columns, s)]
    notes = (
        "Points lost: how much lower the accuracy is with this noise, a middle level "
        "and the highest; mean of the draws. Means and standard deviations are over "
        "seeds; differences are paired by seed and by the noise itself, from three "
        "seeds on with Student's 95 % interval.",
    )
    shown = (column.title for column in next(iter(blocks.values())))
    return Table(("network", "images", *shown), tuple(rows), notes)


def _columns(options: Options, split: str) -> list[Column]:
    clean = Column("accuracy\n%, no noise", lambda v: v["clean"][split]["acc1"])
    return [clean] + [
        Column(f"points lost\nσ={sigmas[place]:g} {kind}", _drop(kind, split, place))
        for kind, sigmas in _levels(options).items()
        for place in sorted({len(sigmas) // 2, len(sigmas) - 1})
    ]


def _drop(kind: str, split: str, place: int) -> Callable[[Values], float | None]:
    def drop(values: Values) -> float:
        noisy = values[kind][split]["mean"]["acc1"][place]
        return values["clean"][split]["acc1"] - noisy

    return drop


def figures(found: Found, looks: Mapping[str, Look]) -> list[Drawn]:
    """Draw accuracy and loss over the level, a figure for each kind and split."""
    if not found.rows:
        return []
    options = Options(**found.options)
    over = "seeds" if _has_seeds(found) else "draws of the noise"
    return [
        (
            f"noise_{kind}_{split}",
            f"Accuracy and loss under {kind} Gaussian noise on the parameters, "
            f"{split} images; bands: one standard deviation over {over}",
            _figure(found, looks, kind, split),
        )
        for kind in _levels(options)
        for split in _splits(options)
    ]


def _has_seeds(found: Found) -> bool:
    return len({row.seed for row in found.rows}) > 1


def _figure(found: Found, looks: Mapping[str, Look], kind: str, split: str) -> Figure:
    curves = {name: _profile(found, name, kind, split) for name in found.networks}
    sigmas = _levels(Options(**found.options))[kind]
    return profiles.figure(sigmas, curves, looks, KINDS[kind])


def _profile(found: Found, network: str, kind: str, split: str) -> Profile:
    own = profiles.over_seeds(found, network, lambda v: v[kind][split]["mean"])
    if _has_seeds(found):
        return own
    only = next(row for row in found.last if row.network == network)
    std = only.values[kind][split]["std"]
    return {
        metric: [
            dataclasses.replace(mean, std=of_draws)
            for mean, of_draws in zip(own[metric], std[metric], strict=True)
        ]
        for metric in own
    }


ANALYSIS = Analysis(
    title="Noise on the parameters",
    about=(
        "Gaussian noise is added to every trainable tensor of the network (paper "
        "Figure 4), not to the distillation method's own parameters nor to "
        "BatchNorm's running statistics, which are not estimated again; then loss and "
        "accuracy are measured in eval mode on un-augmented images. Absolute noise "
        "has the same standard deviation σ everywhere, relative noise σ times the "
        "root mean square of each tensor's weights. A draw is the same for all levels "
        "and for all networks of one architecture. The paper does not say which "
        "levels, tensors or mode it uses."
    ),
    options=Options,
    measure=measure,
    table=table,
    figures=figures,
    check=check,
)
