"""Workers on this machine: each a process, where there are GPUs with some of its own.

On CPU they share the cores as the system deals them out. Fewer threads for each worker
would give other last bits: XLA divides sums among its threads.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from spaced_kd.errors import ConfigError
from spaced_kd.sweep.engines.base import Engine, Options, Start, launch

_MEMORY_SHARE = 0.9
"""Of a GPU's memory, for all workers on it together."""


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]

    def code(self) -> int | None:
        return self.process.poll()

    def withdraw(self) -> None:
        pass

    def kill(self) -> None:
        self.process.kill()


def shares(workers: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Return which environment variables give each worker its share of the GPUs.

    They are dealt out in turn: several to a worker, or several workers to a GPU, which
    divide its memory then.

    Args:
      workers: how many.
      gpus: names as in CUDA_VISIBLE_DEVICES; empty: there are none.
    """
    if not gpus:
        return [{} for _ in range(workers)]
    if len(gpus) >= workers:
        return [
            {"CUDA_VISIBLE_DEVICES": ",".join(gpus[k::workers])} for k in range(workers)
        ]
    found = []
    for k in range(workers):
        gpu = k % len(gpus)
        together = len(range(gpu, workers, len(gpus)))
        found.append(
            {
                "CUDA_VISIBLE_DEVICES": gpus[gpu],
                "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{_MEMORY_SHARE / together:.3f}",
            }
        )
    return found


def _gpus() -> list[str]:
    if jax.default_backend() != "gpu":
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = [name.strip() for name in given.split(",") if name.strip()]
    return named or [str(k) for k in range(len(jax.local_devices()))]


def _check(options: Options) -> None:
    if options:
        raise ConfigError(
            f"engine 'local' has no option '{next(iter(options))}'; leave it out, or "
            "choose engine 'slurm' or 'ray'."
        )


@contextlib.contextmanager
def _open(root: Path, workers: int, options: Options) -> Iterator[Start]:
    del options
    found = shares(workers, _gpus())

    def start(name: str) -> _Worker:
        return _Worker(launch(root, name, found[int(name.rpartition("-")[2])]))

    yield start


ENGINE = Engine(_check, _open)
