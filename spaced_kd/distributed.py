"""Starting a run of several processes: who is who, and JAX's own set-up."""

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Iterator

import jax

import spaced_kd
from spaced_kd import peers, rendezvous, shield
from spaced_kd.errors import (
    ConfigError,
    Interrupted,
    PeerError,
    SpacedKDError,
    one_line,
)
from spaced_kd.peers import Peers

VARIABLES = {
    "coordinator": "SPACED_KD_COORDINATOR",
    "num_processes": "SPACED_KD_NUM_PROCESSES",
    "process_id": "SPACED_KD_PROCESS_ID",
}
"""Flag of the command line -> environment variable that stands in for it."""

_EXAMPLE = "--coordinator=node0:8476 --num_processes=2 --process_id=0"
# An error of JAX may be but a sign that another process has ended; the thread that
# watches it says so, and ends this one, before this time is over.
_SECOND_OPINION_SECONDS = 2 * peers.OWN_END_SECONDS


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process of a run this one is.

    host, port: where process 0 listens. The next port is JAX's, if it is free.
    num_processes: of the run.
    process_id: from 0.
    local_device_ids: accelerators of this machine that this process uses; None: all.
    detected: whether a cluster's settings said this. It gives the next port to the next
      job; JAX takes any that is free.
    """

    host: str
    port: int
    num_processes: int
    process_id: int
    local_device_ids: tuple[int, ...] | None = None
    detected: bool = False


def place(
    coordinator: str | None,
    num_processes: int | str | None,
    process_id: int | str | None,
    mode: str = "",
    timeout: float = 300.0,
) -> Place | None:
    """Return which process this is; None for a run of a single process.

    Args:
      coordinator: host:port of process 0, else $SPACED_KD_COORDINATOR.
      num_processes: else $SPACED_KD_NUM_PROCESSES.
      process_id: else $SPACED_KD_PROCESS_ID.
      mode: "auto" asks JAX to find the three in what Slurm, Open MPI, Kubernetes or a
        TPU pod says; "" does not.
      timeout: seconds that such a search may take.

    Raises:
      ConfigError: some of the three are missing, or are not numbers in range.
    """
    given = {
        "coordinator": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    for name, variable in VARIABLES.items():
        if given[name] is None:
            given[name] = os.environ.get(variable)
    present = {name for name, value in given.items() if value is not None}
    if mode not in ("", "auto"):
        raise ConfigError(f"--distributed={mode} is unknown; give auto, or leave it.")
    if mode == "auto":
        if present:
            raise ConfigError(
                f"--distributed=auto finds --{sorted(present)[0]} itself; give one or "
                "the other."
            )
        return _detect(timeout)
    if not present:
        return None
    missing = [
        f"--{name} (${VARIABLES[name]})" for name in given if name not in present
    ]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} is missing; a run of several processes needs all of "
            f"{_EXAMPLE}, or --distributed=auto."
        )
    return _checked(**given)


def _checked(
    coordinator, num_processes, process_id, local_device_ids=None
) -> Place | None:
    host, _, port = str(coordinator).rpartition(":")
    numbers = {"num_processes": num_processes, "process_id": process_id}
    for name, value in numbers.items():
        try:
            numbers[name] = int(value)
        except ValueError:
            raise ConfigError(f"--{name}={value} is no integer.") from None
    count, index = numbers["num_processes"], numbers["process_id"]
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"--coordinator={coordinator} is not host:port of process 0, e.g. "
            "node0:8476."
        )
    if not 0 <= index < count:
        raise ConfigError(
            f"--process_id={index} with --num_processes={count}; number the processes "
            f"0 to {max(count, 1) - 1}."
        )
    if count == 1:
        return None
    ids = None if local_device_ids is None else tuple(local_device_ids)
    return Place(host.strip("[]"), int(port), count, index, ids)


def _detect(timeout: float) -> Place | None:
    # `jax.distributed.initialize()` detects and connects in one; process 0's address is
    # needed in between, and nothing public tells it.
    from jax._src import clusters

    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(timeout)
    )
    if None in found[:3]:
        raise ConfigError(
            "--distributed=auto finds neither Slurm, Open MPI, Kubernetes nor a TPU "
            f"pod; start the processes there, or give {_EXAMPLE}."
        )
    found_place = _checked(*found)
    return found_place and dataclasses.replace(found_place, detected=True)


@contextlib.contextmanager
def joined(place: Place | None, timeout: float = 300.0) -> Iterator[Peers]:
    """Be one of the processes of a run while the block lasts; call before any array.

    Without a place, or with one process, nothing is set up. An error that leaves the
    block also ends the other processes, which repeat its message.

    Args:
      place: which process this is.
      timeout: seconds until all processes must be there.

    Raises:
      PeerError: not all came, process 0's port is taken, or JAX did not start.
      ConfigError: the processes were not started for the same run.
    """
    if place is None:
        yield Peers()
        return
    group, near, port = _meet(place, timeout)
    try:
        _start_jax(place, near, port, timeout)
        yield group
    except SpacedKDError as error:
        group.leave(error.code, str(error))
        raise
    except KeyboardInterrupt:
        group.leave(Interrupted.code, "stopped by Ctrl-C")
        raise
    except BaseException as error:
        time.sleep(_SECOND_OPINION_SECONDS)
        group.leave(1, f"{type(error).__name__}: {error}".splitlines()[0][:200])
        raise
    group.exchange("done")
    jax.distributed.shutdown()
    group.leave(0, "")


def _meet(place: Place, timeout: float) -> tuple[Peers, str, int]:
    """Return the group, and where JAX's service is: an address here, a port there."""
    address, count = (place.host, place.port), place.num_processes
    version = f"spaced_kd {spaced_kd.__version__} and jax {jax.__version__}"
    if place.process_id == 0:
        port = _free_port(0 if place.detected else place.port + 1)
        group = rendezvous.open_hub(address, count, version, port, timeout)
        return group, f"127.0.0.1:{port}", port
    group, port = rendezvous.open_spoke(
        address, place.process_id, count, version, timeout
    )
    return group, f"127.0.0.1:{shield.shield(place.host, port)}", port


def _start_jax(place: Place, near: str, port: int, timeout: float) -> None:
    # Its handler of SIGTERM would take the place of ours.
    jax.config.update("jax_enable_preemption_service", False)
    everywhere = "127.0.0.1" if rendezvous.is_loopback(place.host) else "[::]"
    try:
        jax.distributed.initialize(
            near,
            num_processes=place.num_processes,
            process_id=place.process_id,
            local_device_ids=place.local_device_ids,
            cluster_detection_method="deactivate",
            initialization_timeout=int(timeout),
            coordinator_bind_address=f"{everywhere}:{port}",
            shutdown_timeout_seconds=30,
        )
    except Exception as error:  # RuntimeError, XlaRuntimeError, ValueError, ...
        raise PeerError(
            f"process {place.process_id} did not start JAX ({one_line(error)}); all "
            f"processes must reach port {port} of {place.host}, process 0."
        ) from error


def _free_port(wanted: int) -> int:
    """Return `wanted` if it is free, else any port that is."""
    if not 0 <= wanted < 65536:
        wanted = 0
    try:
        with socket.create_server(("", wanted)) as server:
            return server.getsockname()[1]
    except OSError:
        return _free_port(0)
