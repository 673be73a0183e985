"""Keeps JAX from aborting a process before it has said which peer it lost."""

import contextlib
import socket
import threading
import time

from spaced_kd.peers import OWN_END_SECONDS

_LINGER_SECONDS = 3 * OWN_END_SECONDS


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
        _pump(far, near, _LINGER_SECONDS)

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def _pump(source: socket.socket, sink: socket.socket, linger: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    time.sleep(linger)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
