"""Measurements of trained networks: one a file, one line here."""

from spaced_kd.analysis import attacks
from spaced_kd.analysis.base import Analysis

ANALYSES: dict[str, Analysis] = {
    "attacks": attacks.ANALYSIS,
}
"""Name -> analysis, in the order of the report."""
