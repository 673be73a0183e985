"""The processes of one run: they agree before they act, and notice a lost one at once.

Process 0 is the hub of a star of TCP connections. JAX has no part in it: its
collectives hang or fail in many ways when a process dies, and its own watch over the
processes aborts the survivors (LOG(FATAL), exit by SIGABRT). A thread for each
connection waits for its end instead, and leaves with one line and `PeerError.code`. A
machine that vanishes without a word is found by TCP's keepalive, which the kernels
answer, however busy the processes are.
"""

import contextlib
import dataclasses
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from spaced_kd.errors import ConfigError, PeerError, SpacedKDError

_SILENT_SECONDS = 30
# A peer that fails has often failed for a reason that holds here, too: then this
# process's own message is the better one, and it gets so long to show it.
_OWN_END_SECONDS = 5.0
_HELLO = "spaced_kd"
_LONGEST_LINE = 1 << 20


class Peers:
    """The processes of a run, here a single one; `Hub` and `Spoke` are several.

    Attributes:
      index: this process, 0 for the one that writes the workdir.
      count: all processes.
      names: of the processes, "process 1 on HOST", by index.
      resume_hint: told to the user where another process has ended this one.
    """

    def __init__(self, index: int = 0, names: Sequence[str] = ("process 0",)):
        """Know only of oneself."""
        self.index, self.count, self.names = index, len(names), tuple(names)
        self.resume_hint = "run the same command again in every process"

    def exchange(self, value: Any) -> list[Any]:
        """Return every process's `value`, by index; waits until all have given theirs.

        All processes must call it equally often and in the same order.

        Args:
          value: JSON-able.
        """
        return [value]

    def leave(self, code: int, message: str) -> None:
        """Tell the others that this process ends, and why; nothing may follow.

        Args:
          code: exit code; after any but 0 the others end, too.
          message: one line, shown by the others.
        """


class Channel:
    """A connection that carries one JSON object a line."""

    def __init__(self, connection: socket.socket):
        """Take over `connection`, which may be silent for `_SILENT_SECONDS`."""
        _keep_alive(connection)
        self._socket = connection
        self._file = connection.makefile("rb")
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send, unless the other side is gone, which `receive` is there to notice."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(line)

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Return the next message; None if the other side is gone or talks nonsense."""
        try:
            self._socket.settimeout(timeout)
            message = json.loads(self._file.readline(_LONGEST_LINE))
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # the file holds the socket, too
        self._socket.close()


@dataclasses.dataclass(frozen=True)
class _End:
    """Why a process is no longer there; code None: it vanished."""

    process: int
    code: int | None
    message: str = ""


class _Group(Peers):
    """What both ends of the star have in common."""

    def __init__(self, index: int, names: Sequence[str], channels: dict[int, Channel]):
        super().__init__(index, names)
        self._channels = channels
        self._inbox = {peer: queue.SimpleQueue() for peer in channels}
        self._left = threading.Event()
        for peer in channels:
            threading.Thread(target=self._watch, args=(peer,), daemon=True).start()

    def leave(self, code: int, message: str) -> None:
        """See `Peers.leave`."""
        self._left.set()
        self._tell(_End(self.index, code, message))
        for channel in self._channels.values():
            channel.close()

    def _watch(self, peer: int) -> None:
        while True:
            message = self._channels[peer].receive()
            if message is not None and "end" not in message:
                self._inbox[peer].put(message["value"])
                continue
            end = _End(peer, None) if message is None else _End(**message["end"])
            if self._left.is_set() or end.code == 0:
                return
            self._tell(end, skip=peer)
            self._end_with(end)

    def _tell(self, end: _End, skip: int | None = None) -> None:
        for peer, channel in self._channels.items():
            if peer != skip:
                channel.send({"end": dataclasses.asdict(end)})

    def _end_with(self, end: _End) -> None:
        name = self.names[end.process]
        if end.code is None:
            what = f"{name} is gone (killed, crashed or cut off)"
        elif self._left.wait(_OWN_END_SECONDS):
            return
        else:
            what = f"{name} ended with code {end.code} ({end.message.rstrip('.')})"
        # Not `print`: the main thread may hold the lock of `sys.stderr`. It cannot be
        # asked to leave either: it may be inside a collective that never ends.
        os.write(2, f"error: {what}; {self.resume_hint}.\n".encode())
        os._exit(PeerError.code)


class Hub(_Group):
    """Process 0, connected to every other."""

    def exchange(self, value: Any) -> list[Any]:
        """See `Peers.exchange`."""
        values = [value, *(self._inbox[p].get() for p in range(1, self.count))]
        for channel in self._channels.values():
            channel.send({"value": values})
        return values


class Spoke(_Group):
    """A process other than 0, connected to process 0."""

    def exchange(self, value: Any) -> list[Any]:
        """See `Peers.exchange`."""
        self._channels[0].send({"value": value})
        return self._inbox[0].get()


def open_hub(
    address: tuple[str, int], count: int, version: str, service: int, timeout: float
) -> Hub:
    """Wait for the other processes; return process 0's view of the run.

    Args:
      address: host and port on which process 0 listens.
      count: processes of the run.
      version: must be the same everywhere.
      service: told to the others, see `open_spoke`.
      timeout: seconds until all must be there.

    Raises:
      PeerError: the port is taken, or somebody did not come.
      ConfigError: a process is of another run, or two have the same id.
    """
    host, port = address
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
            for channel, hello in _hellos(listener, timeout):
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
    listener: socket.socket, timeout: float
) -> Iterator[tuple[Channel, dict[str, Any]]]:
    """Yield who reports within `timeout` seconds, and sends away everybody else."""
    deadline = time.monotonic() + timeout
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
      timeout: seconds until all must be there.

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
    answer = channel.receive(timeout=max(deadline - time.monotonic(), 1.0) + 5.0)
    if answer is None:
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


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    settings = {
        "TCP_KEEPIDLE": 10,  # seconds of silence before the first question
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": (_SILENT_SECONDS - 10) // 5,
        "TCP_USER_TIMEOUT": 1000 * _SILENT_SECONDS,
    }
    for name, value in settings.items():
        if hasattr(socket, name):  # not all systems have all of them
            option = getattr(socket, name)
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def shield(host: str, port: int) -> int:
    """Return a loopback port that leads to `host:port` and outlives it.

    JAX aborts a process in the very moment in which its connection to process 0's
    coordination service breaks. Behind this port the connection stays open a little
    longer, and the thread that watches process 0 has time to say what happened.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            near, _ = listener.accept()
            threading.Thread(target=connect, args=(near,), daemon=True).start()

    def connect(near: socket.socket) -> None:
        far = None
        with contextlib.suppress(OSError):
            far = socket.create_connection((host, port), timeout=10.0)
        if far is None:
            near.close()
            return
        far.settimeout(None)
        threading.Thread(target=_pump, args=(near, far, 0.0), daemon=True).start()
        _pump(far, near, 2 * _OWN_END_SECONDS)

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def _pump(source: socket.socket, sink: socket.socket, linger: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    time.sleep(linger)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
