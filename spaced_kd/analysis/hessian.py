"""The analysis `hessian`: how sharply a network's loss curves about its weights."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from spaced_kd import registry
from spaced_kd.analysis import curvature, hessian_report, objectives, spectrum
from spaced_kd.analysis.base import Analysis, Values, taught_by
from spaced_kd.analysis.curvature import PROBES, Risk, Trace
from spaced_kd.analysis.subject import Run, Subject
from spaced_kd.errors import ConfigError
from spaced_kd.fields import option
from spaced_kd.types import Split

_AT = "--options.hessian"

EXACT_AT_MOST = 20_000
"""Parameters up to which the exact trace is taken, by one product for each."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Which losses, on how much data, and how well they are estimated."""

    losses: str = option(
        "ce,kd",
        "losses, comma-separated: ce (cross-entropy), kd (the student's mixture of "
        "cross-entropy and soft loss, against its teacher), mse (half the squared "
        "distance of the logits to the label's unit vector)",
    )
    split: str = option("train", "images, un-augmented", choices=("train", "test"))
    num_examples: int = option(1000, "class-balanced examples; 0: all", low=0)
    chunk_size: int = option(
        100, "examples at once, all devices together; changes memory, not values", low=1
    )
    estimator: str = option(
        "hutchinson",
        "of the trace: hutchinson, hutch++ (better where few eigenvalues are large, "
        "and more memory), or exact (a product for each parameter, at most "
        f"{EXACT_AT_MOST:,})",
        choices=("hutchinson", "hutch++", "exact"),
    )
    num_probes: int = option(
        10,
        "random vectors, each a product with the Hessian (hutch++: three)",
        low=1,
    )
    probe: str = option(
        "rademacher", "entries of a random vector", choices=tuple(PROBES)
    )
    layers: str = option(
        "yes", "also the trace of each parameter's own block", choices=("yes", "no")
    )
    num_eigenvalues: int = option(0, "largest eigenvalues; 0: none", low=0)
    density_probes: int = option(
        0, "Lanczos iterations that the density of eigenvalues is the mean of", low=0
    )
    depth: int = option(
        30, "steps of a Lanczos iteration, each a product with the Hessian", low=1
    )
    seed: int = option(
        0, "of the random vectors, the same for all networks of a repetition", low=0
    )


def _measure(subject: Subject, options: Options) -> Values | None:
    applying = _applying(subject, options)
    if not applying:
        return None
    split = _images(subject.run, options)
    key = jax.random.fold_in(jax.random.key(options.seed), subject.seed)
    found = {}
    for name in applying:
        risk = objectives.risk_of(subject, name, split, options.chunk_size)
        trace = trace_of(risk, key, options)
        found[name] = _of_trace(trace, options)
        if math.isfinite(trace.mean):
            found[name] |= _of_spectrum(risk, key, options)
    return {
        "parameters": _size(subject),
        "examples": len(split.label),
        "losses": found,
    }


def _losses(options: Options) -> list[str]:
    return [name.strip() for name in options.losses.split(",")]


def _applying(subject: Subject, options: Options) -> list[str]:
    return [name for name in _losses(options) if objectives.applies(name, subject)]


def _images(run: Run, options: Options) -> Split:
    return run.split(options.split, options.num_examples, f"{_AT}.num_examples")


def _size(subject: Subject) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(subject.variables["params"]))


def _check(run: Run, options: Options) -> None:
    for name in _losses(options):
        registry.lookup(objectives.LOSSES, name, f"{_AT}.losses")
    if options.num_eigenvalues > options.depth:
        raise ConfigError(
            f"{_AT}.num_eigenvalues={options.num_eigenvalues} is more than "
            f"{_AT}.depth={options.depth} Lanczos steps can give; set depth to two or "
            "three times as many."
        )
    if options.estimator == "exact":
        for name in run.names:
            _check_exact(run.subject(name, run.seeds[0]), options)
    _images(run, options)


def _check_exact(subject: Subject, options: Options) -> None:
    size = _size(subject)
    if size > EXACT_AT_MOST and _applying(subject, options):
        raise ConfigError(
            f"{_AT}.estimator='exact' takes a product for each parameter, at most "
            f"{EXACT_AT_MOST:,}, and {subject.name} has {size:,}; give hutchinson or "
            "hutch++."
        )


def _beside(subject: Subject, options: Options) -> Sequence[Subject]:
    return taught_by(subject, options) if "kd" in _losses(options) else ()


def trace_of(risk: Risk, key: jax.Array, options: Options) -> Trace:
    """Return the trace as the options ask for it."""
    if options.estimator == "exact":
        return curvature.exact_trace(risk)
    estimate = {
        "hutchinson": curvature.trace,
        "hutch++": spectrum.hutch_plus_plus,
    }[options.estimator]
    return estimate(risk, key, num_probes=options.num_probes, probe=options.probe)


def _of_trace(trace: Trace, options: Options) -> dict[str, Any]:
    values = {"trace": trace.mean, "standard_error": trace.standard_error}
    if options.layers == "no":
        return values
    return values | {"layers": {n: layer.mean for n, layer in trace.layers.items()}}


def _of_spectrum(risk: Risk, key: jax.Array, options: Options) -> dict[str, Any]:
    count = max(options.density_probes, min(options.num_eigenvalues, 1))
    if not count:
        return {}
    runs = spectrum.lanczos(
        risk, key, depth=options.depth, num_starts=count, probe=options.probe
    )
    values: dict[str, Any] = {}
    if options.num_eigenvalues:
        # One iteration finds them as well as many.
        largest = slice(-1, -options.num_eigenvalues - 1, -1)
        values["eigenvalues"] = runs[0].values[largest].tolist()
        values["residuals"] = runs[0].residuals[largest].tolist()
        values["smallest_eigenvalue"] = float(runs[0].values[0])
    if options.density_probes:
        # Enough to draw the density on any grid.
        nodes, weights = spectrum.quadrature(runs)
        values |= {"nodes": nodes.tolist(), "weights": weights.tolist()}
    return values


ANALYSIS = Analysis(
    title="Curvature: the Hessian of the loss",
    about=(
        "The Hessian of the mean loss with respect to all parameters of a network, by "
        "exact Hessian-vector products over un-augmented images, in float32 and eval "
        "mode: BatchNorm uses its running averages, which stand still, and so does the "
        "teacher's. A smaller trace means a flatter minimum (paper Theorem 4.4, where "
        "the loss is a squared error of one output). The loss kd is the student's own "
        "mixture of cross-entropy and soft loss without the feature term, which is a "
        "norm over a batch and no mean over examples. Scaling weights before a "
        "BatchNorm, and its averages with them, changes the trace and not the "
        "function: compare networks of one architecture, trained alike."
    ),
    options=Options,
    measure=_measure,
    table=hessian_report.table,
    figures=hessian_report.figures,
    check=_check,
    beside=_beside,
)
