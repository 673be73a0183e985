"""Each network's best parameters on the test split, kept apart from the checkpoints."""

from pathlib import Path

import jax
import jax.numpy as jnp

from spaced_kd.checkpoint import CheckpointLine, is_better
from spaced_kd.config import Config
from spaced_kd.results import metric_prefix
from spaced_kd.state import SeedState
from spaced_kd.types import Variables
from spaced_kd.writers import Row


class BestKeeper:
    """Each network's best parameters so far; written next to the checkpoints."""

    def __init__(self, root: Path, config: Config, rows: list[Row]):
        """Continue from the evaluation rows that the log already holds."""
        self._root = root
        self._seeds = [config.seed + k for k in range(config.num_seeds)]
        self._best: dict[tuple[int, str], float] = {}
        self._held: dict[tuple[int, str], tuple[int, float, Variables]] = {}
        for row in rows:
            name = row["network"]
            self._take((row["seed"], name), row[f"eval/{metric_prefix(name)}acc1"])

    def offer(
        self, network: str, states: list[SeedState], acc1: list[jax.Array], step: int
    ) -> None:
        """Hold a copy of the variables of those repetitions that are at their best."""
        for seed, state, value in zip(self._seeds, states, acc1, strict=True):
            key, accuracy = (seed, network), float(value)
            if self._take(key, accuracy):
                # A copy, because the next tick reuses the buffers of the state.
                copied = jax.tree.map(jnp.copy, state[network].variables)
                self._held[key] = (step, accuracy, copied)

    def write(self) -> None:
        """Put what is held on the disk."""
        for (seed, network), (step, accuracy, variables) in self._held.items():
            line = CheckpointLine(self._root / f"seed_{seed}" / network, keep=1)
            line.save(step, variables, {"acc1": accuracy, "seed": seed})
        self._held.clear()

    def _take(self, key: tuple[int, str], accuracy: float) -> bool:
        better = is_better(accuracy, self._best.get(key))
        if better:
            self._best[key] = accuracy
        return better
