"""Lists of numbers that an option names."""

import math

from spaced_kd.errors import ConfigError


def rising(text: str, field: str) -> list[float]:
    """Return the numbers, e.g. of "0,0.01,0.02".

    Args:
      text: numbers >= 0, rising, separated by commas.
      field: the option, for the message.

    Raises:
      ConfigError: not that.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    in_order = all(low < high for low, high in zip(found, found[1:], strict=False))
    if not (in_order and found[0] >= 0 and math.isfinite(found[-1])):
        raise ConfigError(
            f"{field}='{text}' is not a list of rising numbers >= 0; give e.g. "
            f"{field}=0,0.01,0.02."
        )
    return found
