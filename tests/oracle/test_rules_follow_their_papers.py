"""Every rule against its paper, written a second time in float64 without a look at the rule."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
from papers import PAPERS, layerwise
from papers.paper import Paper
from papers.problem import Problem
from trajectories import STEPS, flat, of_paper, of_rule

from each import each
from steepest import rules
from steepest.optim.rule import Rule

EPS = np.finfo(np.float64).eps
HERE = [paper for name, paper in PAPERS.items() if name in rules.registry()]
SET = [(paper, settings) for paper in HERE for settings in (paper.settings, *paper.others)]


def identity(case: object) -> str:
    return case.rule if isinstance(case, Paper) else ""


def numbers(rule: Rule) -> dict[str, Any]:
    return {field.name: getattr(rule, field.name) for field in fields(rule)}


def falling(highest: float) -> Callable[[int], float]:
    """A rate that changes at every step."""
    return lambda t: highest * (1.1 + np.cos(t)) / 2.1


def tolerance(path: np.ndarray) -> float:
    """Ten roundings a step, of numbers as large as the largest weight."""
    return 10 * STEPS * EPS * np.abs(path).max()


def amplified(rule: Rule, paper: Paper, problem: Problem) -> float:
    """Ten times how far the paper's own path goes astray where its gradients are a few roundings off."""
    if not paper.delicate:
        return 0.0
    exact = flat(of_paper(paper, numbers(rule), problem)[0])
    shaken = [flat(of_paper(paper, numbers(rule), replace(problem, shake=n))[0]) for n in (1, 2, 3)]
    return 10 * max(float(np.abs(one - exact).max()) for one in shaken)


def agree(rule: Rule, paper: Paper, problem: Problem) -> None:
    found = of_rule(rule, paper, problem)
    for ours, theirs in zip(found, of_paper(paper, numbers(rule), problem), strict=True):
        if theirs:
            path = flat(theirs)
            atol = tolerance(path) + amplified(rule, paper, problem)
            np.testing.assert_allclose(flat(ours), path, rtol=0, atol=atol)


@each(("paper", "settings"), SET, ids=identity)
def test_a_rule_follows_its_paper(paper: Paper, settings: dict[str, Any]) -> None:
    agree(rules.named(paper.rule, **settings), paper, Problem(paper.shapes))


@each("paper", HERE, ids=identity)
def test_so_it_does_by_default(paper: Paper) -> None:
    agree(rules.named(paper.rule), paper, Problem(paper.shapes, seed=1))


@each(("paper", "settings"), SET, ids=identity)
def test_and_where_gradients_are_small(paper: Paper, settings: dict[str, Any]) -> None:
    agree(rules.named(paper.rule, **settings), paper, Problem(paper.shapes, seed=3, size=0.01))


@each("paper", [paper for paper in HERE if not paper.steady], ids=identity)
def test_and_under_a_schedule(paper: Paper) -> None:
    rule = rules.named(paper.rule, **paper.settings | {"lr": falling(paper.settings["lr"])})
    agree(rule, paper, Problem(paper.shapes, seed=2))


def test_nesterov_is_the_papers_method_seen_from_the_point_ahead() -> None:
    """Sutskever et al. 2013, equations 3 and 4: v ← μv - lr·∇f(θ + μv), θ ← θ + v; the rule holds θ + μv."""
    lr, kept, decay, problem = 0.05, 0.8, 0.1, Problem(((7,),))
    theta, v, path = problem.start()[0], np.zeros(7), []
    for t in range(1, STEPS + 1):
        ahead = theta + kept * v
        v = kept * v - lr * (problem.gradient(0, ahead, t) + decay * ahead)
        theta = theta + v
        path.append([theta + kept * v])
    found, _ = of_rule(rules.Nesterov(lr=lr, momentum=kept, weight_decay=decay), PAPERS["nesterov"], problem)
    np.testing.assert_allclose(flat(found), flat(path), rtol=0, atol=tolerance(flat(path)))


def test_the_rate_of_lars_stands_outside_its_velocity() -> None:
    rule = rules.LARS(**layerwise.LONG | {"lr": falling(0.5)})
    agree(rule, Paper("lars", layerwise.lars_outside), Problem(PAPERS["lars"].shapes, seed=2))


def test_every_rule_has_its_paper() -> None:
    assert set(PAPERS) == set(rules.registry())
