"""CIFAR-10 (A. Krizhevsky, 2009): 50,000 + 10,000 images of 32x32, 10 classes."""

from spaced_kd.config import DataConfig
from spaced_kd.data import cifar
from spaced_kd.data.cifar_release import CifarRelease, Labels
from spaced_kd.types import Dataset

# The page publishes an MD5 only, c58f30108f718f92721af3b95e74349a. Size and SHA-256 are
# those that torchvision's prototype data sets and other public projects give for it.
OFFICIAL = CifarRelease(
    name="cifar10",
    title="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    size=170_498_071,
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    folder="cifar-10-batches-py",
    files={
        "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test": ("test_batch",),
    },
    names_file="batches.meta",
    labels={"label": Labels("labels", "label_names", 10)},
    train_per_class=5000,
    test_per_class=1000,
    # As in the released self-KD code, which trains CIFAR-100 with them, and in most
    # public code (kuangliu/pytorch-cifar, `get_mean_and_std`). The mean is that of the
    # training split; std is the average over single images, and less than the 0.2470,
    # 0.2435, 0.2616 over all pixels.
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)


def load(config: DataConfig, release: CifarRelease = OFFICIAL) -> Dataset:
    """Return the data set; see `cifar.load_release`."""
    return cifar.load_release(config, release)
