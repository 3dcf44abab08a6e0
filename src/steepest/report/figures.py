"""Figures of the pages: how training went, what a choice was measured by, how guesses lie beside the truth.

matplotlib draws them as SVG that takes the colours of the page around it, light or dark, and its typeface."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib import figure as sheets
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from steepest.report.records import History, Records
from steepest.report.rendering import number

TONES = ("train", "val", "other", "rewind", "guard", "decay", "ink")
"""Colours that curves take by turns; dashed from the second round on."""

GREY = "muted"
"""Colour of curves in a crowd, and of marks."""

COLOURS = (*TONES, GREY, "rule", "paper", "raise", "memory")
"""Names of the page's colours (CSS variables) that a drawing may use."""

STROKES = {"solid": "solid", "dashed": (0, (4, 2)), "dotted": (0, (1, 1.6))}
"""A line in a legend → the same in a drawing."""

EVENTS = {
    "decay": "rate lowered, from the best weights on",
    "raise": "rate raised",
    "rewind": "back to the last good weights",
    "guard": "guard stepped in",
    "memory": "memory ran out, in smaller parts from here on",
}
"""Event in metrics.csv, which has a colour of that name → words."""

MEANINGS = {
    "loss": "what training makes smaller",
    "accuracy": "share of right answers",
    "precision": "of what was taken for a class, the share that is of it",
    "recall": "of what is of a class, the share that was found",
    "f1": "precision and recall in one number",
    "rmse": "typical error, large ones weighing more",
    "mae": "mean size of an error",
    "r2": "share of the variation explained",
    "lr": "length of a step",
    "grad_norm": "steepness of the loss",
}
"""What a curve shows, for people who see one for the first time."""

TITLES = {"lr": "learning rate", "grad_norm": "gradient norm"}

MANY = 1000.0
"""Largest over smallest value from which a logarithmic axis is marked at powers of ten alone."""

NONE = np.empty(0)
"""No values."""

LARGEST = 1e100
"""Larger measurements are drawn as gaps, as if they were not finite."""

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
    **{f"{axis}tick.color": _CODES["muted"] for axis in "xy"},
    **{f"{axis}tick.{size}.size": 0 for axis in "xy" for size in ("major", "minor")},
    **{f"{axis}tick.major.pad": 5 for axis in "xy"},
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Drawing:
    """An SVG: its box, what is in it, and what it shows, for readers who cannot see it."""

    box: str
    inside: str
    said: str


@dataclass(frozen=True)
class Key:
    """One entry of a legend.   shape   line, mark or ring; "" for words alone"""

    said: str
    colour: str = ""
    shape: str = ""
    stroke: str = "solid"
    chosen: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawing with its heading and legend.   empty   what is said where there is nothing to draw"""

    title: str = ""
    said: str = ""
    drawing: Drawing | None = None
    legend: Sequence[Key] = ()
    empty: str = ""


@dataclass(frozen=True)
class Curve:
    """Points by their axes, in a band from `low` to `high` where these are given; and the look of the line.

    dots   points are marked as such up to so many"""

    x: np.ndarray
    y: np.ndarray
    colour: str = TONES[0]
    name: str = ""
    low: np.ndarray = field(default_factory=lambda: NONE)
    high: np.ndarray = field(default_factory=lambda: NONE)
    stroke: str = "solid"
    width: float = 1.6
    dots: int = 1

    def draw(self, axes: Axes) -> None:
        """Draw the line, and the band."""
        look = {"color": code(self.colour), "linewidth": self.width, "linestyle": STROKES[self.stroke]}
        dotted = "o" if len(np.unique(self.x)) <= self.dots else ""
        if len(self.low):
            axes.fill_between(self.x, self.low, self.high, color=look["color"], alpha=0.15, linewidth=0)
        axes.plot(self.x, self.y, **look, marker=dotted, markersize=2 * self.width)

    def key(self, said: str = "", chosen: bool = False) -> Key:
        """Its entry in the legend, under its name or other words."""
        return Key(said or self.name, self.colour, "line", self.stroke, chosen)


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


_RANGE = "range test: the loss while the rate grows"
KINDS = {
    "range": Kind("learning rate", "training loss", _RANGE, log_x=True, log_y=False, rises=True),
    "curves": Kind("updates", "loss", "arms: their losses while they learn"),
    "noise": Kind("updates", "critical batch", "noise: the batch at which noise equals signal, 95 % band"),
    "throughput": Kind(
        "examples of a batch", "examples a second", "throughput", log_x=True, log_y=False, from_zero=True
    ),
}
"""Kinds of pictures in evidence."""


def code(name: str) -> str:
    """The code that stands for a colour of the page while matplotlib draws."""
    return _CODES[name]


def look(place: int) -> tuple[str, str]:
    """Colour and stroke of the curve at this place among others."""
    return TONES[place % len(TONES)], list(STROKES)[place // len(TONES) % len(STROKES)]


def drawing(draw: Callable[[Axes], None], said: str) -> Drawing:
    """What `draw(axes)` draws, as an SVG without size, ids unique by `said`."""
    with rc_context({**_STYLE, "svg.hashsalt": said}):
        sheet = sheets.Figure(figsize=(4.7, 2.5), layout="constrained")  # the page scales it
        sheet.patch.set_visible(False)
        axes = sheet.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        written = io.StringIO()
        sheet.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    _, box, inside = re.split(r'<svg[^>]*?viewBox="([^"]+)"[^>]*>', written.getvalue(), maxsplit=1)
    inside = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", inside, flags=re.S)
    inside = re.sub(r'<g id="[^"]*"', "<g", inside)  # names that every drawing would share
    for name, code in _CODES.items():
        inside = inside.replace(code, f"var(--{name})")
    return Drawing(box, re.sub(r"\s*\n\s*", " ", inside.rstrip().removesuffix("</svg>")), said)


def is_wide(values: np.ndarray, span: float = 30.0) -> bool:
    """Whether positive values span so much that only a logarithmic scale shows them all."""
    return len(values) > 0 and bool(values.min() > 0 and values.max() > span * values.min())


def scale(axes: Axes, x: np.ndarray = NONE, y: np.ndarray = NONE) -> None:
    """Few round numbers along both axes; a logarithmic one where the values given for it are wide."""
    for axis, values, set_scale in ((axes.xaxis, x, axes.set_xscale), (axes.yaxis, y, axes.set_yscale)):
        if is_wide(values):
            set_scale("log")
            subs = (1.0,) if is_wide(values, MANY) else (1.0, 3.0)
            axis.set_major_locator(LogLocator(subs=subs, numticks=6))
            axis.set_minor_formatter(NullFormatter())
        else:
            axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(float(value))))


def of_training(records: Records) -> Iterator[Figure]:
    """A figure for every metric, for the rate and for the gradient, over the steps."""
    history, best = records.history, records.history.at(records.best_step)
    for metric, columns in history.metrics().items():
        value = best.get(f"val/{metric}")
        ring = None if value is None else (best["step"], value)
        yield _over_steps(history, metric, [_curve_of(history, name) for name in columns], ring)
    for name in ("lr", "grad_norm"):
        if name in history.columns:
            curve = _curve_of(history, name, "")
            gaps = len(history) - len(curve.y) if name == "grad_norm" else 0
            yield _over_steps(history, name, [curve], None, gaps)


def events(history: History) -> list[Key]:
    """The legend that all figures of training share: the events worth a line, and how often they occurred."""
    occasions = history.occasions()
    return [Key(f"{EVENTS[e]}, {len(occasions[e])}×", e, "mark") for e in EVENTS if e in occasions]


def _curve_of(history: History, column: str, name: str | None = None) -> Curve:
    """The finite points of a column of metrics.csv."""
    part = column.partition("/")[0]
    told = {"train": "training", "val": "validation"}.get(part, column) if name is None else name
    steps, values = history.columns["step"], history.columns[column]
    kept = np.isfinite(steps) & np.isfinite(values)
    return Curve(steps[kept], values[kept], part if part in ("train", "val") else "other", told)


def _over_steps(
    history: History, name: str, curves: Sequence[Curve], ring: tuple[float, float] | None, gaps: int = 0
) -> Figure:
    """ring: the point of the weights that were kept;   gaps: points that are not finite, worth a word"""
    title, values = TITLES.get(name, name), np.concatenate([curve.y for curve in curves])
    said = ", ".join(filter(None, (MEANINGS.get(name), "logarithmic scale" if is_wide(values) else "")))
    if not len(values):
        return Figure(title, said, empty="It was never finite.")

    def draw(axes: Axes) -> None:
        occasions = history.occasions()
        for place, event in enumerate(event for event in EVENTS if event in occasions):
            dashes = (3 * place, (3, 3))  # two events of one step show in each other's gaps
            for step in occasions[event]:
                axes.axvline(step, color=code(event), linewidth=1, linestyle=dashes)
        for curve in curves:
            curve.draw(axes)
        if ring:
            edge = {"markeredgecolor": code("val"), "markeredgewidth": 1.8}
            axes.plot(*ring, "o", markersize=6.5, markerfacecolor=code("paper"), **edge)
        scale(axes, y=values)
        axes.margins(x=0.02)
        axes.set_xlabel("step", loc="right")

    legend = [curve.key() for curve in curves if curve.name]
    legend += [Key("best: these weights were kept", "val", "ring")] if ring else []
    legend += [Key(f"not drawn, as not finite: {gaps}")] if gaps else []
    return Figure(title, said, drawing(draw, f"{title} over the steps of training"), legend)


def of_guesses(truth: np.ndarray, guess: np.ndarray, which: str) -> tuple[Figure, Figure]:
    """Guesses over truths, with the diagonal on which every guess would be right; and how often errors of
    each size occur."""
    over, less, error = f"guess over truth{which}", f"guess less truth{which}", guess - truth
    low, high = min(truth.min(), guess.min()), max(truth.max(), guess.max())
    ends = float(error.min()), float(error.max())
    least = 1e-6 * max(*map(abs, ends), 1e-300)  # errors may be all the same but for rounding
    some = slice(None, None, -(-len(truth) // 1500))

    def scatter(axes: Axes) -> None:
        axes.plot([low, high], [low, high], color=code(GREY), linewidth=1, linestyle=(0, (3, 2)))
        dots = {"markersize": 3, "markeredgewidth": 0, "alpha": 0.55}
        axes.plot(truth[some], guess[some], "o", color=code("val"), **dots)
        axes.set(xlabel="truth", ylabel="guess")
        scale(axes)

    def bars(axes: Axes) -> None:
        span = ends if ends[1] - ends[0] > least else (ends[0] - least, ends[1] + least)
        count = min(40, max(5, int(len(error) ** 0.5)))
        axes.hist(error, count, range=span, color=code("train"), rwidth=0.9)
        axes.axvline(0, color=code("ink"), linewidth=1)
        axes.grid(axis="x", visible=False)
        axes.set(xlabel="guess less truth", ylabel="examples")
        scale(axes)

    drawn = drawing(scatter, f"guess{which} over truth"), drawing(bars, f"how often each error{which} occurs")
    return Figure(over, drawing=drawn[0]), Figure(less, drawing=drawn[1])


def of_choice(picture: Any, heading: str) -> Figure | None:
    """The figure of a picture as evidence holds it; None where it holds none that can be drawn."""
    if not isinstance(picture, Mapping) or str(picture.get("kind")) not in KINDS:
        return None
    own = {name: picture[name] for name in ("x", "y", "said") if isinstance(picture.get(name), str)}
    kind = replace(KINDS[str(picture["kind"])], **own, crowd=picture.get("crowd") is True)
    curves, marks = _curves(picture.get("lines")), _marks(picture.get("marks"))
    if not curves:
        return Figure(said=kind.said, empty="Nothing that was measured was finite.")
    word = "leads" if "leads" in picture else "chosen"
    chosen = picture.get(word)
    curves = [_styled(curve, place, curve.name == chosen, kind.crowd) for place, curve in enumerate(curves)]
    legend = [
        curve.key(f"{curve.name} ({word})", True) if curve.name == chosen else curve.key()
        for curve in curves
        if curve.name == chosen or not kind.crowd
    ]
    others = len(curves) - len(legend)
    legend += [Key(f"{others} others", GREY, "line")] if others else []
    legend += [Key(f"{name} {number(at)}", GREY, "mark") for name, at in marks]

    def draw(axes: Axes) -> None:
        for curve in sorted(curves, key=lambda curve: kind.crowd and curve.name == chosen):  # over all others
            curve.draw(axes)
        for _, at in marks:
            axes.axvline(at, color=code(GREY), linewidth=1, linestyle=(0, (3, 3)))
        x, y = (np.concatenate([getattr(curve, axis) for curve in curves]) for axis in "xy")
        scale(axes, x if kind.log_x else NONE, y if kind.log_y else NONE)
        axes.set_xlabel(_plain(kind.x), loc="right")
        axes.set_ylabel(_plain(kind.y), loc="top")
        if kind.from_zero:
            axes.set_ylim(bottom=0)
        if kind.rises:
            axes.set_ylim(*view(curves))

    return Figure(said=kind.said, drawing=drawing(draw, f"{heading}: {kind.said}"), legend=legend)


def _styled(curve: Curve, place: int, chosen: bool, crowd: bool) -> Curve:
    """The curve in colours by turns; in a crowd grey, but for the chosen one."""
    colour, stroke = (TONES[0] if chosen else GREY, "solid") if crowd else look(place)
    return replace(curve, colour=colour, stroke=stroke, width=2.4 if chosen else 1.3, dots=12)


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return "".join(letter for letter in text if letter.isprintable()).replace("$", r"\$")


def view(curves: Sequence[Curve]) -> tuple[float, float]:
    """From the lowest value to some way above all that came before it: a loss that leaves goes out."""
    low = min(float(curve.y.min()) for curve in curves)
    start = max(max(np.median(curve.y[:5]), curve.y[: curve.y.argmin() + 1].max()) for curve in curves)
    fall = max(start - low, 1e-3 * abs(start), 1e-12)
    return low - 0.1 * fall, start + 0.6 * fall


def _curves(lines: Any) -> list[Curve]:
    """The curves that have a point to draw, without points that are not finite; without a band where that is
    not as long as the curve."""
    found = []
    for line in _mappings(lines):
        x, y, low, high = (_numbers(line.get(name)) for name in ("x", "y", "low", "high"))
        length = min(len(x), len(y))
        kept = np.isfinite(x[:length]) & np.isfinite(y[:length])
        if kept.any():
            curve = Curve(x[:length][kept], y[:length][kept], name=str(line.get("name", "")))
            if len(low) == len(high) == length:
                low, high = (_closed(end[kept], curve.y) for end in (low, high))
                curve = replace(curve, low=low, high=high)
            found.append(curve)
    return found


def _closed(end: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The end of a band, an open one as far out as the band goes elsewhere."""
    told = np.isfinite(end)
    outward = np.concatenate([end[told], y])
    below = bool(told.any()) and float((end - y)[told].mean()) < 0
    return np.where(told, end, outward.min() if below else outward.max())


def _numbers(values: Any) -> np.ndarray:
    """Numbers as they can be drawn; None, words and booleans as gaps."""
    listed = values if isinstance(values, list | tuple) else ()
    plain = (v if isinstance(v, int | float) and not isinstance(v, bool) else np.nan for v in listed)
    return np.array([v if abs(v) < LARGEST else np.nan for v in plain], float)


def _marks(marks: Any) -> list[tuple[str, float]]:
    places = ((str(mark.get("name", "")), _numbers([mark.get("x")])[0]) for mark in _mappings(marks))
    return [(name, float(at)) for name, at in places if np.isfinite(at)]


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    """Those of a list that are mappings; of anything else none."""
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list | tuple) else []
