"""The table of analytic cases in docs/theory.md.

    python benchmarks/theorem_toy.py

Teachers and students of a few weights that learn as the paper says; what Theorem 4.4
compares, against the interval, mean and standard error over 256 seeds.
"""

from spaced_kd import backend
from spaced_kd.analysis import theorem_toy
from spaced_kd.analysis.base import Values
from spaced_kd.tables import Table

ALPHA, SEEDS = 0.3, 256
TITLES = (
    "case",
    "s, steps",
    "u of the teacher",
    "Tr H at theta*, minus s = 1",
    "seeds in which it is not larger",
    "Tr H at own weights, minus s = 1",
    "its Gauss-Newton part",
    "its residual part",
)
COLUMNS = "shared", "own", "own_gauss_newton", "own_residual"


def rows(name: str, case: Values) -> list[tuple[str, ...]]:
    """Return a row an interval, in thousandths; no differences for s = 1."""

    def differences(place: int) -> tuple[str, ...]:
        shared, *own = (thousandths(case[column][place]) for column in COLUMNS)
        return shared, f"{case['holds'][place]:.0%}", *own

    return [
        (
            name,
            str(interval),
            thousandths(case["gap"][place]),
            *(differences(place) if place else ("",) * 5),
        )
        for place, interval in enumerate(case["intervals"])
    ]


def thousandths(pair: list[float]) -> str:
    """Return mean and standard error times 1000."""
    return f"{1e3 * pair[0]:.2f} ± {1e3 * pair[1]:.2f}"


if __name__ == "__main__":
    backend.configure()
    found = {
        name: theorem_toy.measured(name, ALPHA, SEEDS) for name in theorem_toy.CASES
    }
    lines = [row for name, case in found.items() for row in rows(name, case)]
    slopes = ", ".join(f"{name} {case['slope']:.2f}" for name, case in found.items())
    notes = (
        "u, Tr H and its parts in thousandths; mean ± standard error.",
        f"Slope of beta by alpha (phi - phi*)' grad g: {slopes}.",
    )
    print(Table(TITLES, tuple(lines), notes).markdown())
