"""Pictures of what was measured for a choice: range tests, arms, noise, throughput."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from steepest.report import plot
from steepest.report.markup import Markup, element, number

TONES = ("train", "val", "other", "rewind", "guard", "decay", "ink")
"""Colours of curves, in order; dashed from the second round on."""

GREY = "muted"
"""Colour of curves in a crowd, and of marks."""

DASHES = ("solid", (0, (4, 2)), (0, (1, 1.6)))
BORDERS = ("solid", "dashed", "dotted")
"""The same rounds in a drawing and in its legend."""


LARGEST = 1e100
"""Larger numbers are drawn as gaps, as if they were not finite."""


@dataclass(frozen=True)
class Kind:
    """How measurements of one kind are drawn: words for the axes, scales, and what a reader sees."""

    x: str
    y: str
    said: str
    log_x: bool = False  # where x is wide
    log_y: bool = True
    from_zero: bool = False
    rises: bool = False  # to values that are of no interest: the view ends a little above the start
    crowd: bool = False  # of too many curves for a colour each: all but the chosen one are grey


KINDS = {
    "range": Kind(
        "learning rate",
        "training loss",
        "range test: the loss while the rate grows",
        log_x=True,
        log_y=False,
        rises=True,
    ),
    "curves": Kind("updates", "loss", "arms: their losses while they learn"),
    "noise": Kind("updates", "critical batch", "noise: the batch at which noise equals signal, 95 % band"),
    "throughput": Kind(
        "examples of a batch", "examples a second", "throughput", log_x=True, log_y=False, from_zero=True
    ),
}


@dataclass(frozen=True)
class Curve:
    """One curve with its name; low and high bound a band, or are empty."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Tone:
    """The look of a curve: the name of its colour, and how often all colours were used before."""

    name: str
    round: int


def figure(picture: Any, heading: str) -> Markup:
    """The figure of a picture as evidence holds it; nothing where it holds none that can be drawn."""
    if not isinstance(picture, Mapping) or str(picture.get("kind")) not in KINDS:
        return Markup("")
    kind, curves = _worded(KINDS[str(picture["kind"])], picture), _curves(picture.get("lines"))
    if not curves:
        return element("figure", element("p", "Nothing that was measured was finite.", class_="empty"))
    word = "leads" if "leads" in picture else "chosen"
    chosen, marks = picture.get(word), _marks(picture.get("marks"))
    if kind.crowd:  # the chosen one over all others
        curves = sorted(curves, key=lambda curve: curve.name == chosen)
    tones = _tones(kind, curves, chosen)
    drawn = _drawn(kind, curves, tones, marks, chosen, f"{heading}: {kind.said}")
    title = element("h3", element("small", kind.said))
    keys = _named(kind, curves, tones, chosen, word) + _marked(marks)
    legend = element("figcaption", *keys, class_="keys")
    return element("figure", title, drawn, legend, class_="measured")


def _worded(kind: Kind, picture: Mapping[str, Any]) -> Kind:
    """The kind with the picture's own words for its axes and heading."""
    own = {name: picture[name] for name in ("x", "y", "said") if isinstance(picture.get(name), str)}
    return replace(kind, **own, crowd=picture.get("crowd") is True)


def _tones(kind: Kind, curves: Sequence[Curve], chosen: Any) -> list[Tone]:
    """How each curve is drawn: in colours by turns; in a crowd grey, but for the chosen one."""
    if kind.crowd:
        return [Tone(TONES[0] if curve.name == chosen else GREY, 0) for curve in curves]
    return [Tone(TONES[n % len(TONES)], n // len(TONES) % len(DASHES)) for n in range(len(curves))]


def _drawn(
    kind: Kind,
    curves: Sequence[Curve],
    tones: Sequence[Tone],
    marks: Sequence[tuple[str, float]],
    chosen: Any,
    said: str,
) -> Markup:
    def draw(axes: Axes) -> None:
        for curve, tone in zip(curves, tones, strict=True):
            _draw(axes, curve, tone, curve.name == chosen)
        for _, at in marks:
            axes.axvline(at, color=plot.colour(GREY), linewidth=1, linestyle=(0, (3, 3)))
        plot.scale(axes.yaxis, np.concatenate([curve.y for curve in curves]), wide=kind.log_y)
        plot.scale(axes.xaxis, np.concatenate([curve.x for curve in curves]), wide=kind.log_x)
        axes.set_xlabel(_plain(kind.x), loc="right")
        axes.set_ylabel(_plain(kind.y), loc="top")
        if kind.from_zero:
            axes.set_ylim(bottom=0)
        if kind.rises:
            axes.set_ylim(*_view(curves))

    return plot.drawing(draw, said)


def _draw(axes: Axes, curve: Curve, tone: Tone, chosen: bool) -> None:
    colour, dashes = plot.colour(tone.name), DASHES[tone.round]
    if len(curve.low):
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    few = "o" if len(curve.x) <= 12 else ""
    wide = 2.4 if chosen else 1.3
    axes.plot(
        curve.x, curve.y, color=colour, linewidth=wide, linestyle=dashes, marker=few, markersize=2 * wide
    )


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return "".join(letter for letter in text if letter.isprintable()).replace("$", r"\$")


def _view(curves: Sequence[Curve]) -> tuple[float, float]:
    """From the lowest value to some way above all that came before it: a loss that leaves goes out."""
    low = min(float(curve.y.min()) for curve in curves)
    start = max(max(float(np.median(curve.y[:5])), float(_before_lowest(curve).max())) for curve in curves)
    fall = max(start - low, 1e-3 * abs(start), 1e-12)
    return low - 0.1 * fall, start + 0.6 * fall


def _before_lowest(curve: Curve) -> np.ndarray:
    return curve.y[: int(curve.y.argmin()) + 1]


def _named(
    kind: Kind, curves: Sequence[Curve], tones: Sequence[Tone], chosen: Any, word: str
) -> list[Markup]:
    """A key for every curve; in a crowd for the chosen one, and one for all others."""
    keys = []
    for curve, tone in zip(curves, tones, strict=True):
        name = element("b", curve.name, f" ({word})") if curve.name == chosen else curve.name
        if curve.name == chosen or not kind.crowd:
            keys.append(element("span", _stroke(tone), name))
    others = len(curves) - len(keys)
    return keys + ([element("span", _stroke(Tone(GREY, 0)), f"{others} others")] if others else [])


def _stroke(tone: Tone) -> Markup:
    border = BORDERS[tone.round]
    wide = "" if border == "solid" else f";border-top-style:{border};width:2.6em"
    return element("i", class_="line", style=f"--tone:var(--{tone.name}){wide}")


def _marked(marks: Sequence[tuple[str, float]]) -> list[Markup]:
    stroke = element("i", class_="mark", style=f"--tone:var(--{GREY})")
    return [element("span", stroke, f"{name} {number(at)}") for name, at in marks]


def _curves(lines: Any) -> list[Curve]:
    """The curves that have a point to draw."""
    told = [line for line in lines if isinstance(line, Mapping)] if isinstance(lines, list | tuple) else []
    found = [_curve(line) for line in told]
    return [curve for curve in found if len(curve.x)]


def _curve(line: Mapping[str, Any]) -> Curve:
    """A curve without the points that are not finite; without a band where that is not as long as it."""
    x, y, low, high = (_numbers(line.get(name)) for name in ("x", "y", "low", "high"))
    length = min(len(x), len(y))
    x, y = x[:length], y[:length]
    banded = len(low) == len(high) == length
    kept = np.isfinite(x) & np.isfinite(y)
    ends = (_closed(end[kept], y[kept]) if banded else np.empty(0) for end in (low, high))
    return Curve(str(line.get("name", "")), x[kept], y[kept], *ends)


def _closed(end: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The end of a band, an open one as far out as the band goes elsewhere."""
    told = np.isfinite(end)
    outward = np.concatenate([end[told], y])
    below = bool(told.any()) and float((end - y)[told].mean()) < 0
    return np.where(told, end, outward.min() if below else outward.max()) if len(y) else end


def _numbers(values: Any) -> np.ndarray:
    """Numbers as they can be drawn; None, words and booleans as gaps."""
    listed = values if isinstance(values, list | tuple) else ()
    plain = (v if isinstance(v, int | float) and not isinstance(v, bool) else np.nan for v in listed)
    return np.array([v if abs(v) < LARGEST else np.nan for v in plain], float)


def _marks(marks: Any) -> list[tuple[str, float]]:
    told = [mark for mark in marks if isinstance(mark, Mapping)] if isinstance(marks, list | tuple) else []
    places = ((str(mark.get("name", "")), _numbers([mark.get("x")])) for mark in told)
    return [(name, float(at[0])) for name, at in places if np.isfinite(at[0])]
