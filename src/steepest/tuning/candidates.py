"""Which descents are compared: the default, and rates of one or more rules, further out where the outermost
lead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import Any

from torch import nn

from steepest.optim import rules
from steepest.optim.engines.torch.of_model import hidden
from steepest.optim.errors import UserError
from steepest.recipe import Recipe
from steepest.tuning.constants import ABOVE, AROUND_EDGE, HIGHEST, LEADS, MATRICES, RATES, SAME, STEP


@dataclass(frozen=True)
class Candidate:
    """One descent that may win: a rule with its numbers, in the words of a recipe."""

    rule: str
    lr: float
    weight_decay: float | None = None
    hyper: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it is shown, and its files are called."""
        return f"{self.rule.removeprefix('object ')} {self.lr:.3g}"

    def settings(self) -> dict[str, Any]:
        """The settings of a recipe that it stands for."""
        return asdict(self)

    def at(self, lr: float) -> Candidate:
        """The same at another rate."""
        return replace(self, lr=lr)


def default(recipe: Recipe) -> Candidate:
    """The descent that the recipe gives where nothing is measured."""
    return Candidate(recipe.rule, float(recipe.lr or 0.0), number(recipe.weight_decay), dict(recipe.hyper))


def families(own: Candidate, free: bool, model: nn.Module, decay: float | None = None) -> list[Candidate]:
    """One candidate a family, at its own default rate: that of the recipe first, another where the rule is
    free.

    decay: the weight decay that a person has given, which all have then"""
    if not free:
        return [own]
    other = _usual("muonmatched" if _of_matrices(model) else "nesterov")
    return [own, other if decay is None else replace(other, weight_decay=decay)]


def leader(first: Sequence[Candidate]) -> Candidate:
    """The candidate to beat where these families are compared: the default, or another that has led so
    far."""
    led = [one.at(one.lr * LEADS[one.rule]) for one in first if one.rule in LEADS]
    return led[0] if led and len(first) > 1 else first[0]


def initial(control: Candidate, first: Sequence[Candidate], free_rate: bool, most: int) -> list[Candidate]:
    """The candidates to begin with in order of priority, the control first, none twice.

    first  each family at the lowest rate that it begins with, that of the default first"""
    if not free_rate:  # the rate is a person's: families at that rate
        return _different([control, *(one.at(control.lr) for one in first)])[:most]
    in_turn = zip_longest(*(_ladder(one, control) for one in first))
    return _different([control, *(one for candidates in in_turn for one in candidates if one is not None)])[
        :most
    ]


def _ladder(one: Candidate, control: Candidate) -> list[Candidate]:
    """Rates of a family; one alone beside a control that leads, to climb from if it is best."""
    led = control.rule in LEADS and one.rule != control.rule
    return [one.at(one.lr * factor) for factor in RATES[: 1 if led else None]]


def lowest(one: Candidate, edge: float | None, power: float) -> float:
    """The lowest rate that a rule begins with: its default, or above, unless the edge speaks against it.

    power: the root of the batch that its rate grows with"""
    lr = one.lr * ABOVE.get(one.rule, 1.0)
    near, far = AROUND_EDGE[power]
    return lr if edge is None else min(max(lr, edge / far), edge / near)


def below(candidates: Sequence[Candidate]) -> Candidate:
    """The next rate below the lowest."""
    lowest_one = min(candidates, key=lambda one: one.lr)
    return lowest_one.at(lowest_one.lr / STEP)


def beyond(candidates: Sequence[Candidate], best: int) -> Candidate | None:
    """The next rate outwards where the best candidate is outermost among those of its rule; None: it is not,
    or as
    high as its rule goes."""
    rates = sorted(one.lr for one in candidates if alike(one, candidates[best]))
    lr = candidates[best].lr
    if len(rates) > 1 and rates[0] < lr < rates[-1]:
        return None
    further = candidates[best].at(lr * STEP if lr == rates[-1] else lr / STEP)
    return None if lr < further.lr > HIGHEST.get(further.rule, math.inf) else further


def protected(candidates: Sequence[Candidate], ranked: Sequence[int]) -> list[int]:
    """Candidates that go on whatever they have scored: the default, the next lower rate than the best one's,
    since
    high ones lead early, and the best of another rule.   ranked: the best first"""
    best = candidates[ranked[0]]
    lower = [one for one in ranked if alike(candidates[one], best) and candidates[one].lr < best.lr]
    others = [one for one in ranked if not alike(candidates[one], best)]
    next_lower = sorted(lower, key=lambda one: candidates[one].lr)[-1:]
    return list(dict.fromkeys([0, *next_lower, *others[:1]]))


def alike(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates differ in their rate alone."""
    return one.rule == other.rule and one.hyper == other.hyper


def _different(candidates: Sequence[Candidate]) -> list[Candidate]:
    kept: list[Candidate] = []
    for one in candidates:
        if not any(_same(one, other) for other in kept):
            kept.append(one)
    return kept


def _same(a: Candidate, b: Candidate) -> bool:
    return alike(a, b) and max(a.lr, b.lr) < SAME * min(a.lr, b.lr)


def _usual(rule: str) -> Candidate:
    made = rules.named(rule)
    return Candidate(rule, float(made.lr), number(getattr(made, "weight_decay", None)))


def _of_matrices(model: nn.Module) -> bool:
    trained = {name: w for name, w in model.named_parameters() if w.requires_grad}
    try:
        found = hidden(model, rules.MuonMatched(), trained)
    except UserError:  # there is none
        return False
    return sum(trained[name].numel() for name in found) >= MATRICES * sum(w.numel() for w in trained.values())


def number(value: Any) -> float | None:
    """A setting that is one; None for "auto" and for what is left to the rule."""
    return float(value) if isinstance(value, int | float) else None
