"""The report of a run, built from the files of its workdir and nothing else."""

from spaced_kd.report.page import build

__all__ = ["build"]
