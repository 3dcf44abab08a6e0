"""Charts of reports left blank: to draw them takes ten times as long as a small run does."""

import io
from typing import Any

from matplotlib.figure import Figure

drawn = Figure.savefig


def left_blank(figure: Figure, file: Any, **how: Any) -> None:
    """In the place of `Figure.savefig`: blank where it is for a page; a file of its own is drawn."""
    if isinstance(file, io.StringIO):
        file.write('<svg viewBox="0 0 1 1"></svg>')
    else:
        drawn(figure, file, **how)
