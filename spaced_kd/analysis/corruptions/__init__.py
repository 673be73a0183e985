"""Accuracy on corrupted test images, absolute and relative to clean ones."""

import base64
import io

import jax.numpy as jnp
import numpy as np
from PIL import Image

from spaced_kd import metrics
from spaced_kd.analysis.base import Analysis, Values
from spaced_kd.analysis.corruptions import shown
from spaced_kd.analysis.corruptions.images import CorruptedImages, of_run
from spaced_kd.analysis.corruptions.options import Options
from spaced_kd.analysis.subject import Run, Subject
from spaced_kd.types import Split

_LARGEST_PICTURE = 128  # pixels; pictures lie in `analysis.json`


def measure(subject: Subject, options: Options) -> Values:
    """Return a network's accuracies in percent.

    Returns:
      "clean"; "accuracy", corruption -> severity -> percent; "relative", the same in
      percent of "clean" (None where that is 0); "source" and "examples" of the images.
    """
    images = of_run(subject.run, options)
    clean = _accuracy(subject, images.clean)
    accuracy: dict[str, dict[str, float]] = {name: {} for name in options.corruptions}
    for name, severity, split in images.every():
        accuracy[name][str(severity)] = _accuracy(subject, split)
    relative = {
        name: {s: 100 * acc / clean if clean else None for s, acc in found.items()}
        for name, found in accuracy.items()
    }
    return {
        "source": images.source,
        "examples": len(images.clean.label),
        "clean": clean,
        "accuracy": accuracy,
        "relative": relative,
    }


def _accuracy(subject: Subject, split: Split) -> float:
    """Return top-1 in percent, of the exit that the run's own tables quote."""
    found = subject.predict(subject.variables, split)
    logits = metrics.quoted(found, subject.quote)
    return float(metrics.classification(logits, jnp.asarray(split.label))["acc1"])


def pictures(run: Run, options: Options) -> Values:
    """Return one test image, clean and corrupted, as base64 of PNG files.

    Returns:
      "pictures": "clean", and "<corruption>/<severity>" of each. Without "clean" where
      published arrays hold the images in an order of their own.
    """
    images = of_run(run, options)
    if images.source == "official":
        found = {f"{name}/{s}": split.image[0] for name, s, split in images.every()}
    else:
        found = _corrupted(images, images.clean.image[:1])
    return {"pictures": {name: _png(image) for name, image in found.items()}}


def check(run: Run, options: Options) -> None:
    """Refuse what cannot be had; see `CorruptedImages.check`."""
    of_run(run, options).check()


def inputs(run: Run, options: Options) -> Values:
    """Return whose images, and what tells their files: `CorruptedImages.identity`."""
    return of_run(run, options).identity()


def _corrupted(images: CorruptedImages, image: np.ndarray) -> dict[str, np.ndarray]:
    return {"clean": image[0]} | {
        f"{name}/{severity}": images.corrupt(image, name, severity)[0]
        for name in images.options.corruptions
        for severity in images.options.levels
    }


def _png(image: np.ndarray) -> str:
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture.thumbnail((_LARGEST_PICTURE, _LARGEST_PICTURE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


ANALYSIS = Analysis(
    title="Corrupted test images (paper Tables 5 and 12)",
    about=(
        "Top-1 accuracy on the run's test images after the corruptions of ImageNet-C, "
        "in eval mode; each network sees the very same corrupted images. They are "
        "corrupted as stored, before they are resized and normalised."
    ),
    options=Options,
    measure=measure,
    table=shown.table,
    figures=shown.figures,
    once=pictures,
    check=check,
    inputs=inputs,
)
