"""Table, notes and figures of the analysis `attacks`."""

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from spaced_kd import style
from spaced_kd.analysis.attacks.masking import Check
from spaced_kd.analysis.attacks.options import Options
from spaced_kd.analysis.base import Column, Drawn, Found, Values
from spaced_kd.analysis.profiles import numbers
from spaced_kd.spread import Spread
from spaced_kd.style import Look
from spaced_kd.tables import Table

PAPER_ACC1 = 31.33
"""Percent that BIM leaves of ResNet-18 without spacing on CIFAR-100 (Table 13)."""

_Value = Callable[[Values], float]


def table(found: Found) -> Table | None:
    """Return accuracy at every eps, differences to the references, failed checks."""
    if not found.rows:
        return None
    options = Options(**found.options)
    near = _nearest(found, options)
    rows = []
    for attack in options.names:
        columns = _columns(options, attack, near)
        rows += found.block(columns, attack)
    titles = ["network", "attack", *(column.title for column in columns)]
    notes = [_description(found, options)]
    if near is not None:
        notes.append(
            "* The paper gives no eps. Where BIM leaves nearest to its "
            f"{PAPER_ACC1} % (ResNet-18 without spacing)."
        )
    return Table(tuple(titles), tuple(rows), (*notes, *_verdict(found)))


def _columns(options: Options, attack: str, near: int | None) -> list[Column]:
    columns = [Column("clean\nacc1 %", _clean)]
    for place, eps in enumerate(options.radii[:-1]):
        title = f"eps {eps:g}/255{' *' * (place == near)}\nacc1 %"
        columns.append(Column(title, _at(attack, place)))
    return columns


def _clean(values: Values) -> float:
    return values["clean"]["acc1"]


def _at(attack: str, place: int) -> _Value:
    return lambda values: values["curves"][attack]["acc1"][place]


def _nearest(found: Found, options: Options) -> int | None:
    """Return where the references, else all students, come nearest to the paper.

    None where they do not, or not from above: other data, or weaker networks.
    """
    students = [name for name in found.networks if name != "teacher"]
    names = found.references or students
    comparable = found.config["data"]["name"] == "cifar100" and names
    if not comparable or "bim" not in options.names:
        return None

    def mean(value: _Value) -> float | None:
        return Spread.of([found.spread(name, value).mean for name in names]).mean

    def distance(place: int) -> float:
        accuracy = mean(_at("bim", place))
        return math.inf if accuracy is None else abs(accuracy - PAPER_ACC1)

    clean = mean(_clean)
    if clean is None or clean < PAPER_ACC1:
        return None
    return min(range(len(options.radii) - 1), key=distance)


def _description(found: Found, options: Options) -> str:
    words = [f"{found.rows[0].values['num_examples']} test images"]
    many = [name for name in options.names if name != "fgsm"]
    unit = " eps" if options.step_rule == "share" else "/255"
    if many:
        length = f"{options.step_size:g}{unit}"
        words.append(f"{' and '.join(many)}: {options.steps} steps of {length}")
    if "pgd" in many:
        words.append(f"random starts of pgd: {options.restarts}")
    if _has_seeds(found):
        words.append("mean ± standard deviation over seeds")
    return "; ".join(words) + "."


def _has_seeds(found: Found) -> bool:
    return len({row.seed for row in found.rows}) > 1


def _verdict(found: Found) -> list[str]:
    """Return the checks that failed, each in a line, or that none did."""
    count, failed = 0, []
    for row in found.last:
        for attack, checks in row.values["checks"].items():
            for name, fields in checks.items():
                check = Check(**fields)
                count += 1
                if not check.passed:
                    whose = f"{row.network}, seed {row.seed}, {attack}"
                    failed.append(f"CHECK FAILED: {whose}: {check.sentence(name)}.")
    if failed:
        return [*failed, "Where a check fails, accuracy under attack is no robustness."]
    return [f"No sign of gradient masking: all {count} checks passed."]


def figures(found: Found, looks: Mapping[str, Look]) -> Sequence[Drawn]:
    """Draw accuracy over eps, a figure an attack."""
    options = Options(**found.options)
    bands = "; bands: one standard deviation over seeds" if _has_seeds(found) else ""
    return [
        (
            f"attacks_{attack}",
            f"Accuracy under {attack.upper()} over eps; thin: under random signs of "
            f"the same size{bands}",
            _figure(found, looks, options, attack) if found.rows else None,
        )
        for attack in options.names
    ]


def _figure(
    found: Found, looks: Mapping[str, Look], options: Options, attack: str
) -> Figure:
    names = [name for name in looks if name in found.networks]
    drawn, axes = style.panel(names=names)
    for name in names:
        noise = numbers(s.mean for s in _spreads(found, options, name, "noise"))
        axes.plot(options.radii, noise, linewidth=0.6, **looks[name])
        look = looks[name] | {"marker": "o", "markersize": 2.5}
        style.band(axes, options.radii, _spreads(found, options, name, attack), look)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(options.radii))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("eps, 1/255")
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(bottom=0)
    style.legend(drawn, dict(looks), names)
    return drawn


def _spreads(found: Found, options: Options, network: str, attack: str) -> list[Spread]:
    places = range(len(options.radii))
    return [found.spread(network, _at(attack, place)) for place in places]
