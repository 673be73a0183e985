"""CIFAR-100 (A. Krizhevsky, 2009): 50,000 + 10,000 images of 32x32, 100 classes."""

from spaced_kd.config import DataConfig
from spaced_kd.data import cifar
from spaced_kd.data.cifar_release import CifarRelease, Labels
from spaced_kd.types import Dataset

# The page publishes an MD5 only. Size and SHA-256 are those that Keras and several
# public mirrors give for the same file (the one with that MD5).
OFFICIAL = CifarRelease(
    name="cifar100",
    title="CIFAR-100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    size=169_001_437,
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    folder="cifar-100-python",
    files={"train": ("train",), "test": ("test",)},
    names_file="meta",
    labels={
        "label": Labels("fine_labels", "fine_label_names", 100),
        "coarse_label": Labels("coarse_labels", "coarse_label_names", 20),
    },
    train_per_class=500,
    test_per_class=100,
    # As in the released code (online_KD/utils.py; method A.8): the training split's
    # statistics, cut to three digits.
    mean=(0.507, 0.487, 0.441),
    std=(0.267, 0.256, 0.276),
)


def load(config: DataConfig, release: CifarRelease = OFFICIAL) -> Dataset:
    """Return the data set with its fine labels; see `cifar.load_release`."""
    return cifar.load_release(config, release)
