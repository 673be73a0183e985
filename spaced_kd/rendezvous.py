"""How the processes of a run find one another, and that they are of the same run."""

import socket
import time
from collections.abc import Iterator
from typing import Any

from spaced_kd.errors import ConfigError, PeerError, SpacedKDError
from spaced_kd.peers import Channel, Hub, Spoke

_HELLO = "spaced_kd"
# For a word to arrive that was sent at the last moment.
_GRACE_SECONDS = 5.0


def open_hub(
    address: tuple[str, int], count: int, version: str, service: int, timeout: float
) -> Hub:
    """Wait for the other processes; return process 0's view of the run.

    Args:
      address: host and port on which process 0 listens.
      count: processes of the run.
      version: must be the same everywhere.
      service: port of JAX's coordination service, told to the others.
      timeout: seconds until all must be there.

    Raises:
      PeerError: the port is taken, or somebody did not come.
      ConfigError: a process is of another run, or two have the same id.
    """
    host, port = address
    deadline = time.monotonic() + timeout
    names = {0: f"process 0 on {socket.gethostname()}"}
    channels: dict[int, Channel] = {}
    try:
        listener = _listen(host, port)
    except OSError as error:
        raise PeerError(
            f"process 0 cannot listen on port {port} ({error.strerror or error}); end "
            "what uses it, or give --coordinator another port, in every process."
        ) from error
    try:
        with listener:
            for channel, hello in _hellos(listener, deadline):
                # Its own clock began at another moment.
                channel.send({"wait": max(deadline - time.monotonic(), 0.0)})
                refusal = _refusal(hello, count, version, channels)
                if refusal:
                    channels[-1] = channel
                    raise ConfigError(refusal)
                process, where = hello["process"], hello["host"]
                channels[process] = channel
                names[process] = f"process {process} on {where}"
                if len(channels) == count - 1:
                    break
            else:
                missing = sorted(set(range(1, count)) - set(channels))
                raise PeerError(
                    f"after {timeout:g} s {_listed(missing)} of {count} did not reach "
                    f"process 0 at {host}:{port}; start every process, and let the "
                    "machines reach this port."
                )
    except SpacedKDError as error:
        for channel in channels.values():
            channel.send({"code": error.code, "refused": str(error)})
            channel.close()
        raise
    ordered = [names[process] for process in range(count)]
    for channel in channels.values():
        channel.send({"names": ordered, "service": service})
    return Hub(0, ordered, channels)


def _hellos(
    listener: socket.socket, deadline: float
) -> Iterator[tuple[Channel, dict[str, Any]]]:
    """Yield who reports before `deadline`, and send away everybody else."""
    while True:
        listener.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            channel = Channel(listener.accept()[0])
        except TimeoutError:
            return
        hello = (channel.receive(timeout=5.0) or {}).get(_HELLO)
        if hello is None:
            channel.close()
        else:
            yield channel, hello


def open_spoke(
    address: tuple[str, int], index: int, count: int, version: str, timeout: float
) -> tuple[Spoke, int]:
    """Report to process 0; return this process's view of the run, and its `service`.

    Args:
      address: host and port of process 0.
      index: of this process.
      count: processes of the run.
      version: must be the same everywhere.
      timeout: seconds until process 0 must answer; then it says how long it waits for
        the others.

    Raises:
      PeerError: process 0 does not answer, or not all processes came.
      ConfigError: process 0 says that this process is of another run.
    """
    host, port = address
    deadline = time.monotonic() + timeout
    channel = None
    while channel is None:
        try:
            channel = Channel(socket.create_connection(address, timeout=5.0))
        except OSError as error:
            if time.monotonic() > deadline:
                raise PeerError(
                    f"process 0 did not answer at {host}:{port} for {timeout:g} s "
                    f"({error.strerror or error}); start every process, and give all "
                    "of them the same --coordinator."
                ) from error
            time.sleep(0.2)
    hello = {"process": index, "count": count, "version": version}
    channel.send({_HELLO: hello | {"host": socket.gethostname()}})
    left = max(deadline - time.monotonic(), 1.0)
    answer = channel.receive(timeout=left + _GRACE_SECONDS)
    if answer is not None and "wait" in answer:
        answer = channel.receive(timeout=answer["wait"] + _GRACE_SECONDS)
    if answer is None:
        channel.close()
        raise PeerError(
            f"process 0 at {host}:{port} ended before all {count} processes were "
            "there; its own message says why."
        )
    if "refused" in answer:
        kind = ConfigError if answer["code"] == ConfigError.code else PeerError
        raise kind(answer["refused"])
    return Spoke(index, answer["names"], {0: channel}), answer["service"]


def _refusal(hello: dict, count: int, version: str, here: dict) -> str | None:
    process = hello["process"]
    if hello["version"] != version:
        return (
            f"process {process} on {hello['host']} runs {hello['version']}, process 0 "
            f"{version}; install the same everywhere."
        )
    if hello["count"] != count:
        return (
            f"--num_processes={hello['count']} in process {process} on "
            f"{hello['host']}, but {count} in process 0; give the same everywhere."
        )
    if process in here:
        return (
            f"--process_id={process} was given to two processes, one of them on "
            f"{hello['host']}; number them 0 to {count - 1}."
        )
    return None


def _listed(processes: list[int]) -> str:
    shown = ", ".join(map(str, processes[:8])) + (" ..." if len(processes) > 8 else "")
    return f"process{'es' if len(processes) > 1 else ''} {shown}"


def _listen(host: str, port: int) -> socket.socket:
    if is_loopback(host):
        return socket.create_server((host, port))
    if socket.has_dualstack_ipv6():
        family = socket.AF_INET6
        return socket.create_server(("", port), family=family, dualstack_ipv6=True)
    return socket.create_server(("", port))


def is_loopback(host: str) -> bool:
    """Whether `host` means this machine alone."""
    return host == "localhost" or host.startswith("127.")
