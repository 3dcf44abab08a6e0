"""How far a library's path lies from a paper's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from papers import PAPERS
from papers.paper import Paper
from papers.problem import Problem
from trajectories import STEPS, flat, of_paper

from peers.peer import Cause, Peer
from peers.wrapped import WRAPPED
from steepest import rules
from steepest.optim.rule import Rule

DECAY = 0.1
EPS = float(np.finfo(np.float64).eps)
Runner = Callable[[Peer, SimpleNamespace, Problem, int], tuple[list[Any], list[Any]]]


def numbers(rule: Rule) -> SimpleNamespace:
    """Every hyperparameter of a rule."""
    return SimpleNamespace(**{field.name: getattr(rule, field.name) for field in fields(rule)})


def paper_of(rule: str) -> Paper:
    """By the name of a rule, or of one in a wrapper."""
    return PAPERS.get(rule) or WRAPPED[rule]


def settings(peer: Peer) -> dict[str, Rule]:
    """Our defaults; and these with a weight decay, if both sides have one."""
    rule = rules.named(peer.rule, **peer.given)
    if not peer.decays or not hasattr(rule, "weight_decay"):
        return {"defaults": rule}
    return {"defaults": rule, "decay": replace(rule, weight_decay=DECAY)}


def measured(peer: Peer, run: Runner) -> list[dict[str, Any]]:
    """One result a setting."""
    return [compared(peer, run, name, rule) for name, rule in settings(peer).items()]


def compared(peer: Peer, run: Runner, setting: str, rule: Rule) -> dict[str, Any]:
    """The largest deviation in any weight after any step, and it as a share of the longest way walked."""
    h, problem = numbers(rule), Problem(peer.shapes or paper_of(peer.rule).shapes)
    path, rounding = expected(peer.rule, rule, problem)
    found = whole(run(peer, h, problem, STEPS))
    path = path[: len(found)]
    moved = float(np.abs(path - flat([problem.start()])).max())
    off = float(np.abs(found - path).max())
    result = {"rule": peer.rule, "peer": peer.name, "setting": setting}
    result |= {"deviation": off, "share": off / moved, "equal": off <= rounding}
    if peer.cause and off > rounding:
        result |= {"cause": peer.cause.words, "left": left(peer, run, h, problem, path, found)}
    return result


@cache
def expected(name: str, rule: Rule, problem: Problem) -> tuple[np.ndarray, float]:
    """(the paper's path, what rounding may do to it).

    Ten roundings a step of numbers as large as the largest weight; and ten times how far the path itself
    goes astray where its gradients are a few roundings off, or where it is walked in more digits."""
    paper, h = paper_of(name), vars(numbers(rule))
    path = whole(of_paper(paper, h, problem))
    others = [replace(problem, shake=n) for n in (1, 2, 3)]
    others += [] if rule.whole else [replace(problem, extended=True)]  # NumPy's matrices have 64 bits
    astray = max(float(np.abs(whole(of_paper(paper, h, other)) - path).max()) for other in others)
    return path, 10 * (STEPS * EPS * float(np.abs(path).max()) + astray)


def whole(paths: tuple[list[Any], ...]) -> np.ndarray:
    """The weights that are trained, and below them those that are shipped if there are any."""
    return np.concatenate([flat(one) for one in paths if one], axis=0)


def left(
    peer: Peer, run: Runner, h: SimpleNamespace, problem: Problem, path: np.ndarray, found: np.ndarray
) -> float:
    """The deviation that is left once the cause is taken into account."""
    cause: Cause = peer.cause  # type: ignore[assignment]
    with cause.patch() if cause.patch else nullcontext():
        found = whole(run(peer, h, problem, STEPS)) if cause.patch else found
    if cause.path or cause.numbers is not vars:
        paper = paper_of(peer.rule)
        path = whole(of_paper(replace(paper, path=cause.path or paper.path), cause.numbers(h), problem))
    return float(np.abs(found[: len(path)] - path[: len(found)]).max())
