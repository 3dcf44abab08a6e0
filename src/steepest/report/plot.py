"""Drawings as SVG inside the page: they take its colours, light or dark, and its typeface."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from steepest.report.markup import Markup, element, number

COLOURS = (
    "ink",
    "muted",
    "rule",
    "paper",
    "train",
    "val",
    "other",
    "decay",
    "rewind",
    "guard",
    "raise",
    "memory",
)
"""Names of the page's colours (CSS variables) that a drawing may use."""

_CODES = {name: f"#0a0b{code:02x}" for code, name in enumerate(COLOURS, start=16)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.edgecolor": _CODES["rule"],
    "axes.labelcolor": _CODES["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _CODES["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": _CODES["muted"],
    "ytick.color": _CODES["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "lines.solid_capstyle": "round",
}
SIZE = (4.7, 2.5)
"""Inches of a drawing at the width it is meant for; the page scales it."""
MANY = 1000.0
"""Largest over smallest value from which a logarithmic axis is marked at powers of ten alone."""


@dataclass(frozen=True)
class Line:
    """One curve: its colour by name, its points; points that are not finite are left out."""

    colour: str
    x: np.ndarray
    y: np.ndarray

    def finite(self) -> Line:
        """The line without its gaps."""
        kept = np.isfinite(self.x) & np.isfinite(self.y)
        return Line(self.colour, self.x[kept], self.y[kept])


def colour(name: str) -> str:
    """The code that stands for a colour of the page while matplotlib draws."""
    return _CODES[name]


def lines(
    series: Sequence[Line], marks: Mapping[str, Sequence[float]], ring: tuple[float, float] | None, said: str
) -> Markup:
    """Curves over the step.

    marks: colour → steps of vertical lines; ring: a point to stress; said: for readers who cannot see it."""

    def draw(axes: Axes) -> None:
        for place, (name, steps) in enumerate(marks.items()):
            dashes = (3 * place, (3, 3))  # two events of one step show in each other's gaps
            for step in steps:
                axes.axvline(step, color=colour(name), linewidth=1, linestyle=dashes)
        for line in series:
            dotted = "o" if len(line.x) == 1 else ""
            axes.plot(line.x, line.y, color=colour(line.colour), linewidth=1.6, marker=dotted, markersize=4)
        if ring:
            face, edge = colour("paper"), colour("val")
            axes.plot(
                *ring, "o", markersize=6.5, markerfacecolor=face, markeredgecolor=edge, markeredgewidth=1.8
            )
        scales(axes, np.concatenate([line.y for line in series]))
        axes.margins(x=0.02)
        axes.set_xlabel("step", loc="right")

    return drawing(draw, said)


def scatter(truth: np.ndarray, guess: np.ndarray, said: str) -> Markup:
    """Guesses over truths, with the diagonal on which every guess would be right."""

    def draw(axes: Axes) -> None:
        low, high = float(min(truth.min(), guess.min())), float(max(truth.max(), guess.max()))
        axes.plot([low, high], [low, high], color=colour("muted"), linewidth=1, linestyle=(0, (3, 2)))
        axes.plot(truth, guess, "o", color=colour("val"), markersize=3, markeredgewidth=0, alpha=0.55)
        axes.set(xlabel="truth", ylabel="guess")
        _plain(axes)

    return drawing(draw, said)


def bars(values: np.ndarray, said: str) -> Markup:
    """How often values of each size occur, with a line at zero."""

    def draw(axes: Axes) -> None:
        count = min(40, max(5, int(len(values) ** 0.5)))
        axes.hist(values, count, range=_span(values), color=colour("train"), rwidth=0.9)
        axes.axvline(0, color=colour("ink"), linewidth=1)
        axes.grid(axis="x", visible=False)
        axes.set(xlabel="guess less truth", ylabel="examples")
        _plain(axes)

    return drawing(draw, said)


def drawing(draw: Any, said: str) -> Markup:
    """What `draw(axes)` draws, as an SVG element without size, ids unique by `said`."""
    with rc_context({**_STYLE, "svg.hashsalt": said}):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(written.getvalue(), said)


def _inline(svg: str, said: str) -> Markup:
    box = re.search(r'viewBox="([^"]+)"', svg)
    body = re.sub(
        r"<style.*?</style>|<metadata>.*?</metadata>",
        "",
        svg[svg.index(">", svg.index("<svg")) + 1 :],
        flags=re.S,
    )
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # names that every drawing would share
    for name, code in _CODES.items():
        body = body.replace(code, f"var(--{name})")
    whole = Markup(re.sub(r"\s*\n\s*", " ", body.removesuffix("\n").removesuffix("</svg>")))
    return element("svg", whole, viewBox=box[1] if box else None, role="img", aria_label=said)


def _span(values: np.ndarray) -> tuple[float, float]:
    """Ends of the values, kept apart where all are the same but for rounding."""
    low, high = float(values.min()), float(values.max())
    least = 1e-6 * max(abs(low), abs(high), 1e-300)
    return (low, high) if high - low > least else (low - least, high + least)


def is_wide(values: np.ndarray) -> bool:
    """Whether positive values span so much that only a logarithmic scale shows them all."""
    return bool(len(values) and values.min() > 0 and values.max() > 30 * values.min())


def scales(axes: Axes, values: np.ndarray) -> None:
    """Few round numbers along both axes; the upright one logarithmic where the values are wide."""
    _plain(axes)
    scale(axes.yaxis, values)


def scale(axis: Axis, values: np.ndarray, wide: bool = True) -> None:
    """Few round numbers along one axis; a logarithmic one where values are `is_wide` and that is wanted."""
    if wide and is_wide(values):
        powers = values.max() > MANY * values.min()
        along = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
        along("log")
        axis.set_major_locator(LogLocator(subs=(1.0,) if powers else (1.0, 3.0), numticks=6))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(float(value))))


def _plain(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        scale(axis, np.empty(0))
