"""Images a second in bfloat16, and how much of what the GPU can do that is."""

import math
import statistics
from collections.abc import Callable, Mapping

import jax

from spaced_kd.bench.arrangement import SPACED, Arrangement, Settings, build
from spaced_kd.bench.ratios import Row, Times, compare, roofline
from spaced_kd.schedule import Lockstep

PEAKS = {
    # Dense bfloat16 operations a second and bytes a second, from NVIDIA's data sheets.
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 2.0e12),
    "L40S": (362e12, 0.864e12),
    "L4": (121e12, 0.3e12),
}
"""Part of a device's name -> its peaks; the first that fits counts."""


def throughput(
    settings: Settings, time: Callable[[Mapping[str, Callable[[], float]]], Times]
) -> tuple[list[Row], Times]:
    """Measure plain training in bfloat16 against float32, in img/s and of the roofline.

    Args:
      settings: shared by all cases.
      time: times variants in turns.
    """
    name = "a step in bfloat16 / float32"
    if jax.default_backend() != "gpu":
        return [Row("k", name, note="not measured: no GPU")], {}
    steps = {
        kind: Arrangement(
            build(settings, {"spaced": SPACED}, compute_dtype=kind), (Lockstep,)
        )
        for kind in ("bfloat16", "float32")
    }
    times = time(steps)
    rows = [compare("k", name, times["bfloat16"], times["float32"])]
    for kind, seconds in times.items():
        speed = settings.batch_size / statistics.median(seconds)
        rows.append(Row("k", f"training images a second, {kind}", speed))
    least = least_seconds(settings, jax.local_devices()[0].device_kind)
    share = "share of the roofline, bfloat16"
    if least is None:
        return [*rows, Row("k", share, note="not available: peaks unknown")], times
    value = least / statistics.median(times["bfloat16"])
    return [*rows, Row("k", share, value)], times


def least_seconds(settings: Settings, device_kind: str) -> float | None:
    """Return the least time of a bfloat16 training step; None for an unknown device.

    Operations and bytes are the compiler's own count for a single step.
    """
    peaks = [p for part, p in PEAKS.items() if part in device_kind]
    if not peaks:
        return None
    # A loop's cost is counted once whatever its length, hence a single step.
    fields = {"compute_dtype": "bfloat16", "compose": "loop"}
    step = Arrangement(build(settings, {"spaced": SPACED}, **fields), (Lockstep,))
    program, arguments = step.call(Lockstep)
    cost = program.lower(*arguments).compile().cost_analysis() or {}
    flops, moved = cost.get("flops", math.nan), cost.get("bytes accessed", math.nan)
    return roofline(flops, moved, *peaks[0])
