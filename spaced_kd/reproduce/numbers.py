"""The number behind each place, out of the workdirs of its runs and nothing else.

Only a finished run gives numbers; one that failed or goes on gives its state.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

from spaced_kd import provenance, results
from spaced_kd.analysis.base import Found
from spaced_kd.provenance import Provenance
from spaced_kd.report import analyses
from spaced_kd.reproduce import readings
from spaced_kd.reproduce.items import Item, Place
from spaced_kd.reproduce.planner import Plan, Spot
from spaced_kd.results import Results
from spaced_kd.spread import Spread
from spaced_kd.sweep import state as states_lib
from spaced_kd.sweep.state import State
from spaced_kd.writers import Row, read_json

METRICS = {
    "last": "acc1_last",
    "mean5": "acc1_mean_last5",
    "best": "acc1_best",
}
"""Which accuracy is quoted -> its field in `results`."""

_WORST_FIRST = ("failed", "unfinished", "running")


@dataclasses.dataclass(frozen=True)
class Number:
    """What one place holds.

    status: as of `sweep.state`. by_seed: seed -> value; {} unless finished; None where
    a value is not finite. spots: the runs. error: of a failed one. updates,
    forward_passes, backward_passes: of one seed's training, in batches. picture: a PNG,
    of a place that means one instead of numbers.
    """

    status: str
    by_seed: Mapping[int, float | None]
    spots: tuple[Spot, ...]
    error: str = ""
    updates: float | None = None
    forward_passes: float | None = None
    backward_passes: float | None = None
    picture: bytes | None = None

    @property
    def spread(self) -> Spread:
        """Mean and standard deviation over the seeds."""
        return Spread.of(list(self.by_seed.values()))

    @property
    def passes(self) -> float | None:
        """Training in forward passes over a batch, a backward one counted as two."""
        if self.forward_passes is None or self.backward_passes is None:
            return None
        return self.forward_passes + 2 * self.backward_passes


def read(
    plan: Plan, states: Iterable[State], runs: "Runs", metric: str
) -> dict[Place, Number]:
    """Return the number of every place of a plan.

    Args:
      plan: of the tables.
      states: of its jobs.
      runs: where the finished ones are read.
      metric: a key of `METRICS`, for accuracies at the end of training.
    """
    by_job = {state.job.name: state for state in states}
    return {
        place: _number(place, spots, by_job, runs, metric)
        for place, spots in plan.spots.items()
    }


class Runs:
    """The finished runs below a folder, each read once: they change no more."""

    def __init__(self, root: Path):
        """Read nothing yet; `root` is where the jobs' runs lie."""
        self._root = root
        self._read: dict[str, Finished] = {}

    def __getitem__(self, job: str) -> "Finished":
        """Return a run by the name of its job."""
        if job not in self._read:
            self._read[job] = Finished(states_lib.folder(self._root, job))
        return self._read[job]


def shared_with(item: Item, numbers: Mapping[Place, Number]) -> dict[str, str]:
    """Return label -> label of an earlier row that has the very same numbers.

    At a small budget rows that differ in data and networks alone are the same runs.
    """
    first: dict[tuple, str] = {}
    found = {}
    for row in item.rows:
        key = tuple((c, what(p, numbers[p])) for c, p in row.places.items())
        earlier = first.setdefault(key, row.label)
        if earlier != row.label:
            found[row.label] = earlier
    return found


def what(place: Place, number: Number) -> tuple:
    """Return what a number is of, whichever row shows it."""
    return number.spots, place.share, place.exit, place.analysis, place.measure


class Finished:
    """A finished run; each of its files is read when first asked for."""

    def __init__(self, workdir: Path):
        """Read nothing yet."""
        self._workdir = workdir

    @functools.cached_property
    def results(self) -> Results:
        """The final numbers."""
        return results.load(self._workdir)

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The evaluations along training."""
        return readings.evaluations(self._workdir)

    @functools.cached_property
    def analyses(self) -> dict[str, Found]:
        """What was found in its networks, by analysis."""
        described = read_json(self._workdir / "config.json")
        plan = read_json(self._workdir / "plan.json")
        return analyses.read(self._workdir, described, plan)

    @functools.cached_property
    def provenance(self) -> Provenance:
        """Where its numbers are from."""
        return provenance.of(self._workdir)


def _number(
    place: Place,
    spots: tuple[Spot, ...],
    states: Mapping[str, State],
    runs: Runs,
    metric: str,
) -> Number:
    for status in _WORST_FIRST:
        for spot in spots:
            if states[spot.job].status == status:
                return Number(status, {}, spots, states[spot.job].error)
    if place.analysis and not all(
        place.analysis in runs[s.job].analyses for s in spots
    ):
        return Number("unfinished", {}, spots)
    if place.measure is not None and place.measure.once:
        found = runs[spots[0].job].analyses[place.analysis]
        picture = readings.picture_of(found, place.measure)
        return Number("finished", {}, spots, picture=picture)
    values: dict[int, float | None] = {}
    for spot in spots:
        values |= _values(place, spot, runs[spot.job], metric)
    if place.share < 1.0:
        return Number("finished", values, spots)  # what is spent is of the whole run
    nets = [runs[spot.job].results.networks[spot.network] for spot in spots]
    return Number(
        "finished",
        values,
        spots,
        "",
        fmean(net.updates for net in nets),
        fmean(net.forward_passes for net in nets),
        fmean(net.backward_passes for net in nets),
    )


def _values(
    place: Place, spot: Spot, run: Finished, metric: str
) -> dict[int, float | None]:
    if place.analysis:
        assert place.measure is not None
        found = run.analyses[place.analysis]
        return readings.by_seed(found, spot.network, place.measure)
    net = run.results.networks[spot.network]
    if place.share < 1.0:
        return readings.accuracy_at(
            run.rows, spot.network, net.updates, place.share, place.exit
        )
    shown = net.exits[place.exit] if place.exit else net
    spread: Spread = getattr(shown, METRICS[metric])
    return dict(zip(net.seeds, spread.per_seed, strict=True))
