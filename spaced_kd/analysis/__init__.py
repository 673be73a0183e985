"""Measurements of trained networks: one a file, one line here."""

from spaced_kd import registry
from spaced_kd.analysis import (
    attacks,
    calibration,
    corruptions,
    hessian,
    landscape,
    line,
    noise,
    teacher_gap,
    theorem,
)
from spaced_kd.analysis.base import Analysis

ANALYSES = registry.Open[Analysis](
    {
        "teacher_gap": teacher_gap.ANALYSIS,
        "calibration": calibration.ANALYSIS,
        "hessian": hessian.ANALYSIS,
        "theorem": theorem.ANALYSIS,
        "noise": noise.ANALYSIS,
        "landscape": landscape.ANALYSIS,
        "line": line.ANALYSIS,
        "corruptions": corruptions.ANALYSIS,
        "attacks": attacks.ANALYSIS,
    }
)
"""Name -> analysis, in the order of the report."""
