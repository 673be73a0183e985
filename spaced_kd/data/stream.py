"""Which examples make batch t: a pure function of (key, t), for any t in any order.

There is no iterator and no state, so a replay or a resumed run just asks again. What
the examples look like is the business of `augment`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from spaced_kd.errors import ConfigError

# A replay jumps back one window, which seldom spans more epochs than this.
_EPOCHS_KEPT = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """The endless sequence of batches over a split, reshuffled every epoch.

    key: typed PRNG key; epoch e is ordered by `fold_in(key, e)`.
    num_examples: in the split.
    batch_size: global, all devices together.
    last_batch: "keep" pads an epoch's incomplete last batch, "drop" leaves it out.

    Raises:
      ConfigError: an epoch has no batch.
    """

    key: jax.Array
    num_examples: int
    batch_size: int
    last_batch: str
    _epoch: Callable[[int], np.ndarray] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        """Check that there is a batch at all."""
        if self.num_examples < 1 or self.steps_per_epoch < 1:
            raise ConfigError(
                f"config.data.batch_size={self.batch_size} leaves no batch in "
                f"{self.num_examples} training examples with "
                f"config.data.last_batch='{self.last_batch}'; give a batch_size of at "
                f"most {self.num_examples}, or last_batch='keep'."
            )
        kept = functools.lru_cache(_EPOCHS_KEPT)(self._make_epoch)
        object.__setattr__(self, "_epoch", kept)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        if self.last_batch == "keep":
            return -(-self.num_examples // self.batch_size)
        return self.num_examples // self.batch_size

    @property
    def has_padding(self) -> bool:
        """Whether an epoch's last batch is filled up with -1."""
        return self.last_batch == "keep" and self.num_examples % self.batch_size > 0

    def epoch_of(self, step: int) -> float:
        """Return how many epochs lie before `step`."""
        return step / self.steps_per_epoch

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Return the examples of steps start..stop-1.

        Args:
          start: first global step, from 0.
          stop: the step after the last.

        Returns:
          [stop - start, batch_size] int32; -1 where an epoch's last batch is padded.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"steps {start}..{stop} are not a range from 0 upward")
        rows = np.empty((stop - start, self.batch_size), np.int32)
        step = start
        while step < stop:
            epoch, offset = divmod(step, self.steps_per_epoch)
            count = min(stop - step, self.steps_per_epoch - offset)
            batches = self._epoch(epoch)[offset : offset + count]
            rows[step - start : step - start + count] = batches
            step += count
        return rows

    def _make_epoch(self, epoch: int) -> np.ndarray:
        key = jax.random.fold_in(self.key, epoch)
        order = np.asarray(jax.random.permutation(key, self.num_examples))
        places = np.full(self.steps_per_epoch * self.batch_size, -1, np.int32)
        used = min(len(places), self.num_examples)
        places[:used] = order[:used]
        return places.reshape(self.steps_per_epoch, self.batch_size)
