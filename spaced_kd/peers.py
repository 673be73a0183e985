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
from collections.abc import Sequence
from typing import Any

from spaced_kd.errors import PeerError

_SILENT_SECONDS = 30
# A peer that fails has often failed for a reason that holds here, too: then this
# process's own message is the better one, and it gets so long to show it.
OWN_END_SECONDS = 5.0
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
        self._end_seen = threading.Lock()
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
            # What ended after another is a consequence, not the reason.
            if self._end_seen.acquire(blocking=False):
                self._tell(end, skip=peer)
                # Beside this thread: a value sent earlier may come after that news.
                threading.Thread(
                    target=self._end_with, args=(end,), daemon=True
                ).start()
            if message is None:
                return

    def _tell(self, end: _End, skip: int | None = None) -> None:
        for peer, channel in self._channels.items():
            if peer != skip:
                channel.send({"end": dataclasses.asdict(end)})

    def _end_with(self, end: _End) -> None:
        name = self.names[end.process]
        if end.code is None:
            what = f"{name} is gone (killed, crashed or cut off)"
        elif self._left.wait(OWN_END_SECONDS):
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
