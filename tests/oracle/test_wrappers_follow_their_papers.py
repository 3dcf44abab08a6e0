"""What wraps a rule, against its paper, in float64."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from papers import wrapped
from papers.adam import BETAS, adam, lion
from papers.classical import momentum
from papers.paper import Paper
from papers.problem import Problem
from trajectories import STEPS, flat, of_paper, of_rule

from each import each
from steepest import rules, wrap
from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.rule import Rule

EPS = np.finfo(np.float64).eps
SHAPES = ((7,), (3, 2), (4,))
HEAVY = {"momentum": 0.8, "dampening": 0.0}
LION = {"beta1": 0.8, "beta2": 0.95}
INSIDE: dict[str, tuple[Rule, Callable[..., Any], dict[str, Any]]] = {
    "adamw": (rules.AdamW(lr=0.05, weight_decay=0.1, **BETAS), adam, BETAS),
    "momentum": (rules.Momentum(lr=0.03, **HEAVY), momentum, HEAVY),
    "lion": (rules.Lion(lr=0.02, weight_decay=0.1, **LION), lion, LION),
}
"""The rules inside: as they are, their closed forms, and the numbers of these."""

CASES: dict[str, tuple[Callable[[Rule], Rule], Callable[..., Any]]] = {
    "cautious": (wrap.cautious, partial(wrapped.cautious, clamped=False)),
    "cautious_clamped": (wrap.cautious_clamped, partial(wrapped.cautious, clamped=True)),
    "grokfast": (
        partial(wrap.grokfast, decay=0.9, gain=1.5),
        partial(wrapped.grokfast, decay=0.9, gain=1.5),
    ),
    "grokfast_window": (
        partial(wrap.grokfast_window, window=6, gain=1.5),
        partial(wrapped.grokfast_window, window=6, gain=1.5),
    ),
    "lookahead": (
        partial(wrap.lookahead, every=4, share=0.3),
        partial(wrapped.lookahead, every=4, share=0.3),
    ),
    "trust_ratio": (partial(wrap.trust_ratio, trust=0.7), partial(wrapped.trust_ratio, trust=0.7)),
    "averaged": (partial(wrap.averaged, kept=0.6), partial(wrapped.averaged, kept=0.6)),
    "schedule_free": (
        partial(wrap.schedule_free, beta=0.7, power=1.5, warmup=20),
        partial(wrapped.schedule_free, beta=0.7, power=1.5, warmup=20),
    ),
}
SHIPPING = ("averaged", "schedule_free")
KINDS = ("l2", "decoupled", "fixed", "corrected", "cautious")


def tolerance(path: np.ndarray) -> float:
    """Ten roundings a step, of numbers as large as the largest weight."""
    return 10 * STEPS * EPS * np.abs(path).max()


def agree(rule: Rule, path: Callable[..., Any], ships: bool = False) -> None:
    paper, problem = Paper("", path, ships=ships), Problem(SHAPES)
    for ours, theirs in zip(
        of_rule(rule, paper, problem), of_paper(paper, {"lr": rule.lr}, problem), strict=True
    ):
        if theirs:
            np.testing.assert_allclose(flat(ours), flat(theirs), rtol=0, atol=tolerance(flat(theirs)))


def inside(name: str, path: Callable[..., Any]) -> tuple[Rule, Callable[..., Any]]:
    rule, inner, numbers = INSIDE[name]
    return rule, partial(path, inner=inner, numbers=numbers, weight_decay=rule.weight_decay)


@each("name", INSIDE)
@each("wrapper", CASES)
def test_a_wrapper_follows_its_paper(wrapper: str, name: str) -> None:
    make, path = CASES[wrapper]
    rule, path = inside(name, path)
    agree(make(rule), path, ships=wrapper in SHIPPING)


STEPPED = {
    "adamw": wrapped.step_of_adam,
    "momentum": wrapped.step_of_momentum,
    "lion": wrapped.step_of_lion,
}


@each("name", INSIDE)
@each("way", ["reset", "pullback"])
def test_momentum_where_lookahead_meets(way: Any, name: str) -> None:
    rule, _, own = INSIDE[name]
    ahead = {"every": 4, "share": 0.3}
    step = partial(STEPPED[name], **own)
    path = partial(wrapped.lookahead_with_momentum, step=step, weight_decay=rule.weight_decay, way=way)
    agree(wrap.lookahead(rule, momentum=way, **ahead), partial(path, **ahead))


@each("name", INSIDE)
@each("kind", KINDS)
def test_every_kind_of_decay(kind: str, name: str) -> None:
    rule, inner, numbers = INSIDE[name]
    bare = type(rule)(**{**vars(rule), "weight_decay": 0.0})
    path = partial(wrapped.decayed, inner=inner, numbers=numbers, weight_decay=0.02, kind=kind, peak=0.06)
    agree(wrap.decayed(bare, kind, 0.02, peak=0.06 if kind == "corrected" else None), path)


class Uphill(Problem):
    """The gradients of a rule with an ascent: radius·ascent(w, s)/‖s‖ away, where s = ascent(w, g)."""

    rule: Rule

    def gradients(self, ws: list[np.ndarray], t: int) -> list[np.ndarray]:
        up, pairs = self.rule.perturb, zip(ws, super().gradients(ws, t), strict=True)
        s = [up(NUMPY, w, g) for w, g in pairs]
        length = np.sqrt(sum((one**2).sum() for one in s)) + 1e-12
        there = [w + self.rule.radius / length * up(NUMPY, w, one) for w, one in zip(ws, s, strict=True)]
        return super().gradients(there, t)


@each("name", INSIDE)
@each("adaptive", [False, True])
def test_the_gradient_of_sam_is_taken_uphill(adaptive: bool, name: str) -> None:
    rule, path = inside(name, partial(wrapped.sam, radius=0.3, adaptive=adaptive))
    problem = Problem(SHAPES)
    expected = flat(list(islice(path(problem.start(), problem.gradients, lambda t: rule.lr), STEPS)))
    uphill = Uphill(SHAPES)
    object.__setattr__(uphill, "rule", (wrap.asam if adaptive else wrap.sam)(rule, radius=0.3))
    found = flat(of_rule(uphill.rule, Paper("", path), uphill)[0])
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance(expected))
