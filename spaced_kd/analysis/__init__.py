"""Measurements of trained networks: one a file, one line here."""

from spaced_kd.analysis import calibration, corruptions, teacher_gap, theorem
from spaced_kd.analysis.base import Analysis

ANALYSES: dict[str, Analysis] = {
    "teacher_gap": teacher_gap.ANALYSIS,
    "calibration": calibration.ANALYSIS,
    "corruptions": corruptions.ANALYSIS,
    "theorem": theorem.ANALYSIS,
}
"""Name -> analysis, in the order of the report."""
