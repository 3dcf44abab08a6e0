"""Trajectories on a noisy quadratic: by the rule and the reference engine, and by the paper."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
from papers.paper import Array, Paper
from papers.problem import Problem

from steepest.optim.engines import on_numpy
from steepest.optim.rule import Rule

STEPS = 50

Weights = list[Array]


def of_rule(
    rule: Rule, paper: Paper, problem: Problem, steps: int = STEPS
) -> tuple[list[Weights], list[Weights]]:
    """(weights after each step, weights to ship after each step)."""
    ws = problem.start()
    slots = [rule.init(on_numpy.NUMPY, w) for w in ws]
    shared: Any = [dict(rule.shared) for _ in ws]
    trained, shipped = [], []
    for t in range(1, steps + 1):
        rows = [
            (w, g, *readings(rule, paper, problem, i, t), *slots[i])
            for i, (w, g) in enumerate(zip(ws, problem.gradients(ws, t), strict=True))
        ]
        before = shared
        moved, shared = on_numpy.step_all(rule, t, t, rows, shared)
        ws, slots = [row[0] for row in moved], [row[1:] for row in moved]
        trained.append(ws)
        if paper.ships:
            shipped.append([evaluated(rule, t, *one) for one in zip(ws, slots, before, strict=True)])
    return trained, shipped


def readings(rule: Rule, paper: Paper, problem: Problem, i: int, t: int) -> list[Array]:
    return [problem.reading(paper.reads, i, t) for _ in rule.extra_inputs]


def evaluated(rule: Rule, t: int, w: Array, slots: tuple[Array, ...], shared: dict[str, float]) -> Array:
    k, _ = rule.at(t).constants(on_numpy.HOST, t, shared)
    return rule.evaluate(on_numpy.NUMPY, k, w, *slots)


def of_paper(
    paper: Paper, numbers: dict[str, Any], problem: Problem, steps: int = STEPS
) -> tuple[list[Weights], list[Weights]]:
    """The same, by the paper's own path."""
    numbers = dict(numbers)
    lr = numbers.pop("lr")
    rate = lr if callable(lr) else lambda t: lr
    ws = problem.start()
    if paper.model:
        path = paper.path(ws, problem.gradients, rate, **numbers)
        points = list(islice(path, steps))
    else:
        paths = [islice(one_path(paper, problem, i, w, rate, numbers), steps) for i, w in enumerate(ws)]
        points = [list(point) for point in zip(*paths, strict=True)]
    if paper.ships:
        return [[a for a, _ in point] for point in points], [[b for _, b in point] for point in points]
    return points, []


def one_path(paper: Paper, problem: Problem, i: int, w: Array, rate: Any, numbers: dict[str, Any]) -> Any:
    reading = [lambda t: problem.reading(paper.reads, i, t)] if paper.reads else []
    return paper.path(w, lambda w, t: problem.gradient(i, w, t), rate, *reading, **numbers)


def flat(path: list[Weights]) -> Array:
    """A row a step."""
    return np.array([np.concatenate([w.ravel() for w in ws]) for ws in path])
