import importlib.util
import inspect
import logging
import pkgutil

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from spaced_kd import data
from spaced_kd.config import DataConfig
from spaced_kd.data import contents, fake
from spaced_kd.errors import ConfigError, DataError, SpacedKDError
from spaced_kd.types import Dataset, Split

SMALL = ("digits", "fake")


def tiny(**changes):
    """Return a sound data set of 3 classes, 12 + 6 images of 4x4."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (18, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(18, dtype=np.int32) % 3
    train, test = Split(images[:12], labels[:12]), Split(images[12:], labels[12:])
    dataset = Dataset("tiny", train, test, 3, (0.5,) * 3, (0.2,) * 3, "")
    return dataset._replace(**changes)


def one_line(function, kind: type[SpacedKDError], *words):
    """Assert that a call fails for the user with one line that has the words."""
    with pytest.raises(kind) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


@pytest.fixture(params=SMALL)
def dataset(request):
    return data.load(DataConfig(name=request.param))


def test_data_sets_are_8_bit_and_every_class_is_there(dataset):
    """A loader may not hand on floats, missing classes or an empty split."""
    contents.check(dataset)
    assert dataset.train.image.dtype == np.uint8
    assert dataset.num_classes == 10 and dataset.image_shape[:2] == (8, 8)


def test_mean_and_std_are_those_of_the_training_split(dataset):
    """The constants must not go stale when a split or a pattern changes."""
    pixels = dataset.train.image / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), dataset.mean, atol=6e-5)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), dataset.std, atol=6e-5)


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("digits", "5e7bb772e922eb15f204106dfd7a71772fce86343729676cf06b3b43fa93be9d"),
        ("fake", "189e2156695a5b2fac4d80a59a47f371e277a9467ebd30b700077383ff0fbc18"),
    ],
)
def test_content_is_the_same_with_every_version(name, fingerprint):
    """A new NumPy or scikit-learn that changes the data must not go unnoticed."""
    assert data.load(DataConfig(name=name)).fingerprint == fingerprint


def test_digits_are_scikit_learns_images_split_without_loss():
    """Lost, repeated or relabelled images would make it another data set."""
    dataset = data.load(DataConfig(name="digits"))
    assert np.bincount(dataset.train.label).tolist() == [30] * 10
    assert len(dataset.test.label) == 1497
    raw = load_digits()
    # 255 / 16 * v, rounded half to even, by hand.
    levels = np.array(
        [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    )
    expected = levels[raw.images.astype(int)].astype(np.uint8)
    images = np.concatenate([dataset.train.image, dataset.test.image])[..., 0]
    labels = np.concatenate([dataset.train.label, dataset.test.label])
    assert _multiset(images, labels) == _multiset(expected, raw.target)


def test_without_scikit_learn_digits_say_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"digits\.csv\.gz; .* install scikit-learn"):
        data.load(DataConfig(name="digits"))


def _multiset(images, labels):
    return sorted((i.tobytes(), int(y)) for i, y in zip(images, labels, strict=True))


def test_fake_is_learnable_but_not_from_one_pixel():
    """Tests that train on it need a signal; one that is trivial would hide bugs."""
    dataset = fake.load(DataConfig())
    assert dataset.train.image.shape == (512, 8, 8, 3)
    assert dataset.test.image.shape == (256, 8, 8, 3)
    flat = [
        s.image.reshape(len(s.image), -1) / 255 for s in (dataset.train, dataset.test)
    ]
    labels = dataset.train.label, dataset.test.label
    whole = LogisticRegression(max_iter=300).fit(flat[0], labels[0])
    assert whole.score(flat[1], labels[1]) > 0.95
    one = LogisticRegression(max_iter=300).fit(flat[0][:, :1], labels[0])
    assert one.score(flat[1][:, :1], labels[1]) < 0.5


@pytest.mark.parametrize("side", [5, 32, 64])
def test_fake_stands_in_for_any_size(side):
    """Shapes, pixels in the whole range, and its own mean and std, at every size."""
    dataset = data.load(DataConfig(name="fake", image_size=side))
    assert dataset.train.image.shape == (512, side, side, 3)
    assert dataset.test.image.shape == (256, side, side, 3)
    assert np.bincount(dataset.train.label).min() >= 51
    pixels = dataset.train.image / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), dataset.mean, atol=6e-5)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), dataset.std, atol=6e-5)
    # Each class is a pattern: its mean image varies more than that of all images.
    label = dataset.train.label
    means = np.stack([pixels[label == c].mean(0) for c in range(10)])
    assert means.std((1, 2, 3)).min() > 2 * pixels.mean(0).std()


def test_every_file_with_a_loader_is_registered():
    """A data set that is not in the table cannot be asked for."""
    loaders = set()
    for module in pkgutil.iter_modules(data.__path__, "spaced_kd.data."):
        load = getattr(importlib.import_module(module.name), "load", None)
        if load is not None and "config" in inspect.signature(load).parameters:
            loaders.add(load)
    assert loaders == set(data.DATASETS.values())


def test_an_unknown_name_is_answered_with_the_nearest():
    """A typing error must cost one line, not a traceback."""
    load = lambda: data.load(DataConfig(name="cifar_100"))
    message = "config.data.name='cifar_100' is unknown; did you mean 'cifar100'?"
    one_line(load, ConfigError, message, *data.DATASETS)


def subset(name="fake", **fields):
    return data.load(DataConfig(name=name, **fields))


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(SMALL), st.integers(10, 250), st.integers(0, 3))
def test_a_subset_is_class_balanced_and_from_its_split(name, count, seed):
    """Counts that differ by more than one per class are not balanced."""
    full = subset(name)
    part = subset(
        name, num_train_examples=count, num_test_examples=count, subset_seed=seed
    )
    for whole, few in ((full.train, part.train), (full.test, part.test)):
        sizes = np.bincount(few.label, minlength=10)
        assert sizes.sum() == count and np.ptp(sizes) <= 1
        wanted, pool = _multiset(*few), _multiset(*whole)
        assert all(wanted.count(x) <= pool.count(x) for x in wanted)


def test_a_larger_subset_contains_the_smaller():
    """Curves over the number of examples are paired only if subsets are nested."""
    parts = [
        set(_multiset(*subset(num_train_examples=n).train)) for n in (10, 13, 99, 500)
    ]
    assert parts[0] < parts[1] < parts[2] < parts[3]


def test_the_subset_depends_on_its_seed_and_on_nothing_else():
    """The same seed must mean the same examples, another seed others."""
    one, same, other = (subset(num_train_examples=50, subset_seed=s) for s in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    with_test = subset(num_train_examples=50, num_test_examples=20)
    np.testing.assert_array_equal(with_test.train.image, one.train.image)


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(1, 30))
@settings(deadline=None, max_examples=100)
def test_uneven_classes_allow_exactly_what_is_balanced(sizes, count):
    """The largest balanced subset is limited by the rarest class, not by the total."""
    label = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    number = np.arange(len(label), dtype=np.uint8).reshape(-1, 1, 1, 1)
    split = Split(number, label)
    # By exhaustion: some class sizes that differ by at most one and are available.
    low, extra = divmod(count, len(sizes))
    enough = sum(s > low for s in sizes) >= extra and min(sizes) >= low
    draw = lambda: contents.class_balanced(
        split, len(sizes), count, np.random.default_rng(0), "field"
    )
    assume(count > 0)
    if count >= len(sizes) and enough:
        part = draw()
        got = np.bincount(part.label, minlength=len(sizes))
        assert got.sum() == count and np.ptp(got) <= 1
        kept = part.image.ravel()
        assert (np.diff(kept.astype(int)) > 0).all()  # in order, none twice
        np.testing.assert_array_equal(part.label, label[kept])
    else:
        one_line(draw, ConfigError, f"field={count}")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_train_examples": 513}, ("num_train_examples=513", "512", "10 classes")),
        ({"num_test_examples": 257}, ("num_test_examples=257", "256")),
        ({"num_train_examples": 9}, ("num_train_examples=9", "10 to 512")),
    ],
)
def test_an_impossible_subset_is_refused_with_the_numbers(fields, words):
    """Too many examples, or fewer than classes, cannot be drawn balanced."""
    one_line(lambda: subset(**fields), ConfigError, "config.data.", *words)


def wrong_label(value, dtype=np.int32):
    label = tiny().train.label.astype(dtype)
    label[[5, 7]] = value
    return Split(tiny().train.image, label)


TRAIN, TEST = tiny().train, tiny().test


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"train": wrong_label(-1)},
            ("tiny train", "label[5] = -1", "0..2", "2 of 12"),
        ),
        ({"train": wrong_label(3)}, ("label[5] = 3", "0..2")),
        ({"train": wrong_label(255)}, ("label[5] = 255",)),
        ({"test": Split(TEST.image, TEST.label + 9)}, ("tiny test", "label[0] = 9")),
        ({"train": wrong_label(1.0, np.float32)}, ("float32", "int32")),
        ({"train": wrong_label(1, np.int64)}, ("int64", "int32")),
        ({"train": Split(TRAIN.image, TRAIN.label % 2)}, ("class 2", "1 of 3")),
        (
            {"train": Split(TRAIN.image[:0], TRAIN.label[:0])},
            ("tiny train", "0 labels"),
        ),
        ({"test": Split(TEST.image[:0], TEST.label[:0])}, ("tiny test", "0 labels")),
        ({"train": Split(TRAIN.image[:7], TRAIN.label)}, ("(7, 4, 4, 3)", "12 labels")),
        ({"train": Split(TRAIN.image / 255, TRAIN.label)}, ("float64", "uint8")),
        (
            {"train": Split(TRAIN.image[..., 0], TRAIN.label)},
            ("(12, 4, 4)", "N, H, W, C"),
        ),
        ({"train": Split(TRAIN.image, TRAIN.label[:, None])}, ("(12, 1)", "[N]")),
        ({"test": Split(TEST.image[:, :2], TEST.label)}, ("(4, 4, 3)", "(2, 4, 3)")),
        ({"mean": (0.5,)}, ("mean", "3 entries")),
        ({"std": (0.2, 0.0, 0.2)}, ("std", "above 0")),
    ],
)
def test_malformed_data_are_refused_naming_the_first_fault(changes, words, monkeypatch):
    """An integer-label loss takes -1 for the last class and never says so."""
    monkeypatch.setitem(data.DATASETS, "tiny", lambda config: tiny(**changes))
    one_line(lambda: data.load(DataConfig(name="tiny")), DataError, *words)


def test_a_split_that_lacks_a_class_in_the_test_set_only_is_allowed():
    """Small test subsets of other data may lack classes; training must not."""
    contents.check(tiny(test=Split(TEST.image[:1], TEST.label[:1])))


def test_test_images_that_occur_in_training_are_counted_once_in_a_warning(
    monkeypatch, caplog
):
    """Leaked test images inflate every accuracy; the user must hear of it."""
    image = np.concatenate([TEST.image[:4], TRAIN.image[:1], TRAIN.image[:1]])
    leaky = tiny(test=Split(image, TEST.label))
    monkeypatch.setitem(data.DATASETS, "tiny", lambda config: leaky)
    with caplog.at_level(logging.WARNING, "spaced_kd"):
        data.load(DataConfig(name="tiny"))
    assert [r.getMessage() for r in caplog.records] == [
        "tiny: 2 of 6 test images also occur in the training split."
    ]


def test_sound_data_give_no_warning(caplog):
    """A warning in every run is one that nobody reads."""
    data.load(DataConfig(name="digits"))
    assert not caplog.records


def test_the_fingerprint_sees_every_kind_of_change():
    """A resumed run trusts it: one pixel, label, order or shape must show."""
    base = tiny()
    pixel = TRAIN.image.copy()
    pixel[3, 2, 1, 0] ^= 1
    label = TRAIN.label.copy()
    label[[0, 1]] = label[[1, 0]]
    variants = [
        (base.train, base.test),
        (Split(pixel, TRAIN.label), base.test),
        (Split(TRAIN.image, label), base.test),
        (Split(TRAIN.image[::-1], TRAIN.label[::-1]), base.test),
        (Split(TRAIN.image.reshape(12, 2, 8, 3), TRAIN.label), base.test),
        (base.test, base.train),
    ]
    assert len({contents.fingerprint(*v) for v in variants}) == len(variants)
    copy = Split(np.asfortranarray(TRAIN.image), TRAIN.label.copy())
    assert contents.fingerprint(copy, base.test) == contents.fingerprint(*variants[0])


def test_content_order_undoes_any_shuffle():
    """The same files in another order must give the same run for the same seed."""
    image, label = TRAIN.image.copy(), TRAIN.label.copy()
    image[4] = image[0]  # equal pixels, labels 0 and 1
    split = Split(image, label)
    expected = contents.content_order(split)
    assert sorted(expected) == list(range(12))
    shuffle = np.random.default_rng(1).permutation(12)
    shuffled = Split(image[shuffle], label[shuffle])
    order = contents.content_order(shuffled)
    np.testing.assert_array_equal(shuffled.image[order], image[expected])
    np.testing.assert_array_equal(shuffled.label[order], label[expected])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
@settings(deadline=None, max_examples=50)
def test_sorting_in_place_is_the_content_order(seed, count):
    """Along every kind of cycle; a second array of a gigabyte would be a copy."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 3, (count, 1, 2, 1), dtype=np.uint8)  # some are equal
    split = Split(image, rng.integers(0, 3, count).astype(np.int32))
    order = contents.content_order(split)
    expected = Split(split.image[order], split.label[order])
    contents.sort(split)
    np.testing.assert_array_equal(split.image, expected.image)
    np.testing.assert_array_equal(split.label, expected.label)
