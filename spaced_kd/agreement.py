"""What all processes of a run must agree on before they train together."""

import hashlib
import logging
from pathlib import Path

import jax

from spaced_kd import workdir
from spaced_kd.checkpoint import Checkpoint
from spaced_kd.errors import CheckpointError, ConfigError, PeerError
from spaced_kd.peers import Peers
from spaced_kd.state import SeedState

_log = logging.getLogger("spaced_kd")


def same_run(peers: Peers, identity: dict[str, str], path: Path) -> None:
    """Check that all processes are about to do the same, in the same workdir.

    Args:
      peers: the processes.
      identity: what makes this run, name -> fingerprint.
      path: the workdir, in which process 0 has noted its start.

    Raises:
      ConfigError: JAX was set up by somebody else, or a process has another identity.
      CheckpointError: a process does not see what process 0 wrote.
    """
    if jax.process_count() != peers.count:
        raise ConfigError(
            f"JAX knows {jax.process_count()} processes, this run {peers.count}; leave "
            "jax.distributed.initialize to spaced_kd: give --coordinator, "
            "--num_processes and --process_id, or --distributed=auto."
        )
    if peers.count == 1:
        return
    _log.info("%s, %d devices in all", "; ".join(peers.names), jax.device_count())
    mine = identity | {"backend": jax.default_backend()}
    told = peers.exchange(mine | {"start": workdir.last_start(path)})
    for name, theirs in zip(peers.names, told, strict=True):
        for what in mine:
            if theirs[what] != told[0][what]:
                raise ConfigError(
                    f"{name} has another {what} ({theirs[what][:12]}) than process 0 "
                    f"({told[0][what][:12]}); give every process the same command and "
                    "the same data."
                )
    if not workdir.waits_for_start(path, told[0]["start"]):
        raise CheckpointError(
            f"{peers.names[peers.index]} does not find in {path} what process 0 has "
            "just written there; give every process the same --workdir, on a "
            "filesystem that they share."
        )


def same_checkpoint(peers: Peers, saved: Checkpoint | None, path: Path) -> None:
    """Check that all processes found the same checkpoint, or none.

    Raises:
      CheckpointError: they did not.
    """
    mine = None if saved is None else [saved.tick, saved.path.name, saved.info]
    views = peers.exchange(mine)
    for name, view in zip(peers.names, views, strict=True):
        if view != views[0]:
            seen, first = (
                "no checkpoint" if v is None else f"checkpoint {v[1]}"
                for v in (view, views[0])
            )
            raise CheckpointError(
                f"{name} finds {seen} in {path}, process 0 finds {first}; give every "
                "process the same --workdir, on a filesystem that they share, and run "
                "again."
            )


def same_state(peers: Peers, states: list[SeedState]) -> None:
    """Check that all processes hold the same numbers.

    Raises:
      PeerError: they do not.
    """
    if peers.count == 1:
        return
    digests = peers.exchange(digest(states))
    for name, theirs in zip(peers.names, digests, strict=True):
        if theirs != digests[0]:
            raise PeerError(
                f"{name} starts from other numbers than process 0; run on machines of "
                "one kind, with the same jaxlib."
            )


def digest(states: list[SeedState]) -> str:
    """Return the SHA-256 of all numbers, hex."""
    sha = hashlib.sha256()
    for leaf in jax.device_get(jax.tree.leaves(states)):
        sha.update(leaf.tobytes())
    return sha.hexdigest()
