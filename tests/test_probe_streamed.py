"""The doctor's estimate where images are read from slow disks."""

import threading
import time

import numpy as np
import pytest
import tiny
from PIL import Image

from spaced_kd import experiment, footprint, probe
from spaced_kd.config import student
from spaced_kd.probe import Kind, Probe
from spaced_kd.types import Dataset

SIDE, BATCH = 8, 4
SECONDS = 0.02
"""For an image, with one reader; a busy machine adds up to 4 ms, a step 0.1 ms."""


class SlowSource:
    """Images of which each takes its time; counts how often one was opened."""

    shape = (SIDE, SIDE, 3)

    def __init__(self, size, seconds):
        self.label = (np.arange(size) % 10).astype(np.int32)
        self.opened, self._seconds = 0, seconds
        self._lock = threading.Lock()

    def open(self, row):
        with self._lock:
            self.opened += 1
        time.sleep(self._seconds)
        return Image.new("RGB", (SIDE, SIDE), (row % 256, 0, 0))


def _parts(num_tests=40, test_seconds=0.0, **fields):
    config = tiny.config(
        {"spaced": student(plan="spaced", space_interval_epochs=1.0)},
        **{
            "data__image_size": SIDE,
            "data__stream_threads": 1,
            "data__batch_size": BATCH,
            "data__stream_memory_mib": 8,
        }
        | fields,
    )
    train, test = SlowSource(40, SECONDS), SlowSource(num_tests, test_seconds)
    dataset = Dataset("slow", train, test, 10, (0.5,) * 3, (0.5,) * 3, "")
    return experiment.build(config, dataset), train, test


TEACHER, REPLAY = Kind("lockstep", "teacher"), Kind("replay", "spaced")


def _measured(parts, steps, budget=60.0):
    measure = Probe(parts)
    try:
        return measure.measure(steps, budget)
    finally:
        measure.close()


@pytest.mark.slow
def test_a_step_takes_as_long_as_the_reading_of_its_batch():
    """Hours would be told as minutes, for every data set that is read from files."""
    parts, _, _ = _parts()
    speeds = _measured(parts, 12)
    for kind in (TEACHER, REPLAY):
        assert speeds[kind].steps == 12
        assert BATCH * SECONDS * 0.95 < speeds[kind].seconds < BATCH * SECONDS * 2


@pytest.mark.slow
def test_all_repetitions_are_read():
    """They take turns in one stream: three batches for a step of all three."""
    parts, _, _ = _parts(num_seeds=3)
    seconds = _measured(parts, 4)[TEACHER].seconds
    assert 3 * BATCH * SECONDS * 0.95 < seconds < 3 * BATCH * SECONDS * 2


def test_single_steps_are_read_too_where_no_more_fits():
    """A chunk of four takes 0.32 s."""
    parts, _, _ = _parts()
    speed = _measured(parts, 12, budget=2.5)[TEACHER]
    assert speed.steps > 0
    assert BATCH * SECONDS * 0.95 < speed.seconds < BATCH * SECONDS * 3


def test_an_evaluation_is_measured_on_a_part_and_told_for_all():
    """50,000 images from a slow disk would take longer than the whole budget."""
    parts, _, test = _parts(num_tests=20000, test_seconds=SECONDS)
    evaluation = Kind("evaluation", "teacher")
    started = time.monotonic()
    found = _measured(parts, 20, budget=6.0)[evaluation]
    assert time.monotonic() - started < 30  # with compilation
    assert found.steps == 1
    assert 20000 * SECONDS * 0.95 < found.seconds < 20000 * SECONDS * 2
    assert test.opened < 600


def test_two_pieces_are_on_the_device_at_a_time():
    """By hand: chunks of 4 steps of 4 images and labels, test batches of 16."""
    parts, _, _ = _parts()
    template = experiment.state_template(parts)
    image = SIDE * SIDE * 3
    data = footprint.memory(parts, template, 0).data
    assert data == 2 * 4 * BATCH * (image + 4) + 2 * 16 * image


@pytest.mark.parametrize(("untimed", "calls"), [(1, 9), (2, 8)])
def test_untimed_calls_are_paid_from_the_share(untimed, calls):
    assert probe.calls_within(1.0, 1, 20, 10.0, untimed) == (1, calls)
