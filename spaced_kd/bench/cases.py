"""The comparisons, one a letter: what is built, measured, and held against a limit."""

import dataclasses
import functools
import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax

from spaced_kd.bench import gpu, quiet
from spaced_kd.bench.arrangement import (
    ONLINE,
    SPACED,
    Arrangement,
    Augmentation,
    Settings,
    build,
    jitted,
    pmapped,
    replay_bytes,
)
from spaced_kd.bench.ratios import (
    ONLINE_TO_SPACED,
    Row,
    Times,
    compare,
    interleave,
    students_limit,
)
from spaced_kd.bench.worker import Unavailable, Worker, ending
from spaced_kd.config import NO_TEACHER
from spaced_kd.models import MODELS
from spaced_kd.schedule import Lockstep

REPLAY_BYTES_LIMIT = 16.0
PLAIN = {
    "data__crop_padding": 0,
    "data__horizontal_flip": False,
    "data__rotation_degrees": 0.0,
}
"""No augmentation, where what is compared with has none."""

TORCH = ("eager NCHW", "eager channels_last", "compiled channels_last")
VIRTUAL_DEVICES = 2
SEEDS = 4

Result = tuple[list[Row], Times]


class Bench:
    """Runs cases; what several of them need is built once."""

    def __init__(self, settings: Settings):
        """Build nothing yet."""
        self.settings = settings
        self._gate = functools.partial(quiet.wait, settings.quiet_seconds)
        self._built: dict[str, Arrangement] = {}

    def run(self, letter: str) -> Result:
        """Measure one case.

        Args:
          letter: a key of CASES.

        Returns:
          Its rows, and all times that they come from, in seconds.
        """
        title, case = CASES[letter]
        try:
            return case(self)
        except Unavailable as error:
            return [Row(letter, title, note=f"not available: {error}")], {}

    def online(self) -> Arrangement:
        """A teacher and an online student."""
        return self._once("online", {"online": ONLINE})

    def spaced(self) -> Arrangement:
        """A teacher and a spaced student."""
        return self._once("spaced", {"spaced": SPACED})

    def time(self, variants: Mapping[str, Callable[[], float]]) -> Times:
        """Time variants in turns."""
        return interleave(variants, self.settings.rounds, self._gate)

    def _once(self, name: str, students: Mapping[str, Any]) -> Arrangement:
        if name not in self._built:
            self._built[name] = Arrangement(build(self.settings, students))
        return self._built[name]


def spaced_against_online(bench: Bench) -> Result:
    """Cost of a student step, its teacher's included: 7 passes against 6."""
    times = bench.time({"spaced": bench.spaced(), "online": bench.online()})
    name = "a spaced step / an online step"
    row = compare("a", name, times["spaced"], times["online"], ONLINE_TO_SPACED)
    return [row], times


def one_teacher_for_all(bench: Bench) -> Result:
    """K students that share a teacher against K runs of a pair."""
    count = bench.settings.students
    students = {f"spaced_{k}": SPACED for k in range(count)}
    shared = Arrangement(build(bench.settings, students))
    pair = bench.spaced()

    def separate() -> float:
        return sum(pair() for _ in range(count))

    times = bench.time({"shared": shared, "separate": separate})
    name = f"{count} students of one teacher / {count} runs"
    limit = students_limit(count)
    return [compare("b", name, times["shared"], times["separate"], limit)], times


def scan_against_loop(bench: Bench) -> Result:
    """A chunk in one program against one call for each step."""
    loop = Arrangement(build(bench.settings, {"online": ONLINE}, compose="loop"))
    times = bench.time({"scan": bench.online(), "loop": loop})
    name = "a step in a chunk / a single step"
    return [compare("c", name, times["scan"], times["loop"], 1.05)], times


def pmap_against_jit(bench: Bench) -> Result:
    """Both compilers on one device, and several devices against one."""
    parts = build(bench.settings, {"spaced": SPACED})
    times = bench.time({"pmap": pmapped(parts), "jit": jitted(parts)})
    rows = [compare("d", "pmap / jit, one device", times["pmap"], times["jit"], 1.1)]
    on_cpu = jax.default_backend() == "cpu"
    count = VIRTUAL_DEVICES if on_cpu else jax.local_device_count()
    name = f"{count} {'virtual ' if on_cpu else ''}devices / one"
    if count < 2 or bench.settings.batch_size % count:
        return [
            *rows,
            Row("d", name, note="not available: needs a batch for two"),
        ], times
    try:
        found = _devices_against_one(bench, count)
    except Unavailable as error:
        return [*rows, Row("d", name, note=f"not available: {error}")], times
    limit = 1.1 if on_cpu else None
    over, under = found[f"{count} devices"], found["1 devices"]
    return [*rows, compare("d", name, over, under, limit)], times | found


def _devices_against_one(bench: Bench, count: int) -> Times:
    workers: dict[str, Worker] = {}
    with ending(workers):
        for devices in (1, count):
            workers[f"{devices} devices"] = Worker(
                "jax",
                bench.settings,
                {"JAX_NUM_CPU_DEVICES": str(count)},
                num_devices=devices,
            )
        return bench.time(workers)


def streamed_against_resident(bench: Bench) -> Result:
    """Images that are sent for every chunk against images that wait on the device."""
    stream = Arrangement(build(bench.settings, {"s": SPACED}, data__input="stream"))
    times = bench.time({"streamed": stream, "resident": bench.spaced()})
    stream.close()
    name = "streamed input / resident"
    return [compare("e", name, times["streamed"], times["resident"])], times


def bytes_of_a_replay(bench: Bench) -> Result:
    """What a replay must remember of each example, at two image sizes."""
    rows = []
    for size in (32, 64):
        settings = dataclasses.replace(bench.settings, image_size=size)
        name = f"bytes an example in a replay, {size} px"
        rows.append(Row("f", name, replay_bytes(settings), limit=REPLAY_BYTES_LIMIT))
    return rows, {}


def warm_against_cold_start(bench: Bench) -> Result:
    """Time to the end of the first chunk, with and without compiled programs."""
    times: Times = {"cold": [], "warm": []}
    for _ in range(bench.settings.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in times:
                # The first would take the place of the second.
                env = {"JAX_COMPILATION_CACHE_DIR": None, "XDG_CACHE_HOME": folder}
                worker = Worker("jax", bench.settings, env)
                times[name].append(worker.startup_seconds)
                worker.end()
    cold, warm = min(times["cold"]), min(times["warm"])
    note = f"{warm:.1f} s, cold {cold:.1f} s"
    name = "first chunk, warm / cold compile cache"
    return [compare("g", name, times["warm"], times["cold"], 1.0, note)], times


def augmentation_share(bench: Bench) -> Result:
    """Fetching and augmenting a batch against the teacher's training step on it."""
    train = Arrangement(build(bench.settings, {"spaced": SPACED}), (Lockstep,))
    times = bench.time({"augmentation": Augmentation(train), "train": train})
    name = "augmentation / a training step"
    row = compare("h", name, times["augmentation"], times["train"], 0.03)
    return [row], times


def jax_against_torch(bench: Bench) -> Result:
    """Our training step against the same step in PyTorch, in three forms."""
    name = "our training step / PyTorch"
    if importlib.util.find_spec("torch") is None:
        return [Row("i", name, note="not available: PyTorch is not installed")], {}
    rows: list[Row] = []
    times: Times = {}
    env = {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}
    ours = Worker("jax", bench.settings, env, **PLAIN)
    with ending({"jax": ours}):
        # Layout by layout, so that one whose process ends takes no other's row along.
        for layout in TORCH:
            limit = 1.0 if layout == "eager NCHW" else None
            try:
                found = _against_layout(bench, ours, layout)
            except Unavailable as error:
                rows.append(
                    Row("i", f"{name} {layout}", note=f"not available: {error}")
                )
                continue
            over, under = found["jax"], found[layout]
            rows.append(compare("i", f"{name} {layout}", over, under, limit))
            times |= {f"jax, beside {layout}": over, layout: under}
    return rows, times


def _against_layout(bench: Bench, ours: Worker, layout: str) -> Times:
    theirs = Worker(layout, bench.settings, {"OMP_WAIT_POLICY": "PASSIVE"})
    with ending({layout: theirs}):
        return bench.time({"jax": ours, layout: theirs})


def unrolled_against_sequential(bench: Bench) -> Result:
    """Repetitions side by side in one program against one after another."""
    times = bench.time(
        {
            layout: Arrangement(
                build(
                    bench.settings,
                    {"spaced": SPACED},
                    num_seeds=SEEDS,
                    seed_layout=layout,
                ),
                (Lockstep,),
            )
            for layout in ("unrolled", "sequential")
        }
    )
    name = f"{SEEDS} seeds unrolled / one after another"
    return [compare("j", name, times["unrolled"], times["sequential"])], times


def self_kd(bench: Bench) -> Result:
    """A batch of spaced self KD against its controls: two updates, two, and one."""
    own = f"{bench.settings.model}_branches"
    model = own if own in MODELS else "small_cnn_branches"
    fields = PLAIN | {"teacher__model": NO_TEACHER, "student__model": model}
    fields |= {"student__method": "self_kd"}
    plans = {"spaced": SPACED, "interleaved": {"plan": "interleaved"}, "plain": ONLINE}
    times = bench.time(
        {
            name: Arrangement(build(bench.settings, {name: plan}, **fields))
            for name, plan in plans.items()
        }
    )
    spaced = functools.partial(compare, "l", over=times["spaced"])
    name = f"self KD, {model}: a batch spaced"
    return [
        spaced(f"{name} / interleaved", under=times["interleaved"], limit=1.05),
        spaced(f"{name} / plain", under=times["plain"], limit=2.0),
    ], times


CASES: dict[str, tuple[str, Callable[[Bench], Result]]] = {
    "a": ("spaced against online", spaced_against_online),
    "b": ("students of one teacher", one_teacher_for_all),
    "c": ("chunks against single steps", scan_against_loop),
    "d": ("pmap against jit, devices", pmap_against_jit),
    "e": ("streamed against resident input", streamed_against_resident),
    "f": ("what a replay remembers", bytes_of_a_replay),
    "g": ("start-up", warm_against_cold_start),
    "h": ("augmentation", augmentation_share),
    "i": ("PyTorch", jax_against_torch),
    "j": ("repetitions", unrolled_against_sequential),
    "k": ("GPU", lambda bench: gpu.throughput(bench.settings, bench.time)),
    "l": ("self KD", self_kd),
}
"""Letter -> title, case."""
