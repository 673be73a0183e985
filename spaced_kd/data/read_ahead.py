"""Read elements in order, some of them ahead of their use, with threads (Grain)."""

import math
from typing import Any, Protocol

from spaced_kd.errors import ConfigError

MIB = 1 << 20
_MOST_AHEAD = 1024  # elements; what is ready long before its use only fills memory


class Readable(Protocol):
    """A sequence whose elements are read when asked for, by any thread."""

    def __len__(self) -> int: ...  # noqa: D105

    def __getitem__(self, index: int) -> Any: ...  # noqa: D105


def read_ahead(elements: Readable, start: int, threads: int, ahead: int) -> Any:
    """Return an iterator over elements[start:], to be closed with `.close()`.

    The order is that of the elements, whichever thread is done first; an error that
    reading element k raises comes from the k-th `next`. At most `ahead` + 1 elements
    exist that were not handed out.

    Threads, not processes: decoders release the interpreter lock, nothing is pickled,
    and no flag of absl's needs to be parsed.

    Args:
      elements: `elements[k]` is called by the threads, once for each k.
      start: first element.
      threads: that read, at most.
      ahead: elements that may wait, 1 or more.
    """
    # Takes seconds to import, and only streamed data need it.
    import grain

    options = grain.ReadOptions(
        num_threads=min(threads, ahead), prefetch_buffer_size=ahead
    )
    dataset = grain.MapDataset.source(elements)[start:]
    return iter(dataset.to_iter_dataset(options))


def affordable(
    memory_mib: int, share: float, element_bytes: int, held: int, what: str
) -> int:
    """Return how many elements may wait if all that are in memory stay in bounds.

    Args:
      memory_mib: `config.data.stream_memory_mib`.
      share: of it that these elements may take.
      element_bytes: of one element.
      held: elements in other hands at the same time.
      what: an element is, for the message.

    Raises:
      ConfigError: not even one may; gives the numbers.
    """
    fit = int(share * memory_mib * MIB) // element_bytes
    # The iterator takes one out of the queue before it refills the queue.
    ahead = fit - held - 1
    if ahead < 1:
        enough = math.ceil((held + 2) * element_bytes / (share * MIB))
        raise ConfigError(
            f"config.data.stream_memory_mib={memory_mib} leaves {share * memory_mib:g} "
            f"MiB, room for {fit} times {what} ({element_bytes / MIB:.3g} MiB), but "
            f"{held + 2} are needed; raise it to {enough} or more, which changes no "
            "result."
        )
    return min(ahead, _MOST_AHEAD)
