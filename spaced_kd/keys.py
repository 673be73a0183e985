"""One independent random key for each purpose, all functions of one seed.

Nothing random is carried from step to step: a key for step t is `fold_in(key, t)`, so a
resumed, chunked or replayed run draws the same numbers as an uninterrupted one.
"""

from typing import NamedTuple

import jax


class SeedKeys(NamedTuple):
    """The keys of one repetition.

    teacher_init, student_init: initial weights. Students of one architecture share
      theirs, so that two arms of a comparison start from the same point.
    method_init: feature adaptors.
    data, augment: order and augmentation of the teacher's stream.
    replay_data, replay_augment: the same for replays that do not repeat it exactly.
    noise: anything random inside a network.
    """

    teacher_init: jax.Array
    student_init: jax.Array
    method_init: jax.Array
    data: jax.Array
    augment: jax.Array
    replay_data: jax.Array
    replay_augment: jax.Array
    noise: jax.Array


def seed_keys(seed: int, generation: int = 0) -> SeedKeys:
    """Return the keys of the repetition with this seed.

    Args:
      seed: of the repetition.
      generation: how many runs before this one trained its teachers, one for the
        other. Each begins with other weights and sees the images in another order:
        born-again networks differ in both.
    """
    key = jax.random.key(seed)
    if generation:
        key = jax.random.fold_in(key, generation)
    return SeedKeys(*jax.random.split(key, len(SeedKeys._fields)))
