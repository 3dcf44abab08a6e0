"""The pictures of a comparison: curves with bands, and how many runs have come to the target by when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steepest.comparison.results import Result
from steepest.comparison.statistics import time_to
from steepest.report import plot
from steepest.report.markup import Markup, element

TONES = ("train", "val", "other", "rewind", "decay", "guard", "muted", "ink")
"""Colours of the page, in the order in which strategies take them."""
POINTS = 200
"""Places along the axis at which runs are laid beside each other."""


def tone(place: int) -> tuple[str, str]:
    """(colour, line) of the strategy at this place; the line changes when the colours are used up."""
    return TONES[place % len(TONES)], ("-", "--", ":")[place // len(TONES) % 3]


def curves(runs: Mapping[str, Sequence[Result]], axis: str, target: float | None, said: str) -> Markup:
    """The median run of each strategy, in a band that holds the middle half of its seeds."""

    def draw(axes: Any) -> None:
        seen = []
        for place, results in enumerate(runs.values()):
            name, line = tone(place)
            at, low, middle, high = band(results)
            axes.fill_between(at, low, high, color=plot.colour(name), alpha=0.18, linewidth=0)
            dot = "o" if len(at) and at[0] == at[-1] else ""  # one evaluation makes no line
            axes.plot(at, middle, line, color=plot.colour(name), linewidth=1.6, marker=dot, markersize=4)
            seen.append(middle)
        if target is not None:
            axes.axhline(target, color=plot.colour("muted"), linewidth=1, linestyle=(0, (3, 3)))
        values = np.concatenate(seen) if seen else np.empty(0)
        plot.scales(axes, values[np.isfinite(values)])
        axes.margins(x=0.02)
        axes.set_xlabel(axis, loc="right")

    return plot.drawing(draw, said)


def profile(
    runs: Mapping[str, Sequence[Result]], axis: str, target: float, falls: bool, limit: float, said: str
) -> Markup:
    """The share of a strategy's runs that have come to the target, over what is equal."""

    def draw(axes: Any) -> None:
        for place, results in enumerate(runs.values()):
            name, line = tone(place)
            at, share = steps(results, target, falls, limit)
            axes.step(at, share, line, where="post", color=plot.colour(name), linewidth=1.6)
        plot.scales(axes, np.array([0.0, 1.0]))
        axes.set(ylim=(-0.03, 1.03), xlim=(0, limit))
        axes.set_xlabel(axis, loc="right")

    return plot.drawing(draw, said)


def band(results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(at, lower quartile, median, upper quartile), where at least half of the runs have a value.

    Between two evaluations a run goes along a line. One that has ended stays at its last value, lest the
    median jump to those that go on; one that failed has none any more."""
    able = [one for one in results if np.isfinite(one.values).any()]
    if not able:
        none = np.empty(0)
        return none, none, none, none
    at = np.linspace(min(one.at[0] for one in able), max(one.at[-1] for one in able), POINTS)
    laid = np.array([np.interp(at, one.at, one.values, left=np.nan, right=_end(one)) for one in able])
    kept = np.isfinite(laid).sum(axis=0) * 2 >= len(results)
    low, middle, high = (np.nanquantile(laid[:, kept], share, axis=0) for share in (0.25, 0.5, 0.75))
    return at[kept], low, middle, high


def _end(run: Result) -> float:
    return np.nan if run.failed else run.values[-1]


def steps(
    results: Sequence[Result], target: float, falls: bool, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """(times, share of the runs that are at the target from then on), from 0 to the end of the axis."""
    sign = 1.0 if falls else -1.0
    able = (one for one in results if not one.failed and len(one.at) > 0)
    times = [time_to(one.at, [sign * value for value in one.values], sign * target) for one in able]
    reached = np.sort([time for time in times if np.isfinite(time)])
    shares = np.arange(1, len(reached) + 1) / max(len(results), 1)
    ends = shares[-1] if len(shares) else 0.0
    return np.concatenate([[0.0], reached, [limit]]), np.concatenate([[0.0], shares, [ends]])


def legend(names: Sequence[str]) -> Markup:
    """Which colour is whose."""
    keys = (
        element("span", element("i", class_="line", style=f"--tone:var(--{tone(place)[0]})"), name)
        for place, name in enumerate(names)
    )
    return element("figcaption", *keys, class_="keys")
