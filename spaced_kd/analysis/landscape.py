"""Loss and accuracy along random directions of the filters' own length.

Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018. In units of
the filters' length a slice does not depend on their scale, which BatchNorm makes
arbitrary, so that networks can be compared.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from spaced_kd.analysis import contours, directions, profiles, scores
from spaced_kd.analysis.base import Analysis, Column, Drawn, Found, Values
from spaced_kd.analysis.scores import METRICS, Scores
from spaced_kd.analysis.subject import Run, Subject
from spaced_kd.errors import ConfigError
from spaced_kd.fields import option
from spaced_kd.style import Look
from spaced_kd.tables import Table
from spaced_kd.types import Params, Split

Evaluate = Callable[[Params], Scores]

SHARES = (0.25, 0.5, 1.0)
"""Of the range: the table has the points of the line that are nearest to these."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Where the loss is measured, and on how many images."""

    dims: str = option(
        "both",
        "1: along one direction, 2: over the plane of it and another, or both",
        choices=("1", "2", "both"),
    )
    range: float = option(
        1.0, "farthest distance, in lengths of the network's filters", above=0.0
    )
    line_points: int = option(
        21,
        "points of the line, from -range to range; odd, for one in the middle",
        low=3,
    )
    plane_points: int = option(11, "points of each side of the plane; odd", low=3)
    num_examples: int = option(
        500, "class-balanced training images, un-augmented; 0: all", low=0
    )
    seed: int = option(0, "of the directions", low=0)

    def __post_init__(self):
        """Refuse even numbers of points, which have none at the weights themselves."""
        for name in ("line_points", "plane_points"):
            count = getattr(self, name)
            if count % 2 == 0:
                raise ConfigError(
                    f"--options.landscape.{name}={count} is even, so that no point is "
                    f"at the weights; give an odd number, e.g. {count + 1}."
                )


def line(
    evaluate: Evaluate, params: Params, direction: Params, places: Sequence[float]
) -> Values:
    """Return scores at params + place * direction.

    Args:
      evaluate: scores of parameters.
      params: the network's.
      direction: as they are.
      places: multiples of it.

    Returns:
      {"at": places, "loss": [...], "acc1": [...]}.
    """
    found = [evaluate(directions.moved(params, direction, at)) for at in places]
    return {"at": list(places)} | {m: [one[m] for one in found] for m in METRICS}


def plane(
    evaluate: Evaluate,
    params: Params,
    first: Params,
    second: Params,
    places: Sequence[float],
) -> Values:
    """Return scores at params + x * first + y * second.

    Arguments as for `line`.

    Returns:
      {"at": places, "loss": [y][x], "acc1": [y][x]}.
    """
    rows = [
        line(evaluate, directions.moved(params, second, y), first, places)
        for y in places
    ]
    return {"at": list(places)} | {m: [row[m] for row in rows] for m in METRICS}


def check(run: Run, options: Options) -> None:
    """Read the images: too few for the classes are a ConfigError."""
    _images(run, options)


def measure(subject: Subject, options: Options) -> Values:
    """Return the `line` and the `plane` that the options ask for."""
    split = _images(subject.run, options)
    params = subject.run.group.put(subject.variables["params"])
    evaluate = lambda moved: scores.of_params(subject, moved, split)
    first, second = (
        directions.filter_normalised(
            directions.gaussian((options.seed, k), params), params
        )
        for k in range(2)
    )
    found: Values = {"centre": evaluate(params)}
    if options.dims != "2":
        places = _places(options.range, options.line_points)
        found["line"] = line(evaluate, params, first, places)
    if options.dims != "1":
        places = _places(options.range, options.plane_points)
        found["plane"] = plane(evaluate, params, first, second, places)
    return found


def _images(run: Run, options: Options) -> Split:
    field = "--options.landscape.num_examples"
    return run.split("train", options.num_examples, field)


def _places(most: float, count: int) -> list[float]:
    return np.linspace(-most, most, count).tolist()


def table(found: Found) -> Table | None:
    """Return the loss at the weights, and its rise with the distance from them."""
    if not found.rows:
        return None
    columns = _columns(found.options)
    titles = ("network", *(column.title for column in columns))
    return Table(titles, tuple(found.block(columns)), (_TABLE_NOTE,))


_TABLE_NOTE = (
    "Rise: by how many nats the loss is higher at a distance from the weights, mean of "
    "the two sides of the line, or mean over the square (trapezoidal rule). Means and "
    "standard deviations are over seeds; differences are paired by seed and by the "
    "directions, from three seeds on with Student's 95 % interval."
)


def _columns(options: Mapping[str, Any]) -> list[Column]:
    columns = [
        Column("loss\nnats", lambda values: values["centre"]["loss"]),
        Column("accuracy\n%", lambda values: values["centre"]["acc1"]),
    ]
    if options["dims"] != "2":
        for place, distance in _shown(options["range"], options["line_points"]):
            columns.append(Column(f"rise at\n{distance:g}", _rise_at(place)))
    if options["dims"] != "1":
        columns.append(Column("mean rise\nin the plane", mean_rise))
    return columns


def _shown(most: float, count: int) -> list[tuple[int, float]]:
    """Return places of the line, other than its middle, and how far off they are."""
    far = {k: at for k, at in enumerate(_places(most, count)) if at > 0}
    nearest = {min(far, key=lambda k: abs(far[k] - s * most)) for s in SHARES}
    return [(k, far[k]) for k in sorted(nearest)]


def _rise_at(place: int) -> Callable[[Values], float | None]:
    """Return the mean rise at a place of the line and at its mirror image."""

    def rise(values: Values) -> float | None:
        centre, *along = profiles.numbers(
            [values["centre"]["loss"], *values["line"]["loss"]]
        )
        return scores.finite((along[place] + along[-1 - place]) / 2 - centre)

    return rise


def mean_rise(values: Values) -> float | None:
    """Return the mean rise of the loss over the plane, by the trapezoidal rule.

    A point on an edge stands for half as much of the square as one inside, a corner for
    a quarter. In nats; None where a loss is not finite.
    """
    at = values["plane"]["at"]
    losses = np.array([profiles.numbers(row) for row in values["plane"]["loss"]])
    (centre,) = profiles.numbers([values["centre"]["loss"]])
    volume = np.trapezoid(np.trapezoid(losses, at), at)
    return scores.finite(volume / (at[-1] - at[0]) ** 2 - centre)


def figures(found: Found, looks: Mapping[str, Look]) -> list[Drawn]:
    """Draw the lines of all networks in one figure, and their planes side by side."""
    if not found.rows:
        return []
    drawn: list[Drawn] = []
    if found.options["dims"] != "2":
        drawn.append(_lines(found, looks))
    if found.options["dims"] != "1":
        drawn.append(_planes(found))
    return drawn


def _lines(found: Found, looks: Mapping[str, Look]) -> Drawn:
    bands = {
        name: profiles.over_seeds(found, name, lambda values: values["line"])
        for name in found.networks
    }
    caption = (
        "Accuracy and loss along a random direction of the filters' own length, "
        "training images; bands: one standard deviation over seeds"
    )
    at = _places(found.options["range"], found.options["line_points"])
    return "landscape_line", caption, profiles.figure(at, bands, looks, _DISTANCE)


def _planes(found: Found) -> Drawn:
    seed = min(row.seed for row in found.last)
    planes = {
        row.network: row.values["plane"] for row in found.last if row.seed == seed
    }
    caption = (
        "Cross-entropy over the plane of two random directions of the filters' own "
        f"length, training images, nats; repetition with seed {seed}"
    )
    figure = contours.figure(planes, "lengths of the filters")
    return "landscape_plane", caption, figure


_DISTANCE = "distance, in lengths of the filters"

ANALYSIS = Analysis(
    title="Loss landscape",
    about=(
        "Loss and accuracy where the weights are moved along random Gaussian "
        "directions, each filter of which is as long as the network's own filter (Li "
        "et al., NeurIPS 2018): an output channel of a convolution, a column of a "
        "linear layer; a token or a table of positions counts as one filter. Biases "
        "and the scales of normalisation layers stand still, as in the published "
        "plots. Eval mode with the running statistics, on un-augmented training "
        "images. All networks of one architecture are moved along the same random "
        "numbers."
    ),
    options=Options,
    measure=measure,
    table=table,
    figures=figures,
    check=check,
)
