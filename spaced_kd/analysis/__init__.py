"""Measurements of trained networks: one a file, one line here."""

from spaced_kd.analysis import theorem
from spaced_kd.analysis.base import Analysis

ANALYSES: dict[str, Analysis] = {
    "theorem": theorem.ANALYSIS,
}
"""Name -> analysis, in the order of the report."""
