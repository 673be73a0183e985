"""Small data sets of encoded images on disk, in the layouts that loaders read."""

import io
import tarfile

import numpy as np
from PIL import Image

from spaced_kd.data import imagenet, tfds_folder
from spaced_kd.data.imagenet import CompleteCopy

CLASSES = ("n00000001", "n00000002", "n00000003", "n00000004")


def encoded(rng, kind="JPEG", mode="RGB", low=34, high=48) -> bytes:
    """Return an image of random size: blocks of colour, as JPEG keeps them."""
    width, height = rng.integers(low, high, 2)
    blocks = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(blocks).resize((int(width), int(height)), 0)
    file = io.BytesIO()
    image.convert(mode).save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


def make_files(train, test, classes=CLASSES, seed=0):
    """Return {"train": {class: {name: bytes}}, "val": ...}, so many images a class."""
    rng = np.random.default_rng(seed)
    counts = {"train": train, "val": test}
    return {
        split: {
            c: {f"{c}_{split}_{i}.JPEG": encoded(rng) for i in range(count)}
            for c in classes
        }
        for split, count in counts.items()
    }


def write_folders(root, files):
    for split, classes in files.items():
        for name, images in classes.items():
            (root / split / name).mkdir(parents=True)
            for image, content in images.items():
                (root / split / name / image).write_bytes(content)


def write_tars(root, files):
    for split, classes in files.items():
        (root / split).mkdir(parents=True)
        for name, images in classes.items():
            with tarfile.open(root / split / f"{name}.tar", "w") as archive:
                # Not in the order of names, which tar files need not keep.
                for image in reversed(sorted(images)):
                    member = tarfile.TarInfo(image)
                    member.size = len(images[image])
                    archive.addfile(member, io.BytesIO(images[image]))


def write_records(root, files, classes=CLASSES):
    """As TFDS prepares ImageNet: shuffled, with the file's name in every record."""
    import tensorflow_datasets as tfds

    folder = root / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "file_name": tfds.features.Text(),
        }
    )
    infos = []
    for split, stored in (("train", "train"), ("val", "validation")):
        examples = [
            {"image": content, "label": name, "file_name": image}
            for name, images in files[split].items()
            for image, content in images.items()
        ]
        np.random.default_rng(1).shuffle(examples)
        records = map(features.serialize_example, examples)
        infos.append(tfds_folder._write_split(folder, stored, records))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        version="5.1.0",
        check_data=False,
    )


LAYOUTS = {"folders": write_folders, "tars": write_tars, "records": write_records}


def loader(train, test, classes=CLASSES):
    """Return a `load` for so many images a class."""
    complete = CompleteCopy(classes, train * len(classes), test * len(classes))
    return lambda config: imagenet.load_classes("pictures", config, complete)
