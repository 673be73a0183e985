"""User-facing errors: one line each, one exit code a kind.

`main` prints the message and leaves with `code`; nothing else in the package
decides about exit codes. Codes are part of the command-line interface.
"""


class SpacedKDError(Exception):
    """Base of every error a user can cause or meet; the message is one line."""

    code = 1
    kind = "error"

    def _render_traceback_(self) -> list[str]:
        # IPython's own question: what a notebook shows instead of a traceback.
        return [f"{self.kind}: {self}"]


class ConfigError(SpacedKDError):
    """A configuration value that cannot work: name, value, constraint, remedy."""

    code = 2


class DataError(SpacedKDError):
    """A data set that is missing, incomplete or not what it should be."""

    code = 3


class CheckpointError(SpacedKDError):
    """A checkpoint or workdir that is damaged, foreign, or of another config."""

    code = 4


class LockedError(SpacedKDError):
    """Another process is writing to this workdir."""

    code = 5


class NonFiniteError(SpacedKDError):
    """NaN or infinity in a loss or in a network's state."""

    code = 6


class StorageError(SpacedKDError):
    """Disk full, read-only or vanished."""

    code = 7


class PeerError(SpacedKDError):
    """Another process of this run is gone, failed, or never came."""

    code = 8


class CapacityError(SpacedKDError):
    """The run does not fit into a device's memory; `doctor` says so beforehand."""

    code = 9


class Interrupted(SpacedKDError):
    """Stopped by a signal; the same command continues from the last checkpoint."""

    code = 75
    kind = "stopped"


def one_line(error: Exception) -> str:
    """Return what a foreign error says, in a line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
