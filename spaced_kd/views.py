"""Which batches a step reads, and in which order the examples come."""

import dataclasses
from typing import NamedTuple

from spaced_kd.config import Config
from spaced_kd.data.stream import Stream
from spaced_kd.keys import SeedKeys
from spaced_kd.schedule import Lockstep, Segment


@dataclasses.dataclass(frozen=True)
class Streams:
    """One repetition's randomness: its keys, the teacher's stream, and a second one.

    reshuffled: what replays read that draw a fresh order.
    """

    keys: SeedKeys
    teacher: Stream
    reshuffled: Stream


class View(NamedTuple):
    """One of the batches that a step of a segment reads.

    slot: its name in `steps`. lag: how many steps back in the stream it lies.
    reshuffled: whether in the order, and reaugmented: whether with the augmentation,
      of replays that do not repeat the teacher's.
    """

    slot: str
    lag: int = 0
    reshuffled: bool = False
    reaugmented: bool = False

    def stream(self, streams: Streams) -> Stream:
        """Return the order that this batch comes from, of one repetition's."""
        return streams.reshuffled if self.reshuffled else streams.teacher


def views_of(config: Config, segment: Segment) -> tuple[View, ...]:
    """Return which batches each step of a segment reads."""
    if isinstance(segment, Lockstep):
        late = (View(m.student, m.lag) for m in segment.members if m.lag)
        return (View("stream"), *late)
    replay = config.students[segment.student].replay
    return (View("stream", 0, replay == "reshuffle", replay != "exact"),)
