"""Measurements of trained networks: one a file, one line here."""

from spaced_kd.analysis import corruptions
from spaced_kd.analysis.base import Analysis

ANALYSES: dict[str, Analysis] = {
    "corruptions": corruptions.ANALYSIS,
}
"""Name -> analysis, in the order of the report."""
