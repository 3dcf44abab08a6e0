"""What engines and faces are run on: sizes and layouts of weights, for every rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from papers import PAPERS
from papers.problem import Problem
from trajectories import STEPS, of_paper

from peers.deviation import numbers, whole
from steepest import rules
from steepest.optim.rule import Rule

SIZES = ((0,), (1,), (5,), (16,), (33,), (1000,))
MATRICES = ((1, 1), (4, 3), (3, 8), (2, 3, 2, 2), (33,))
SQUARES = ((8, 6), (2, 4, 3, 3))
"""Shapes that can be laid out in several ways."""

Run = Callable[[Rule, list[np.ndarray], Problem, int], list[list[np.ndarray]]]


def shapes(rule: Rule, among: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Those that the rule takes."""
    return tuple(shape for shape in among if rule.takes(shape))


def cases() -> Iterator[tuple[str, str, Rule]]:
    """(name, setting, rule) of every rule, with its decay on where it has one."""
    for name in rules.registry():
        knobs = {"weight_decay": 0.1} if "weight_decay" in rules.registry()[name].numbers() else {}
        yield name, "decay" if knobs else "defaults", rules.named(name, **knobs)


def result(engine: str, layout: str, name: str, rule: Rule, run: Run) -> dict[str, Any]:
    """The largest deviation from the paper over all steps and weights, as a share of the longest way."""
    among = (MATRICES if rule.whole else SIZES) if layout == "sizes" else SQUARES
    problem = Problem(shapes(rule, among))
    paper = PAPERS[name]
    path = whole((of_paper(paper, vars(numbers(rule)), problem)[0],))
    found = whole((run(rule, problem.start(), problem, STEPS),))
    moved = float(np.abs(path - np.concatenate([w.ravel() for w in problem.start()])).max())
    off = float(np.abs(found - path).max())
    return {"rule": name, "engine": engine, "layout": layout, "deviation": off, "share": off / moved}


def readings(rule: Rule, name: str, problem: Problem, t: int) -> list[list[np.ndarray]]:
    """For every array that the rule reads, one for each weight."""
    kind = PAPERS[name].reads
    return [[problem.reading(kind, i, t) for i in range(len(problem.shapes))] for _ in rule.extra_inputs]
