import os
import pathlib
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from spaced_kd import data
from spaced_kd.config import DataConfig
from spaced_kd.data import cifar100, contents, tfds_folder
from spaced_kd.data.roots import data_root

pytestmark = pytest.mark.slow  # decoding 60,000 images takes 10 to 25 seconds, once


@pytest.fixture(scope="module")
def root(shared_data, tmp_path_factory):
    """A data folder of our own, linked to the real files, with an empty cache."""
    prepared = shared_data / "tensorflow_datasets" / "cifar100"
    if not prepared.is_dir():
        pytest.skip(f"needs the real CIFAR-100: no folder {prepared}")
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    (folder / "cifar100").symlink_to(prepared)
    return folder


@pytest.fixture(scope="module")
def real(root):
    """The data set, decoded here and nowhere else, and the seconds that took."""
    start = time.perf_counter()
    return data.load(DataConfig(dir=str(root))), time.perf_counter() - start


def test_all_images_of_all_classes_are_there(real):
    """500 and 100 images a class (Krizhevsky 2009)."""
    dataset, _ = real
    assert dataset.train.image.shape == (50_000, 32, 32, 3)
    assert dataset.test.image.shape == (10_000, 32, 32, 3)
    assert np.bincount(dataset.train.label).tolist() == [500] * 100
    assert np.bincount(dataset.test.label).tolist() == [100] * 100


def test_pixel_statistics_are_the_known_ones(real):
    """Exchanged channels or a wrong decoder would move them; ours agree to a digit."""
    dataset, _ = real
    # Of the data's own description, found independently of this reader.
    mean, std = (0.50708, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615)
    levels = np.stack(
        [
            np.bincount(dataset.train.image[..., c].ravel(), minlength=256)
            for c in range(3)
        ]
    )
    share = levels / levels.sum(1, keepdims=True)
    value = np.arange(256) / 255
    got = share @ value
    np.testing.assert_allclose(got, mean, atol=6e-6)
    spread = np.sqrt(share @ value**2 - got**2)
    np.testing.assert_allclose(spread, std, atol=6e-6)
    # The released code cuts to three digits.
    np.testing.assert_allclose(dataset.mean, mean, atol=1e-3)
    np.testing.assert_allclose(dataset.std, std, atol=1e-3)


def test_labels_are_the_fine_ones_of_the_same_image(real, root):
    """Labels one place off have the same counts; the coarse ones have 20 classes."""
    dataset, _ = real
    builder = tfds.builder_from_directory(tfds_folder.find(root, "cifar100"))
    known = {image.tobytes(): label for image, label in zip(*dataset.test, strict=True)}
    source = builder.as_data_source("test")  # decoded by TFDS itself
    for i in range(0, 10_000, 500):
        assert known[source[i]["image"].tobytes()] == source[i]["label"]


def test_the_order_does_not_depend_on_the_files(real):
    """The order is a function of the content, see `content_order`."""
    order = contents.content_order(real[0].test)
    np.testing.assert_array_equal(order, np.arange(10_000))


def test_the_second_start_reads_an_equal_copy_quickly(real, root):
    """Ten seconds at every start would be paid in every test and every resume."""
    dataset, decoding = real
    start = time.perf_counter()
    again = cifar100.load(DataConfig(dir=str(root)))
    reading = time.perf_counter() - start
    print(f"decoded in {decoding:.1f} s, read again in {reading:.2f} s")
    assert reading < decoding / 4
    for a, b in zip(
        dataset.train + dataset.test, again.train + again.test, strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_the_environment_variable_finds_the_same_data(real, root, monkeypatch):
    """TFDS_DATA_DIR is what every TFDS user has set already."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert data_root(DataConfig()) == root
    again = data.load(DataConfig(num_train_examples=200, num_test_examples=100))
    assert np.bincount(again.train.label).tolist() == [2] * 100
    monkeypatch.setenv("TFDS_DATA_DIR", os.devnull)
    assert data_root(DataConfig(dir="~/here")) == pathlib.Path.home() / "here"
