"""Measurements of trained networks: one a file, one line here."""

from spaced_kd.analysis import calibration, teacher_gap
from spaced_kd.analysis.base import Analysis

ANALYSES: dict[str, Analysis] = {
    "teacher_gap": teacher_gap.ANALYSIS,
    "calibration": calibration.ANALYSIS,
}
"""Name -> analysis, in the order of the report."""
