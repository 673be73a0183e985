"""The pictures of frost: the five published photographs, or five of our own making."""

import functools
import hashlib
import math
from pathlib import Path

import numpy as np
from PIL import Image

from spaced_kd.errors import DataError, one_line

FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")

# Mean and standard deviation of red, green and blue in each of the photographs.
_COLOURS = (
    ((78, 149, 166), (27, 16, 15)),
    ((201, 205, 214), (21, 22, 23)),
    ((201, 205, 214), (21, 22, 23)),
    ((138, 153, 165), (28, 28, 30)),
    ((112, 123, 135), (44, 43, 42)),
)
_SIDE = 512  # pixels; the photographs have 315 to 900


def read(folder: str) -> list[np.ndarray]:
    """Return the five photographs, [h, w, 3] uint8.

    Raises:
      DataError: one is missing or cannot be decoded.
    """
    return [_decoded(Path(folder).expanduser() / name) for name in FILES]


def digests(folder: str) -> dict[str, str]:
    """Return the SHA-256 of each photograph by the name of its file, hex.

    Raises:
      DataError: one cannot be read.
    """
    return {name: _digest(Path(folder).expanduser() / name) for name in FILES}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def scaled_photos(folder: str, scale: float) -> tuple[np.ndarray, ...]:
    """Return the five pictures, scaled.

    Args:
      folder: of the photographs, see `FILES`; "": our own pictures.
      scale: 1.1 as the package imagecorruptions does it (cubic), or 0.2 as CIFAR-C
        (every fifth pixel, which linear interpolation without a filter comes to).

    Returns:
      Five of [h, w, 3] uint8.

    Raises:
      DataError: a photograph is missing or cannot be decoded.
    """
    return _scaled(folder, scale, _stamps(folder))


def _stamps(folder: str) -> tuple[tuple[int, int], ...]:
    """Return sizes and times, so that other photographs of these names are noticed."""
    if not folder:
        return ()
    return tuple(_stamp(Path(folder).expanduser() / name) for name in FILES)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _scaled(folder: str, scale: float, stamps: object) -> tuple[np.ndarray, ...]:
    del stamps
    photos = read(folder) if folder else [_made(index) for index in range(len(FILES))]
    if scale < 1:
        step = round(1 / scale)
        return tuple(photo[step // 2 :: step, step // 2 :: step] for photo in photos)
    return tuple(_enlarged(photo, scale) for photo in photos)


def _decoded(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as photo:
            return np.asarray(photo.convert("RGB"))
    # Pillow raises whatever it meets in a damaged file.
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read ({one_line(error)}); the folder must hold the "
        f"frost photographs of ImageNet-C, {FILES[0]} to {FILES[-1]}."
    )


def _made(index: int) -> np.ndarray:
    """Return [512, 512, 3] uint8: veins at all scales, periodic.

    Smooth noise is folded at its mean, so that ridges remain; the exponent of its
    spectrum makes pieces of 32 pixels vary as pieces of the photographs do.
    """
    rng = np.random.default_rng(index)
    frequency = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(_SIDE, _SIDE))) * frequency**-1.35
    veins = -np.abs(np.fft.irfft2(spectrum, (_SIDE, _SIDE)))
    veins = (veins - veins.mean()) / veins.std()
    mean, deviation = np.array(_COLOURS[index])
    return np.clip(np.rint(mean + deviation * veins[..., None]), 0, 255).astype(
        np.uint8
    )


def _enlarged(photo: np.ndarray, scale: float) -> np.ndarray:
    """Enlarge by cubic convolution with a = -0.75, OpenCV's choice."""
    pixels = photo.astype(np.float32)
    for _ in range(2):
        pixels = _enlarged_rows(pixels, scale).swapaxes(0, 1)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _enlarged_rows(photo: np.ndarray, scale: float) -> np.ndarray:
    side = len(photo)
    count = math.ceil(side * scale)
    at = (np.arange(count) + 0.5) * (side / count) - 0.5
    first = np.floor(at).astype(int)
    total = np.zeros((count, *photo.shape[1:]), np.float32)
    for tap in range(-1, 3):
        weight = _cubic(np.abs(at - first - tap)).astype(np.float32)
        neighbour = photo[np.clip(first + tap, 0, side - 1)]
        total += weight[:, None, None] * neighbour
    return total


def _cubic(distance: np.ndarray) -> np.ndarray:
    d, a = distance, -0.75
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, far)
