"""A range test as a picture of its own, beside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from steepest.files import writing
from steepest.optim.errors import UserError

FORMS = (".png", ".svg", ".pdf")


def save(
    path: Path, rates: Sequence[float], losses: Sequence[float], marks: Mapping[str, float], title: str
) -> Path:
    """Draw the losses over the rates, with named rates as vertical lines.

    The view ends a little above the start: how far a loss has left is of no interest."""
    if path.suffix not in FORMS:
        raise UserError(f"A picture is written as {', '.join(FORMS)}; got {str(path)!r}.")
    y = np.array(losses, float)
    y[~np.isfinite(y)] = np.nan
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(rates, y)
    for place, (name, rate) in enumerate(marks.items()):
        axes.axvline(rate, color=f"C{place + 1}", linestyle="dashed", label=f"{name} {rate:.2g}")
    start, low = float(np.nanmedian(y[:5])), float(np.nanmin(y))
    fall = max(start - low, 1e-3 * abs(start), 1e-12)
    axes.set(
        xlabel="learning rate",
        ylabel="training loss",
        title=title,
        ylim=(low - 0.1 * fall, start + 0.6 * fall),
    )
    axes.legend()
    with writing(path):
        figure.savefig(path)
    return path
