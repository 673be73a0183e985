"""A split as a list of encoded images that are read one by one (`types.Source`).

Where the bytes lie is the business of a `Store`: loose files, tar files or records.
"""

import dataclasses
import io
import os
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from spaced_kd.data.cache import Arrays
from spaced_kd.errors import DataError, one_line

# One image of ImageNet's training split is a PNG file with the ending of a JPEG.
_FORMATS = ("JPEG", "PNG")

MOST_PIXELS = 1 << 26
"""Width times height of an image; a larger one is refused before it is decoded.

Pillow holds each pixel in 4 bytes: 256 MiB, and for a moment twice, once as stored and
once as RGB. Photographs of ImageNet have 0.2 million pixels in the mean.
"""


class Listing(NamedTuple):
    """What is known of N images without reading them.

    name: [N] bytes, file name. size: [N] int64, bytes. label: [N] int32.
    holder: [N] int32, which class folder, tar file or the like holds the image.
    offset: [N] int64, where in the holder; its meaning is the store's.
    """

    name: np.ndarray
    size: np.ndarray
    label: np.ndarray
    holder: np.ndarray
    offset: np.ndarray

    def take(self, rows: np.ndarray) -> "Listing":
        """Return the listing of these rows."""
        return Listing(*(array[rows] for array in self))


class Entry(NamedTuple):
    """One row of a `Listing`, without the label."""

    name: str
    size: int
    holder: int
    offset: int


class Store(Protocol):
    """Holds the bytes of images; used by many threads at once."""

    def read(self, entry: Entry) -> bytes:
        """Return an image file's content; OSError or DataError if that fails."""
        ...

    def where(self, entry: Entry) -> str:
        """Return what a user finds the image by."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ListedImages:
    """A split of listed images; see `types.Source` for what each method promises."""

    listing: Listing
    store: Store
    shape: tuple[int, int, int]

    @property
    def label(self) -> np.ndarray:
        """[N] int32."""
        return self.listing.label

    def open(self, row: int) -> Image.Image:
        """Return image `row` as RGB: grey, CMYK and palette images are converted.

        Raises:
          DataError: it cannot be read or decoded, or has more than `MOST_PIXELS`;
            names the file.
        """
        name, size, _, holder, offset = (array[row] for array in self.listing)
        entry = Entry(os.fsdecode(name), int(size), int(holder), int(offset))
        try:
            content = self.store.read(entry)
        except OSError as error:
            what = f"{self.store.where(entry)} cannot be read"
            raise DataError(f"{what}: {error.strerror or error}.") from error
        try:
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                self._refuse_huge(image, entry)
                return image.convert("RGB")
        except DataError:
            raise
        # Pillow's decoders raise whatever they meet in a damaged file.
        except Exception as error:
            what = f"{self.store.where(entry)} is damaged or not an image"
            why = f"{type(error).__name__}: {one_line(error)}"
            raise DataError(f"{what} ({why}).") from error

    def _refuse_huge(self, image: Image.Image, entry: Entry) -> None:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise DataError(
                f"{self.store.where(entry)} has {width}x{height} pixels, more than "
                f"{MOST_PIXELS:,}; make it smaller."
            )

    def identities(self) -> list[bytes]:
        """Return each image's file name and size."""
        sizes = self.listing.size.tolist()
        names = self.listing.name.tolist()
        return [b"%b/%d" % pair for pair in zip(names, sizes, strict=True)]

    def take(self, rows: np.ndarray) -> "ListedImages":
        """Return the split of these rows."""
        return dataclasses.replace(self, listing=self.listing.take(rows))


def to_arrays(listing: Listing) -> Arrays:
    """Return a listing in the form that `cache.cached` keeps."""
    return listing._asdict()


def from_arrays(arrays: Arrays) -> Listing:
    """Undo `to_arrays`."""
    return Listing(**arrays)
