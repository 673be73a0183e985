"""Where crops lie, in plain numbers: one rule for images on the host and the device.

Source: torchvision's Resize, CenterCrop and RandomResizedCrop, with their roundings.
"""

ASPECTS = (3 / 4, 4 / 3)
"""Least and largest width / height of a random resized crop."""

TRIES = 10
"""How often a random rectangle is drawn before it is given up."""


def shorter_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the (height, width) whose shorter side is `side`, rounded down."""
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side


def centre_start(length: int, size: int) -> int:
    """Return where the centre of `size` pixels begins in `length`; halves to even."""
    return round((length - size) / 2)


def centred_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the largest centred part of an image whose aspect is within `ASPECTS`.

    It takes the place of a random crop that did not fit.

    Returns:
      (top, left, height, width), pixels.
    """
    tall, wide = height, width
    if width / height < ASPECTS[0]:
        tall = round(width / ASPECTS[0])
    elif width / height > ASPECTS[1]:
        wide = round(height * ASPECTS[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide
