"""Workers as tasks of a Ray cluster.

Options: `address` of a cluster ("auto": the one of this machine; empty: a small one of
its own), `num_cpus` and `num_gpus` of each worker, and, for one of its own,
`object_store_memory` in bytes.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spaced_kd import registry
from spaced_kd.errors import ConfigError, PeerError, one_line
from spaced_kd.sweep.engines.base import Engine, Options, Start, attend, launch

_DEFAULTS: dict[str, Any] = {
    "address": "",
    "num_cpus": 1.0,
    "num_gpus": 0.0,
    "object_store_memory": 80 * 2**20,
}
"""Nothing but an exit code is ever stored there."""


class _Worker:
    def __init__(self, ray: Any, reference: Any):
        self._ray, self._reference = ray, reference

    def code(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return self._ray.get(self._reference)
        # Its node is gone, it was cancelled, or it was killed for its memory.
        except Exception:  # noqa: BLE001
            return -signal.SIGKILL

    def withdraw(self) -> None:
        pass

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)


def _run(root: Path, name: str) -> int:
    return attend(launch(root, name))


def _settings(options: Options) -> dict[str, Any]:
    for name, value in options.items():
        default = registry.lookup(_DEFAULTS, name, "engine 'ray': option")
        kinds = (str,) if isinstance(default, str) else (int, float)
        is_kind = isinstance(value, kinds) and not isinstance(value, bool)
        if not is_kind or (not isinstance(value, str) and value < 0):
            what = "text" if kinds == (str,) else "a number of at least 0"
            raise ConfigError(f"engine 'ray': {name}={value!r}; give {what}.")
    return _DEFAULTS | dict(options)


def _module() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "engine 'ray' needs ray; pip install 'spaced_kd[ray]'."
        ) from error
    return ray


def _check(options: Options) -> None:
    _settings(options)
    _module()


@contextlib.contextmanager
def _open(root: Path, workers: int, options: Options) -> Iterator[Start]:
    settings, ray = _settings(options), _module()
    own = {
        "include_dashboard": False,
        "num_cpus": max(1, round(workers * settings["num_cpus"])),
        "object_store_memory": int(settings["object_store_memory"]),
    }
    address = settings["address"]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            **({"address": address} if address else own),
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PeerError(
            f"Ray does not start: {one_line(error)}; see engine option address."
        ) from error
    # Ray puts its own there, which would end this process without a word to workers.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
    # A lost worker is started again by the sweep, which knows whether that helps.
    needs = {"num_cpus": settings["num_cpus"], "num_gpus": settings["num_gpus"]}
    task = ray.remote(**needs, max_retries=0)(_run)

    def start(name: str) -> _Worker:
        return _Worker(ray, task.remote(root, name))

    try:
        yield start
    finally:
        ray.shutdown()


ENGINE = Engine(_check, _open)
