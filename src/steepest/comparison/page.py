"""report.html of a comparison: one file that needs nothing else, made from its folder."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from steepest.comparison import words
from steepest.comparison.plan import Plan
from steepest.comparison.runs import Result
from steepest.comparison.statistics import time_to
from steepest.comparison.strategies import axis_of
from steepest.comparison.verdict import Finding, Verdict
from steepest.evidence import Evidence
from steepest.recipe import PATHS
from steepest.report import choices, rendering
from steepest.report.figures import GREY, Curve, Figure, code, drawing, look, scale
from steepest.report.rendering import duration, number

POINTS = 200
"""Places along the axis at which runs are laid beside each other."""


def render(
    folder: Path, plan: Plan, verdict: Verdict, results: Sequence[Result], evidence: Sequence[Evidence]
) -> bytes:
    """The page of the comparison in a folder."""
    kinds = dict.fromkeys(kind for one in verdict.standings for kind in one.metrics)
    tested = [kind for kind in kinds if kind.startswith("test/")]
    parts = {
        "name": folder.resolve().name,
        "place": shlex.quote(str(folder)),
        "status": "finished" if verdict.done == verdict.asked else "not finished",
        "headline": words.headline(verdict),
        "sentences": words.sentences(verdict),
        "verdict": verdict,
        "columns": words.columns(verdict),
        "standings": [words.row(one) for one in verdict.standings],
        "kinds": tested,
        "tested": [[one.strategy, *map(number, map(one.metrics.get, tested))] for one in verdict.standings],
        "differences": [_cells(one, lambda mean: f"{mean:+.3g}", " − ") for one in verdict.differences],
        "times": [_cells(one, lambda mean: f"{math.exp(mean):.3g}", " / ") for one in verdict.times],
        "figures": figures(verdict, results, axis_of(plan.equal, plan.budget)[1]),
        "evidence": choices.section([asdict(one) for one in evidence]),
        "runs": [_run(one) for one in results],
        "reports": [f"{one.folder}/report.html" for one in results],
        "question": _question(plan),
    }
    return rendering.render("comparison", parts)


def _run(one: Result) -> list[str]:
    return [
        one.strategy,
        str(one.seed),
        one.status,
        number(one.value),
        number(one.spent["steps"]),
        duration(one.spent["seconds"]),
        one.why,
    ]


def _cells(found: Finding, told: Callable[[float], str], between: str) -> list[str]:
    return [
        f"{found.first}{between}{found.second}",
        told(found.mean) if math.isfinite(found.mean) else "–",
        f"{told(found.low)} … {told(found.high)}" if math.isfinite(found.low) else "–",
        number(found.p),
        number(found.adjusted),
        str(found.pairs),
        "separable" if found.separable else f"not separable; {words.wanted(found)}",
    ]


def _question(plan: Plan) -> dict[str, dict[str, Any]]:
    """What was asked, by headings. Paths stand as seen from the root in a question."""
    asked, seeds = plan.asked(), f"{plan.seed_numbers[0]} to {plan.seed_numbers[-1]}"
    own = {"equal": plan.equal, "budget": plan.budget, "seeds": seeds, "reference": plan.reference}
    sides = {f"strategy {name}": told for name, told in asked["strategies"].items()}
    parts = {"conditions": own, **sides, "shared by all": asked["shared"]}
    for told in parts.values():
        told |= {key: str(told[key]).replace("./", "/", 1) for key in PATHS if key in told}
    return parts


def figures(verdict: Verdict, results: Sequence[Result], axis: str) -> list[Figure]:
    """The median run of each strategy, in a band that holds the middle half of its seeds; and the share of
    its runs that have come to the target, where there is one. None before the first evaluation."""
    if not any(len(one.at) for one in results):
        return []
    metric, target = verdict.metric, verdict.target
    curves, stairs = [], []
    for place, side in enumerate(verdict.standings):
        runs = [one for one in results if one.strategy == side.strategy]
        colour, stroke = look(place)
        at, low, middle, high = band(runs)
        curves.append(Curve(at, middle, colour, side.strategy, low, high, stroke))
        if target is not None:
            at, share = profile(runs, target, verdict.falls, verdict.limit)
            stairs.append(Curve(np.repeat(at, 2)[1:], np.repeat(share, 2)[:-1], colour, stroke=stroke))

    def draw(axes: Axes) -> None:
        for curve in curves:
            curve.draw(axes)
        if target is not None:
            axes.axhline(target, color=code(GREY), linewidth=1, linestyle=(0, (3, 3)))
        values = np.concatenate([curve.y for curve in curves])
        scale(axes, y=values[np.isfinite(values)])
        axes.margins(x=0.02)
        axes.set_xlabel(axis, loc="right")

    def draw_profile(axes: Axes) -> None:
        for curve in stairs:
            curve.draw(axes)
        scale(axes)
        axes.set(ylim=(-0.03, 1.03), xlim=(0, verdict.limit))
        axes.set_xlabel(axis, loc="right")

    legend = [curve.key() for curve in curves]
    said = "median and middle half of the seeds; one that has ended stays there; dashed: the target"
    found = [Figure(metric, said, drawing(draw, f"{metric} of each strategy over {axis}"), legend)]
    if target is not None:
        said = "share of the runs that have reached and held it; misses never do"
        drawn = drawing(draw_profile, f"share of runs at the target over {axis}")
        found.append(Figure("profile of the target", said, drawn, legend))
    return found


def band(results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(at, lower quartile, median, upper quartile), where at least half of the runs have a value.

    Between two evaluations a run goes along a line. One that has ended stays at its last value, lest the
    median jump to those that go on; one that failed has none any more."""
    able = [one for one in results if np.isfinite(one.values).any()]
    if not able:
        none = np.empty(0)
        return none, none, none, none
    at = np.linspace(min(one.at[0] for one in able), max(one.at[-1] for one in able), POINTS)
    ends = [np.nan if one.failed else one.values[-1] for one in able]
    lines = zip(able, ends, strict=True)
    laid = np.array([np.interp(at, one.at, one.values, left=np.nan, right=end) for one, end in lines])
    kept = np.isfinite(laid).sum(axis=0) * 2 >= len(results)
    low, middle, high = (np.nanquantile(laid[:, kept], share, axis=0) for share in (0.25, 0.5, 0.75))
    return at[kept], low, middle, high


def profile(
    results: Sequence[Result], target: float, falls: bool, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """(times, share of the runs that are at the target from then on), from 0 to the end of the axis."""
    sign = 1.0 if falls else -1.0
    able = (one for one in results if not one.failed and len(one.at) > 0)
    times = [time_to(one.at, [sign * value for value in one.values], sign * target) for one in able]
    reached = np.sort([time for time in times if np.isfinite(time)])
    shares = np.arange(len(reached) + 1) / max(len(results), 1)
    return np.array([0.0, *reached, limit]), np.array([*shares, shares[-1]])
