"""Stop on request: a signal becomes a flag, and a deadline when nobody looks at it.

It does not save anything and does not know what a step is.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

from spaced_kd.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# `timeout` and batch systems signal a process and then its whole group: what arrives
# within this time is the same request.
_SAME_REQUEST_SECONDS = 0.25


class StopRequest:
    """While open, SIGTERM and SIGINT ask the loop to save and leave.

    The first signal sets `requested`; the loop answers with `acknowledge()` and saves.
    A second signal (0.25 s later or more) leaves at once. Python runs no signal handler
    while the main thread is inside a long compilation or computation, so a thread
    watches, too: without an answer for `grace_seconds` it leaves the process, which
    is safe because checkpoints are whole or absent. Both leave with code 75. A call
    that holds the interpreter lock all the time stops the thread as well; XLA does not.

    Outside the main thread nothing is installed and `requested` stays False.

    Attributes:
      requested: whether to stop.
      signal: name of the first signal, e.g. "SIGTERM"; "" before.
      resume_hint: told to the user in the line before a forced exit.
    """

    def __init__(self, grace_seconds: float = 8.0, *, may_exit: bool = True):
        """Install nothing yet.

        Args:
          may_exit: whether the process may be ended. If not (a notebook's kernel), no
            deadline holds and a second signal raises KeyboardInterrupt.
          grace_seconds: how long the loop may take to acknowledge.
        """
        self.requested = False
        self.signal = ""
        self.resume_hint = "run the same command again"
        self._grace = grace_seconds
        self._may_exit = may_exit
        self._seen_at: float | None = None
        self._acknowledged = False
        self._decision = threading.Lock()
        self._old_handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Install handlers and watcher."""
        if threading.current_thread() is not threading.main_thread():
            return self
        self._bell, self._far_end = socket.socketpair()
        self._far_end.setblocking(False)
        self._old_fd = signal.set_wakeup_fd(
            self._far_end.fileno(), warn_on_full_buffer=False
        )
        for number in _SIGNALS:
            self._old_handlers[number] = signal.signal(number, self._handle)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Put everything back as it was."""
        if not self._old_handlers:
            return
        for number, handler in self._old_handlers.items():
            # None: not installed from Python, and nothing else can put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old_handlers.clear()
        signal.set_wakeup_fd(self._old_fd)
        self._far_end.close()
        self._watcher.join()
        self._bell.close()

    def acknowledge(self) -> None:
        """Tell the watcher that the loop has seen the request and is about to save."""
        with self._decision:
            self._acknowledged = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._seen_at is None:
            self._seen_at = now
        elif not self._may_exit and now - self._seen_at > _SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt
        self._request(number)

    def _request(self, number: int) -> None:
        self.requested = True
        self.signal = self.signal or signal.Signals(number).name

    def _watch(self) -> None:
        first = None
        while True:
            waited = 0.0 if first is None else time.monotonic() - first
            overdue = first is not None and self._may_exit and not self._acknowledged
            self._bell.settimeout(max(self._grace - waited, 1e-3) if overdue else None)
            try:
                numbers = self._bell.recv(64)
            except TimeoutError:
                self._leave_unless_acknowledged()
                continue
            if not numbers:
                return
            self._forward(numbers)
            if not any(number in _SIGNALS for number in numbers):
                continue
            now = time.monotonic()
            if first is None:
                first = now
                self._request(next(n for n in numbers if n in _SIGNALS))
            elif self._may_exit and now - first > _SAME_REQUEST_SECONDS:
                os._exit(Interrupted.code)

    def _leave_unless_acknowledged(self) -> None:
        with self._decision:
            if not self._acknowledged:
                # Not `print`: the main thread may hold the lock of `sys.stderr`.
                line = (
                    f"{self.signal}: the run was inside a step too long to wait for "
                    f"({self._grace:g} s) and was stopped; {self.resume_hint}.\n"
                )
                os.write(2, line.encode())
                os._exit(Interrupted.code)

    def _forward(self, numbers: bytes) -> None:
        """Hand on to whoever was woken before (the event loop of a notebook)."""
        if self._old_fd != -1:
            with contextlib.suppress(OSError):
                os.write(self._old_fd, numbers)
