"""Variants that need a process of their own: other flags, other frameworks.

A worker says "::ready SECONDS" when its first call is done, then answers every line on
its standard input with "::SECONDS" of one more call. All workers but the one that is
measured are stopped (SIGSTOP), so that their threads take no time from it.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from spaced_kd.bench.arrangement import Settings

MARK = "::"


class Unavailable(Exception):
    """A variant that cannot run here; the message says why."""


class Worker:
    """A child process; calling it measures once."""

    def __init__(
        self, kind: str, settings: Settings, env: Mapping[str, str | None], **more
    ):
        """Start, wait until its first call is done, and stop it for the time being.

        Args:
          kind: "jax", or a key of `torch_step.LAYOUTS`.
          settings: shared by all cases.
          env: environment variables to set, or with None to take away.
          **more: of `arrangement.build`, for JAX.

        Raises:
          Unavailable: the child ended before it was ready.
        """
        order = {"kind": kind, "settings": dataclasses.asdict(settings), "more": more}
        # Read if the child ends early; lives as long as the child.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._child = subprocess.Popen(
            [sys.executable, "-m", "spaced_kd.bench.worker", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={k: v for k, v in (os.environ | env).items() if v is not None},
            text=True,
        )
        try:
            self.startup_seconds = float(self._answer().removeprefix("ready "))
        except BaseException:
            self.end()
            raise
        self._child.send_signal(signal.SIGSTOP)

    def __call__(self) -> float:
        """Wake the worker, measure once, stop it again; return seconds a step.

        Raises:
          Unavailable: the child has ended.
        """
        self._child.send_signal(signal.SIGCONT)
        assert self._child.stdin is not None
        # Of a child that has ended, the missing answer says why.
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write("run\n")
            self._child.stdin.flush()
        seconds = float(self._answer())
        self._child.send_signal(signal.SIGSTOP)
        return seconds

    def end(self) -> None:
        """End the process, whatever it does."""
        self._child.kill()
        self._child.communicate()
        self._errors.close()

    def _answer(self) -> str:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith(MARK):
                return line.removeprefix(MARK).strip()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        raise Unavailable(said[-1] if said else "its process ended without a word")


@contextlib.contextmanager
def ending(workers: Mapping[str, Worker]) -> Iterator[None]:
    """End all workers, also those that are added meanwhile, when the block ends."""
    try:
        yield
    finally:
        for worker in workers.values():
            worker.end()


def serve(order: Mapping[str, Any]) -> None:
    """Be a worker: prepare what the order names, then measure at every line."""
    settings = Settings(**order["settings"])
    started = time.perf_counter()
    measure = _prepare(order["kind"], settings, order["more"])
    measure()
    print(f"{MARK}ready {time.perf_counter() - started}", flush=True)
    for _ in sys.stdin:
        print(f"{MARK}{measure()}", flush=True)


def _prepare(kind: str, settings: Settings, more: Mapping[str, Any]):
    if kind != "jax":
        from spaced_kd.bench.torch_step import TorchStep

        return TorchStep(kind, settings)
    from spaced_kd import backend
    from spaced_kd.bench.arrangement import SPACED, Arrangement, build
    from spaced_kd.schedule import Lockstep

    backend.configure()
    # Of a spaced plan, lockstep is the teacher alone: plain training.
    return Arrangement(build(settings, {"spaced": SPACED}, **more), (Lockstep,))


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
