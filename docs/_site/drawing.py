"""SVG by hand: the same bytes everywhere, small, and with the reader's own font."""

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

INK, FAINT, PAPER = "#1f2937", "#6b7280", "#ffffff"
TEACHER, STUDENT, IDLE = "#4477aa", "#ee6677", "#e5e7eb"
"""Paul Tol's "bright" blue and red, as in docs/timelines.svg."""

WIDTH = 760


def document(height: int, title: str, about: str, parts: Sequence[str]) -> str:
    """Return a picture, which is a white card so that it can be read on black too.

    Args:
      height: pixels.
      title: what is shown.
      about: the same at length, for those who cannot see it.
      parts: elements.
    """
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-labelledby="title desc" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">'
    )
    body = [
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(about)}</desc>',
        box(0, 0, WIDTH, height, PAPER, rx=6),
        *parts,
    ]
    return "\n".join([head, *(f"  {part}" for part in body), "</svg>\n"])


def box(x: float, y: float, w: float, h: float, fill: str, **more: Any) -> str:
    """Return a rectangle; `more` are attributes, where `_` stands for `-`."""
    place = _attributes({"x": x, "y": y, "width": w, "height": h, "fill": fill} | more)
    return f"<rect {place}/>"


def words(x: float, y: float, text: str, **more: Any) -> str:
    """Return a line of text, y its base line; attributes as for `box`."""
    place = _attributes({"x": x, "y": y, "fill": INK} | more)
    return f"<text {place}>{escape(text)}</text>"


def label(x: float, y: float, text: str, **more: Any) -> str:
    """Return a line of small text centred at (x, y)."""
    centred = {"text_anchor": "middle", "font_size": 11, "fill": PAPER}
    return words(x, y + 4, text, **(centred | more))


def line(points: Sequence[tuple[float, float]], colour: str, **more: Any) -> str:
    """Return straight lines from point to point."""
    path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    rest = _attributes({"fill": "none", "stroke": colour} | more)
    return f"<polyline points={quoteattr(path)} {rest}/>"


def _attributes(values: dict[str, Any]) -> str:
    pairs = ((name.replace("_", "-"), _number(value)) for name, value in values.items())
    return " ".join(f"{name}={quoteattr(value)}" for name, value in pairs)


def _number(value: Any) -> str:
    return (
        f"{value:.2f}".rstrip("0").rstrip(".")
        if isinstance(value, float)
        else str(value)
    )
