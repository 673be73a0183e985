"""Table and figures of the analysis `hessian`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.analysis import along, spectrum
from spaced_kd.analysis.base import Drawn, Found, Values
from spaced_kd.spread import Spread
from spaced_kd.style import Look
from spaced_kd.tables import Table

_GRID = 800
"""Points of a density's curve."""


def table(found: Found) -> Table | None:
    """Return traces and largest eigenvalues, and differences to the references."""
    if not found.rows:
        return None
    return Table(
        (
            *("network", "loss", "trace", "estimator's\nstandard error"),
            "largest\neigenvalue",
            *(f"trace minus\n{name}" for name in found.references),
        ),
        tuple(
            _row(found, network, loss)
            for loss in _losses(found)
            for network in found.networks
            if found.spread(network, along.at("losses", loss, "trace")).mean is not None
        ),
        _notes(found),
    )


def _losses(found: Found) -> list[str]:
    """Return the losses that were measured of any network, in the order asked for."""
    return list(dict.fromkeys(n for row in found.rows for n in row.values["losses"]))


def _row(found: Found, network: str, loss: str) -> tuple[str, ...]:
    at = lambda *path: along.at("losses", loss, *path)
    error = found.spread(network, at("standard_error")).mean
    differences = (
        ""
        if network in ("teacher", name)
        else f"{found.difference(network, name, at('trace')):.3g}"
        for name in found.references
    )
    return (
        network,
        loss,
        f"{found.spread(network, at('trace')):.3g}",
        "-" if error is None else f"{error:.2g}",
        f"{found.spread(network, _largest(loss)):.3g}",
        *differences,
    )


def _largest(loss: str):
    def take(values: Values) -> float | None:
        eigenvalues = values["losses"].get(loss, {}).get("eigenvalues")
        return eigenvalues[0] if eigenvalues else None

    return take


def _notes(found: Found) -> tuple[str, ...]:
    values, options = found.rows[0].values, found.options
    how = {
        "hutchinson": f"Hutchinson, {options['num_probes']} {options['probe']} probes",
        "hutch++": f"Hutch++, {3 * options['num_probes']} products",
        "exact": "exact, a product for each parameter",
    }[options["estimator"]]
    return (
        f"Mean ± standard deviation over seeds; {values['examples']:,} un-augmented "
        f"{options['split']} images; trace: {how}.",
        "Differences are paired by seed, with the same random vectors for both "
        "networks, and from three seeds on with Student's 95 % interval.",
    )


def figures(found: Found, looks: Mapping[str, Look]) -> Sequence[Drawn]:
    """Draw traces, blocks' traces and densities of each loss."""
    drawn: list[Drawn] = []
    for loss in _losses(found):
        panels = {loss: along.at("losses", loss, "trace")}
        trace = along.figure(found, looks, panels, f"trace of the Hessian, {loss}")
        told = f"loss {loss}, mean and standard deviation over seeds."
        drawn += [
            (f"hessian_trace_{loss}", f"Trace of the Hessian; {told}", trace),
            (
                f"hessian_layers_{loss}",
                "Trace of the Hessian's block of each part of the network, which add "
                f"up to the whole; {told}",
                _layers(found, looks, loss),
            ),
            (
                f"hessian_density_{loss}",
                "Density of the Hessian's eigenvalues by stochastic Lanczos "
                "quadrature, each smeared by 1 % of the range; loss "
                f"{loss}, mean over seeds.",
                _density(found, looks, loss),
            ),
        ]
    return drawn


def _layers(found: Found, looks: Mapping[str, Look], loss: str) -> Figure | None:
    blocks = {network: _by_module(found, network, loss) for network in found.networks}
    names = [network for network, own in blocks.items() if own]
    modules = list(dict.fromkeys(m for own in blocks.values() for m in own))
    if not names or not modules:
        return None
    figure, axes = style.panel((0.1 + 0.08 * len(names)) * len(modules) + 0.6, names)
    places = {module: place for place, module in enumerate(modules)}
    for name, shift in zip(names, np.linspace(-0.25, 0.25, len(names)), strict=True):
        own = blocks[name]
        axes.errorbar(
            np.array([spread.mean for spread in own.values()]),
            [places[module] + shift for module in own],
            xerr=[spread.std or 0.0 for spread in own.values()],
            fmt="o", markersize=4, capsize=2, color=looks[name]["color"],
        )  # fmt: skip
    axes.set_yticks(range(len(modules)), modules)
    axes.set_ylim(len(modules) - 0.5, -0.5)
    axes.set_xlabel(f"trace of the block, {loss}")
    style.legend(figure, dict(looks), names)
    return figure


def _by_module(found: Found, network: str, loss: str) -> dict[str, Spread]:
    """Return each top-level module's trace over seeds, of the last weights."""
    rows = [row.values for row in found.last if row.network == network]
    layers = [values["losses"].get(loss, {}).get("layers") for values in rows]
    if not all(own and None not in own.values() for own in layers):
        return {}
    sums = [_summed(own) for own in layers]
    return {module: Spread.of([own[module] for own in sums]) for module in sums[0]}


def _summed(layers: Mapping[str, float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for path, trace in layers.items():
        module = path.split("/")[0]
        sums[module] = sums.get(module, 0.0) + trace
    return sums


def _density(found: Found, looks: Mapping[str, Look], loss: str) -> Figure | None:
    measured = {
        network: list(_quadratures(found, network, loss)) for network in found.networks
    }
    names = [network for network, own in measured.items() if own]
    if not names:
        return None
    nodes = np.concatenate([nodes for own in measured.values() for nodes, _ in own])
    width = 0.01 * max(float(np.ptp(nodes)), 1e-12)
    grid = np.linspace(nodes.min() - 5 * width, nodes.max() + 5 * width, _GRID)
    figure, axes = style.panel(names=names)
    for name in names:
        curves = [spectrum.density(*own, grid, width) for own in measured[name]]
        axes.plot(grid, np.mean(curves, 0), **looks[name])
    # Down to a third of what a single eigenvalue of the largest network gives.
    most = max(row.values["parameters"] for row in found.rows)
    low, high = 0.3 / (most * width * np.sqrt(2 * np.pi)), 1 / width
    style.logarithmic(axes, high / low)
    axes.set_ylim(low, high)
    axes.set_xlabel(f"eigenvalue, {loss}")
    axes.set_ylabel("density")
    style.legend(figure, dict(looks), names)
    return figure


def _quadratures(
    found: Found, network: str, loss: str
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    for row in found.last:
        own: Any = row.values["losses"].get(loss, {})
        if row.network == network and own.get("nodes"):
            yield np.array(own["nodes"]), np.array(own["weights"])
