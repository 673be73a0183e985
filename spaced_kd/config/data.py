"""Fields of the data: which images the networks see, and how."""

import dataclasses

from spaced_kd.config.names import AUTO
from spaced_kd.fields import option


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the networks see."""

    name: str = option("cifar100", "data set, a key of spaced_kd.data.DATASETS")
    dir: str = option(
        "",
        "folder with prepared data; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets",
        operational=True,
    )
    num_train_examples: int = option(
        0, "class-balanced training subset, examples; 0: all", low=0
    )
    num_test_examples: int = option(
        0, "class-balanced test subset, examples; 0: all", low=0
    )
    subset_seed: int = option(0, "which examples a subset holds", low=0)
    batch_size: int = option(
        128, "global batch, examples (all devices together)", low=1
    )
    last_batch: str = option(
        "keep",
        "an epoch's incomplete last batch: keep (padded, masked; as released) or drop",
        choices=("keep", "drop"),
    )
    image_size: int = option(
        0,
        "side of the square image that the networks see, pixels; 0: as stored, 224 for "
        "ImageNet; for `fake` the stored size, 0: 8",
        low=0,
    )
    normalization: str = option(
        "dataset",
        "pixel mean and standard deviation: the data set's own, cifar10 (released self "
        "KD), or imagenet (released transformers, also for CIFAR)",
        choices=("dataset", "cifar10", "imagenet"),
    )
    interpolation: str = option(
        "bilinear",
        "of every resize: bilinear (torchvision's default) or bicubic (transformers)",
        choices=("bilinear", "bicubic"),
    )
    eval_resize: int = option(
        0,
        "test images: resize the shorter side to this, then crop the centre to "
        "image_size, pixels; 0: resize to image_size squarely",
        low=0,
    )
    resized_crop_scale: float = option(
        0.0,
        "random resized crop: least share of the image's area (released: 0.08), "
        "aspect 3/4 to 4/3; 0: none",
        low=0.0,
        high=1.0,
    )
    crop_padding: int = option(4, "random crop after padding, pixels; 0: none", low=0)
    fill: int = option(
        0,
        "grey value of what crop and rotation bring in from outside (released self KD: "
        "128)",
        low=0,
        high=255,
    )
    horizontal_flip: bool = option(True, "mirror with probability 1/2")
    rotation_degrees: float = option(
        15.0,
        "rotation, uniform in +-degrees, nearest neighbour; 0: none",
        low=0.0,
        high=180.0,
    )
    policy: str = option(
        "none",
        "none, autoaugment (the CIFAR-10 policy; released self KD) or randaugment "
        "(released transformers)",
        choices=("none", "autoaugment", "randaugment"),
    )
    randaugment_layers: int = option(2, "operations on an image", low=1)
    randaugment_magnitude: float = option(
        9.0, "mean strength, 0 to 10 (m9)", low=0.0, high=10.0
    )
    randaugment_std: float = option(
        0.5, "standard deviation of the strength (mstd0.5)", low=0.0
    )
    cutout_pixels: int = option(
        0, "side of one black square, pixels (released self KD: 16); 0: none", low=0
    )
    random_erasing: float = option(
        0.0,
        "probability that a rectangle becomes noise (released transformers: 0.25)",
        low=0.0,
        high=1.0,
    )
    eval_batch_size: int = option(500, "global batch in evaluation, examples", low=1)
    input: str = option(
        AUTO,
        "where training images wait: device (all of them, as uint8), stream (read "
        "again for every use), or auto (as the data set comes)",
        choices=(AUTO, "device", "stream"),
    )
    stream_memory_mib: int = option(
        2048,
        "host memory of a process for images read ahead, MiB; a decoded original a "
        "thread comes on top",
        low=1,
        operational=True,
    )
    stream_threads: int = option(
        16, "threads that read and decode", low=1, operational=True
    )
