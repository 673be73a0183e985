"""Where the texts of a figure lie: none may be cut off or cover another."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def assert_readable(figure) -> None:
    """Render a figure and look at all its texts."""
    boxes = _boxes(figure)
    width, height = figure.bbox.size
    for box in boxes:
        assert box.x0 >= -1 and box.x1 <= width + 1
        assert box.y0 >= -1 and box.y1 <= height + 1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.shrunk(0.98, 0.8).overlaps(other.shrunk(0.98, 0.8))


def _boxes(figure) -> list:
    """Return where the texts lie, in pixels."""
    FigureCanvasAgg(figure).draw()
    outside = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = axis.get_view_interval()
        for tick in axis.get_major_ticks():
            # Ticks beyond the panel exist, but are not drawn.
            if not low <= tick.get_loc() <= high:
                outside |= {tick.label1, tick.label2}
    texts = set(figure.findobj(Text)) - outside
    renderer = figure.canvas.get_renderer()
    shown = (t for t in texts if t.get_visible() and t.get_text().strip())
    return [text.get_window_extent(renderer) for text in shown]
