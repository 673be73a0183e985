"""Streamed data: replays read the same pixels, memory is bounded, resuming is exact."""

import collections
import hashlib
import logging
import threading
import time
import weakref

import chex
import image_folders
import jax
import numpy as np
import pytest
import tiny
from image_folders import CLASSES, LAYOUTS
from PIL import Image

from spaced_kd import data, evaluate, experiment, plan_reads, streamed, train
from spaced_kd.config import student
from spaced_kd.data import host_crop, imagenet
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.data.read_ahead import MIB, read_ahead
from spaced_kd.engine import Engine
from spaced_kd.errors import ConfigError, DataError
from spaced_kd.feeds import Resident
from spaced_kd.interrupt import StopRequest
from spaced_kd.parallel import SeedGroup
from spaced_kd.schedule import Evaluate, Lockstep, Replay
from spaced_kd.streamed import Streamed

SIDE = 32
TRAIN, TEST = 100, 6  # a class: 400 x 3 KiB when decoded, more than 1 MiB
STEP_BYTES = 16 * SIDE * SIDE * 3


@pytest.fixture(scope="module")
def files():
    return image_folders.make_files(TRAIN, TEST)


@pytest.fixture(scope="module")
def stored(files, tmp_path_factory):
    """The same images in every layout, each in a folder of its name."""
    root = tmp_path_factory.mktemp("stored")
    for layout, write in LAYOUTS.items():
        write(root / layout, files)
    return root


@pytest.fixture
def build(monkeypatch, stored):
    """Return a function: an experiment on the stored images."""
    monkeypatch.setitem(
        data.DATASETS, "pictures", image_folders.loader(TRAIN, TEST, CLASSES)
    )

    def make(students, layout="folders", **fields):
        settings = {
            "num_epochs": 2,
            "data__name": "pictures",
            "data__dir": str(stored / layout),
            "data__num_train_examples": 0,
            "data__num_test_examples": 0,
            "data__image_size": SIDE,
            "data__resized_crop_scale": 0.2,
            "data__stream_memory_mib": 1,
            "data__stream_threads": 3,
        }
        config = tiny.config(students, **settings | fields)
        return experiment.build(config, data.load(config.data))

    return make


def shown(feed, group, segment):
    """Return {seed: {slot: [(step, pixels of the step)]}} as a program would index."""
    images, slots = feed.piece(group, segment)
    found = {}
    for seed, by_name in zip(group.seeds, slots, strict=True):
        found[seed] = {}
        for name, slot in by_name.items():
            rows = slot.index if slot.index.ndim == 3 else slot.index[:, None]
            # With one device, or a split that all devices hold, there is no such axis.
            shared = feed.batch_axis is None or slot.index.ndim == 2
            stack = np.asarray(images.image), np.asarray(images.label)
            steps = []
            for step, devices in zip(slot.step, rows, strict=True):
                batch = []
                for device, index in enumerate(devices):
                    image, label = stack if shared else (s[device] for s in stack)
                    batch += [
                        (label[i], image[i].tobytes()) if i >= 0 else None
                        for i in index
                    ]
                steps.append((int(step), batch))
            found[seed][name] = steps
    return found


def digests(feed, parts):
    """Return {(who, step): hash of the batch} of a whole run."""
    found = {}
    for tick in parts.ticks:
        if isinstance(tick, Evaluate):
            continue
        for group in parts.groups:
            for seed, by_name in shown(feed, group, tick).items():
                for name, steps in by_name.items():
                    who = tick.student if isinstance(tick, Replay) else name
                    for step, batch in steps:
                        digest = hashlib.sha256(repr(batch).encode()).hexdigest()
                        assert (seed, who, step) not in found
                        found[seed, who, step] = digest
    return found


SPACED = {"spaced": student(plan="spaced", space_interval_epochs=0.7)}
LATE = {"late": student(plan="constant_ahead", space_interval_epochs=0.5)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_replay_reads_the_very_pixels_that_the_teacher_saw(build, layout):
    """The heart of the method: at every step, for a set larger than the memory."""
    parts = build(SPACED, layout)
    assert len(parts.dataset.train.label) * SIDE * SIDE * 3 > MIB
    feed = Streamed(parts)
    found = digests(feed, parts)
    feed.close()
    replayed = [step for _, who, step in found if who == "spaced"]
    assert len(replayed) == 34 and len(set(found.values())) == 50
    for step in replayed:
        assert found[0, "spaced", step] == found[0, "stream", step], step


def test_a_network_that_teaches_itself_replays_the_very_pixels(build):
    """The label-only phase reads the stream, and the replay reads it again."""
    fields = {"teacher__model": "none", "student__model": "small_cnn_branches"}
    own = {"own": student(plan="spaced", space_interval_epochs=0.7, method="self_kd")}
    parts = build(own, **fields)
    feed = Streamed(parts)
    found = digests(feed, parts)
    feed.close()
    replayed = [step for _, who, step in found if who == "own"]
    assert replayed == list(range(34))
    for step in replayed:
        assert found[0, "own", step] == found[0, "stream", step], step


def test_the_pixels_are_those_of_the_files(build, files):
    """Judged by reading the files here, in the order that the stream gives."""
    parts = build(SPACED, num_epochs=1)
    feed = Streamed(parts)
    ((step, batch),) = shown(feed, parts.groups[0], Lockstep(0, 4, ()))[0]["stream"][
        2:3
    ]
    feed.close()
    ordered = [
        (label, files["train"][name][image])
        for label, name in enumerate(CLASSES)
        for image in sorted(files["train"][name])
    ]
    words = np.asarray(jax.random.key_data(parts.streams[0].keys.augment))
    rows = parts.streams[0].teacher.indices(step, step + 1)[0]
    for place, (row, (label, pixels)) in enumerate(zip(rows, batch, strict=True)):
        true, content = ordered[row]
        image = Image.open(image_folders.io.BytesIO(content))
        draw = host_crop.crop_draws(words, step, place)
        cut = image.crop(host_crop.random_box(*image.size, 0.2, draw))
        assert label == true
        assert pixels == cut.resize((SIDE, SIDE), 2).tobytes()


def test_reaugmented_replays_differ_in_the_crop_and_reshuffled_ones_in_order(build):
    """reaugment: the same images, cropped anew; reshuffle: other images as well."""
    students = {
        "again": student(plan="spaced", space_interval_epochs=1, replay="reaugment"),
        "fresh": student(plan="spaced", space_interval_epochs=1, replay="reshuffle"),
    }
    parts = build(students, num_epochs=1)
    feed, labels = Streamed(parts), {}
    pixels = collections.defaultdict(set)
    for tick in parts.ticks:
        if isinstance(tick, Evaluate):
            continue
        who = tick.student if isinstance(tick, Replay) else "teacher"
        for step, batch in shown(feed, parts.groups[0], tick)[0]["stream"]:
            labels[who, step] = [label for label, _ in batch]
            pixels[who].update(image for _, image in batch)
    feed.close()
    same = lambda who: [labels[who, t] == labels["teacher", t] for t in range(25)]
    assert all(same("again")) and not any(same("fresh"))
    assert not pixels["again"] & pixels["teacher"]
    assert not pixels["fresh"] & pixels["teacher"]


def test_a_member_that_lags_reads_the_teachers_old_batches(build):
    """Two batches a step, of which the late one repeats pixels of earlier steps."""
    parts = build(LATE, num_epochs=1)
    feed = Streamed(parts)
    found = digests(feed, parts)
    feed.close()
    late = [step for _, who, step in found if who == "late"]
    assert late == list(range(25 - 12))
    for step in late:
        assert found[0, "late", step] == found[0, "stream", step]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_seeds": 2, "num_devices": 2},
        {"num_seeds": 2, "seed_layout": "unrolled", "num_devices": 4},
        {"num_seeds": 3, "seed_layout": "devices", "num_devices": 2},
    ],
)
@pytest.mark.parametrize("students", [SPACED, LATE], ids=["spaced", "late"])
def test_a_streamed_split_shows_what_a_resident_one_does(students, fields):
    """Labels, pixels, padding, steps: in every layout, for every slot."""
    parts = experiment.build(
        config := tiny.config(students, data__input="stream", **fields),
        data.load(config.data),
    )
    assert parts.streams[0].teacher.has_padding
    feed, resident = Streamed(parts), Resident(parts, parts.dataset.train)
    compared = 0
    for tick in parts.ticks:
        for group in parts.groups if not isinstance(tick, Evaluate) else ():
            assert shown(feed, group, tick) == shown(resident, group, tick)
            compared += 1
    feed.close()
    assert compared > 5


def run_ticks(engine, parts, ticks=None):
    states, measured = experiment.init_states(parts), []
    for tick in ticks or parts.ticks:
        if not isinstance(tick, Evaluate):
            states, values = engine.advance(states, tick)
            measured.append(values)
    engine.close()
    return states, measured


@pytest.mark.real_compiler
@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_training_on_a_streamed_split_is_bitwise_that_on_a_resident_one(devices):
    """The compiled steps must not tell where the images come from."""
    results = []
    for where in ("device", "stream"):
        config = tiny.config(
            SPACED,
            num_epochs=1,
            num_devices=devices,
            data__input=where,
            data__horizontal_flip=True,
        )
        parts = experiment.build(config, data.load(config.data))
        results.append(run_ticks(Engine(parts), parts))
    chex.assert_trees_all_equal(*results)


def test_memory_stays_within_the_bound(build, monkeypatch):
    """All images that were read and not yet let go, at any moment, with slow use."""
    parts = build(SPACED, num_epochs=1)
    live, most, lock = [0], [0], threading.Lock()
    real = plan_reads.PlanReads.__getitem__

    def count(change):
        with lock:
            live[0] += change
            most[0] = max(most[0], live[0])

    def counted(self, index):
        step = real(self, index)
        count(step.image.nbytes)
        weakref.finalize(step.image, count, -step.image.nbytes)
        return step

    monkeypatch.setattr(plan_reads.PlanReads, "__getitem__", counted)
    feed = Streamed(parts)
    # 3/4 of 1 MiB hold 16 steps of 48 KiB: 4 in a chunk, 1 in hand, 11 wait.
    assert feed._ahead == 11
    for tick in parts.ticks[:4]:
        feed.piece(parts.groups[0], tick)
        # It also has to be used: a bound that nothing comes near is no test.
        deadline = time.monotonic() + 60
        while live[0] < 11 * STEP_BYTES and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert live[0] == 11 * STEP_BYTES
    feed.close()
    assert most[0] + 4 * STEP_BYTES <= 0.75 * MIB


def test_too_little_memory_is_refused_with_the_numbers(build):
    """Before anything is written, not an epoch later; other data are no remedy."""
    with pytest.raises(ConfigError) as error:
        build(SPACED, chunk_steps=15)
    # 15 + 2 steps of 48 KiB are 0.797 MiB, three quarters of 1.06.
    message = str(error.value)
    assert "stream_memory_mib=1 leaves 0.75 MiB, room for 16" in message
    assert "17 are needed; raise it to 2 or more" in message
    build(SPACED, chunk_steps=15, data__stream_memory_mib=2)
    # Two batches of 90 and two images more, of 3 KiB: 0.533 MiB, a quarter of 2.13.
    with pytest.raises(ConfigError, match=r"room for 85 .* 182 are .* to 3 or more"):
        build(SPACED, data__eval_batch_size=90)
    build(SPACED, data__eval_batch_size=90, data__stream_memory_mib=3)


def test_groups_that_share_devices_share_their_room(build, monkeypatch):
    """Two pieces lie on a device, however many repetitions take turns there."""
    parts = build(SPACED, num_epochs=1, num_seeds=3)
    assert len({group.devices for group in parts.groups}) == 1 < len(parts.groups)
    feed, waited = Streamed(parts), []
    monkeypatch.setattr(streamed.jax, "block_until_ready", waited.append)
    for number, group in enumerate(parts.groups):
        feed.piece(group, parts.ticks[0])
        feed.started(group, number)
        assert waited == list(range(number - 1))
    feed.close()


def test_the_bound_is_told_once(build, caplog):
    """For a process: a cluster's node may have several of them."""
    with caplog.at_level(logging.INFO, "spaced_kd"):
        Streamed(build(SPACED))
    lines = [line for line in caplog.messages if "reads ahead" in line]
    assert lines == [
        "each process reads ahead 11 steps of 0.0469 MiB, at most 0.75 MiB with those "
        "in use; originals being decoded, one a thread, come on top"
    ]


def test_files_cannot_be_asked_to_live_on_the_device(build):
    with pytest.raises(ConfigError) as error:
        build(SPACED, data__input="device")
    # 400 x 32 x 32 x 3 bytes = 0.001144 GiB.
    for words in ("400 training images of pictures", "0.001144 GiB", "32x32", "auto"):
        assert words in str(error.value)


@pytest.mark.parametrize("start", [1, 8])
def test_reading_can_start_anywhere_in_the_plan(build, start):
    """A resumed run asks for a tick amid the plan first, and must get its pixels."""
    parts = build(SPACED, num_seeds=2)
    whole, late = Streamed(parts), Streamed(parts)
    ticks = [tick for tick in parts.ticks if not isinstance(tick, Evaluate)]
    seen = [[shown(whole, g, tick) for g in parts.groups] for tick in ticks]
    for tick, expected in zip(ticks[start:], seen[start:], strict=True):
        assert [shown(late, g, tick) for g in parts.groups] == expected
    # Back again, and a single step at a time.
    tick, group = ticks[start], parts.groups[0]
    single = [
        shown(late, group, tick._replace(start=at, stop=at + 1))
        for at in range(tick.start, tick.stop)
    ]
    steps = [by_seed[0]["stream"][0] for by_seed in single]
    assert steps == seen[start][0][0]["stream"]
    whole.close()
    late.close()


@pytest.mark.slow
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(build, tmp_path, monkeypatch):
    """Interrupted amid a window and amid a replay; state, metrics and evaluations."""
    parts = build(SPACED, num_epochs=1, data__horizontal_flip=True)
    engine = Engine(parts)
    monkeypatch.setattr(train, "Engine", lambda parts: engine)
    (tmp_path / "whole").mkdir()
    train.Loop(parts, tmp_path / "whole").finish(StopRequest())
    at = [i for i, tick in enumerate(parts.ticks) if isinstance(tick, Replay)][1]
    for stop in (2, at, len(parts.ticks)):
        (tmp_path / "cut").mkdir(exist_ok=True)
        shorter = experiment.dataclasses.replace(parts, ticks=parts.ticks[:stop])
        train.Loop(shorter, tmp_path / "cut").finish(StopRequest())
    last = f"checkpoints/{len(parts.ticks):08d}/manifest.json"
    manifests = [
        train.workdir.json.loads((tmp_path / run / last).read_text())["body"]["leaves"]
        for run in ("whole", "cut")
    ]
    assert manifests[0] == manifests[1]
    logs = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "cut")]
    assert logs[0] == logs[1] and b'"eval"' in logs[0]


@pytest.mark.parametrize("devices", [1, 2])
def test_streamed_evaluation_counts_every_image_once(build, devices):
    """24 images in batches of 10: order, the filled-up last batch, the crop."""
    parts = build(
        SPACED, data__eval_batch_size=10, data__eval_resize=36, num_devices=devices
    )
    test, config = parts.dataset.test, parts.config
    state = experiment.init_states(parts)[0]["teacher"]
    got = Engine(parts).predict(0, "teacher", state).logits
    crop = host_crop.host_crop_of(config.data, SIDE)
    images = np.stack([host_crop.eval_pixels(test.open(i), crop) for i in range(24)])
    group = parts.groups[0]
    model = parts.networks(group.axis).teacher.network.model
    spec = AugmentSpec(0, False, 0.0, imagenet.MEAN, imagenet.STD, padded=False)
    predict = evaluate.make_predict(model, group, 24, 24, spec)
    expected = predict(state.variables, group.put(images)).logits
    assert got.shape == (24, 4)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_damaged_image_ends_the_run_with_its_name(build, monkeypatch):
    """The error is raised in a thread and must arrive as one line, in its turn."""
    parts = build(SPACED, num_epochs=1)
    row = int(parts.streams[0].teacher.indices(5, 6)[0, 3])
    images = parts.dataset.train
    entry = images.listing.name[row].decode()
    size = images.listing.size.copy()
    size[row] //= 2
    broken = image_folders.imagenet.dataclasses.replace(
        images, listing=images.listing._replace(size=size)
    )
    monkeypatch.setattr(
        type(images.store),
        "read",
        lambda self, e: (self.paths[e.holder] / e.name).read_bytes()[: e.size],
    )
    parts = experiment.dataclasses.replace(
        parts, dataset=parts.dataset._replace(train=broken)
    )
    feed = Streamed(parts)
    feed.piece(parts.groups[0], Lockstep(0, 4, ()))
    with pytest.raises(DataError) as error:
        feed.piece(parts.groups[0], Lockstep(4, 8, ()))
    assert "\n" not in str(error.value)
    assert entry in str(error.value) and "damaged" in str(error.value)
    feed.close()


def test_closing_ends_the_threads_and_what_they_had_to_read(build, monkeypatch):
    """Threads that live on would keep reading, and keep the process."""
    read, real = [], plan_reads.PlanReads.__getitem__

    def slow(self, index):
        read.append(index)
        time.sleep(0.1)
        return real(self, index)

    monkeypatch.setattr(plan_reads.PlanReads, "__getitem__", slow)
    before = set(threading.enumerate())
    feed = Streamed(parts := build(SPACED))
    feed.piece(parts.groups[0], Lockstep(0, 4, ()))
    threads = set(threading.enumerate()) - before
    assert len(threads) == 3
    feed.close()
    begun = len(read)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    # Each may have taken up one more at that very moment; 11 were waiting.
    assert len(read) <= begun + len(threads)


def test_the_crops_do_not_depend_on_the_number_of_devices(build):
    """A place is one in the global batch, whoever holds it."""
    found = []
    for devices in (1, 4):
        parts = build(SPACED, num_epochs=1, num_devices=devices)
        feed = Streamed(parts)
        found.append(digests(feed, parts))
        feed.close()
    assert found[0] == found[1]


def test_a_process_reads_the_rows_of_its_own_devices_alone(build, monkeypatch):
    """With several, each would otherwise decode everything; together they read all."""
    parts = build(SPACED, num_epochs=1, num_devices=4)
    group, tick = parts.groups[0], Lockstep(0, 4, ())
    batches = {}
    for own in (slice(0, 4), slice(0, 2), slice(2, 4)):
        local = property(lambda group, own=own: group.devices[own])
        monkeypatch.setattr(SeedGroup, "_own_devices", local)
        feed = Streamed(parts)
        batches[own.start, own.stop] = shown(feed, group, tick)[0]["stream"]
        feed.close()
    for (t, whole), (_, one), (_, two) in zip(*batches.values(), strict=True):
        assert len(whole) == 16 and whole == one + two, t


def test_elements_come_in_order_and_once_whoever_reads_first():
    """The first is slow: the others wait for it, and none is read twice."""
    read = collections.Counter()

    class Slow:
        def __len__(self):
            return 20

        def __getitem__(self, index):
            read[index] += 1
            time.sleep(0.05 if index == 3 else 0)
            return index

    iterator = read_ahead(Slow(), 3, threads=4, ahead=5)
    assert list(iterator) == list(range(3, 20))
    iterator.close()
    assert read == dict.fromkeys(range(3, 20), 1)
