"""In a notebook: what a run logs is shown."""

import logging
import sys

_log = logging.getLogger("spaced_kd")


def show_log() -> None:
    """Print the log's lines below a notebook's cell, as the command line does.

    Elsewhere, and where somebody has chosen a level for the log, nothing changes.
    """
    if _log.handlers or _log.level != logging.NOTSET or not _has_kernel():
        return
    _log.setLevel(logging.INFO)
    # Not standard error, which notebooks show as an alarm.
    _log.addHandler(logging.StreamHandler(sys.stdout))
    # Other libraries set the root up, with their own names and times in each line.
    _log.propagate = False


def _has_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
