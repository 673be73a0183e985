"""What a Hessian trace costs: seconds and memory, over probes and over data.

    python benchmarks/hessian_cost.py

ResNet-8 on random 32x32 images, cross-entropy, chunks of 64 examples. Seconds are the
median of three rounds, compiling not counted. Memory is what the compiled program
reserves beside its arguments and results; it is that of one chunk and one probe (a
single probe needs no loop and a little less). The last line holds the compiled loop
over probes against a Python loop over single ones.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd import backend
from spaced_kd.analysis import chunks, curvature
from spaced_kd.analysis.curvature import Risk
from spaced_kd.analysis.objectives import Objective, Taught
from spaced_kd.config import MethodConfig
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.models.resnet import resnet8
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import Split

CHUNK = 64
COUNTS = (1, 2, 4, 8)
ROUNDS = 3


def main() -> None:
    """Print the table and the comparison."""
    backend.configure()
    print("probes  chunks  seconds  per probe and chunk  memory, MB")
    for probes, parts in [(n, 1) for n in COUNTS] + [(1, n) for n in COUNTS[1:]]:
        risk = _risk(parts)
        seconds = _median(lambda: _trace(risk, probes))  # noqa: B023 - called at once
        each = seconds / probes / parts
        memory = _reserved(risk, probes) / 1e6
        print(f"{probes:6d} {parts:7d} {seconds:8.2f} {each:20.2f} {memory:11.1f}")
    risk = _risk(1)
    looped = _median(lambda: [_trace(risk, 1) for _ in range(4)])
    compiled = _median(lambda: _trace(risk, 4))
    print(f"\nfour probes: {looped:.2f} s in a Python loop, {compiled:.2f} s compiled")


def _risk(num_chunks: int) -> Risk:
    count = num_chunks * CHUNK
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = np.arange(count, dtype=np.int32) % 10
    spec = AugmentSpec(0, False, 0.0, (0.5,) * 3, (0.25,) * 3, padded=False)
    model = resnet8(10)
    made = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    group = SeedGroup((0,), (jax.devices()[0],))
    return Risk(
        loss_sum=Objective(model, spec, "ce", MethodConfig()),
        params=made["params"],
        fixed={"batch_stats": made["batch_stats"]},
        chunks=[
            Taught(*chunk, None)
            for chunk in chunks.of(Split(images, labels), CHUNK, group)
        ],
        num_examples=count,
        group=group,
    )


def _trace(risk: Risk, num_probes: int) -> curvature.Trace:
    return curvature.trace(risk, jax.random.key(1), num_probes=num_probes)


def _reserved(risk: Risk, num_probes: int) -> int:
    program = curvature.quadratic_forms(risk.loss_sum, risk.group, "rademacher")
    keys = curvature.keys_of(jax.random.key(1), num_probes)
    chunk = risk.chunks[0]
    compiled = program.lower((risk.params, risk.fixed, keys), chunk).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _median(work: Callable[[], object]) -> float:
    work()
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


if __name__ == "__main__":
    main()
