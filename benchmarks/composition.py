"""How steps and repetitions are best composed on this machine: docs/performance.md.

    python benchmarks/composition.py

Prints, for two networks, the time of a teacher-and-student step in four arrangements,
as ratios to the first, all measured in turns in one process: medians of the ratios over
the rounds, with their range. One seed: scan against loop. Four seeds: unrolled against
sequential. Start-up is compilation plus the first chunk. Takes about ten minutes on 2
cores.
"""

import platform
import statistics
import time

import jax

from spaced_kd import backend, config, data, experiment
from spaced_kd.engine import Engine
from spaced_kd.schedule import Lockstep, Member

ROUNDS, CHUNK = 7, 8


class Arrangement:
    """One way to run the same lockstep chunk again and again."""

    def __init__(self, model: str, shape: str, num_seeds: int, **fields):
        """Compile, and remember how long that took."""
        settings = config.base_config()
        settings.num_seeds, settings.num_devices = num_seeds, 1
        settings.chunk_steps = CHUNK
        settings.teacher.model = settings.student.model = model
        settings.students = {"online": config.student(plan="online")}
        settings.data.name = shape
        settings.data.batch_size = 32
        settings.data.horizontal_flip = False
        for name, value in fields.items():
            settings[name] = value
        resolved = config.from_config_dict(settings)
        parts = experiment.build(resolved, data.load(resolved.data))
        self._engine = Engine(parts)
        self._states = experiment.init_states(parts)
        self._seeds = num_seeds
        start = time.perf_counter()
        self.step_seconds()
        self.startup_seconds = time.perf_counter() - start

    def step_seconds(self) -> float:
        """Return seconds for one step of one seed's teacher and student."""
        tick = Lockstep(0, CHUNK, (Member("online"),))
        start = time.perf_counter()
        self._states, _ = self._engine.advance(self._states, tick)
        jax.block_until_ready(self._states)
        return (time.perf_counter() - start) / CHUNK / self._seeds


def compare(title: str, arrangements: dict[str, Arrangement]) -> None:
    """Print the ratios of all arrangements to the first."""
    times = {name: [] for name in arrangements}
    for _ in range(ROUNDS):
        for name, arrangement in arrangements.items():
            times[name].append(arrangement.step_seconds())
    first = next(iter(times))
    for name, values in times.items():
        ratios = [a / b for a, b in zip(values, times[first], strict=True)]
        median, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(
            f"| {title} | {name} | {1000 * statistics.median(values):.2f} "
            f"| {median:.2f} ({low:.2f}-{high:.2f}) "
            f"| {arrangements[name].startup_seconds:.1f} |",
            flush=True,
        )


def main() -> None:
    """Measure and print a Markdown table."""
    backend.configure()
    jax.config.update("jax_enable_compilation_cache", False)
    device = f"{jax.device_count()} {jax.default_backend()} device(s)"
    versions = f"jax {jax.__version__}, Python {platform.python_version()}"
    print(f"{platform.machine()}, {device}, {versions}, {ROUNDS} rounds\n")
    print(
        "| network | arrangement | ms a step and seed | ratio (range) | start-up, s |"
    )
    print("|---|---|---|---|---|")
    for model, shape in (("small_cnn", "digits"), ("resnet8", "cifar100")):
        title = f"{model}, {shape}, batch 32"
        compare(
            title,
            {
                "1 seed, scan": Arrangement(model, shape, 1),
                "1 seed, loop": Arrangement(model, shape, 1, compose="loop"),
            },
        )
        compare(
            title,
            {
                "4 seeds, sequential": Arrangement(
                    model, shape, 4, seed_layout="sequential"
                ),
                "4 seeds, unrolled": Arrangement(
                    model, shape, 4, seed_layout="unrolled"
                ),
            },
        )


if __name__ == "__main__":
    main()
