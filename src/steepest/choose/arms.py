"""Which descents race: the default, a point that others found good, and rates below each family's edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from steepest import rules
from steepest.choose.constants import BELOW_EDGE, BELOW_EDGES, SAME
from steepest.engine.torch.hidden import hidden
from steepest.errors import UserError
from steepest.recipe import Recipe
from steepest.train.settled import rule_of

POINT = {"beta1": 0.9327, "beta2": 0.9955}
POINT_LR, POINT_DECAY = 1.75e-3, 0.081
"""The one point of AlgoPerf's self-tuning baseline: as fast there as the best of five tuned ones."""

MUON_SHARE = 0.5
"""Share of the weights that must lie in hidden matrices for a rule of matrices to be worth an arm."""


@dataclass(frozen=True)
class Arm:
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

    def at(self, lr: float) -> Arm:
        """The same at another rate."""
        return replace(self, lr=lr)


def default(recipe: Recipe) -> Arm:
    """The descent that the recipe gives where nothing is measured: the one to beat."""
    return Arm(recipe.rule, float(recipe.lr or 0.0), _number(recipe.weight_decay), dict(recipe.hyper))


def families(control: Arm, free: bool, model: nn.Module, most: int) -> list[Arm]:
    """One arm a family, at its own default rate: that of the control first, others where the rule is free."""
    if not free:
        return [control]
    others = ["nesterov", *(["muon"] if _mostly_matrices(model) else [])]
    return [control, *map(_usual, others)][:most]


def candidates(
    control: Arm, edges: Sequence[tuple[Arm, float]], free_rule: bool, free_rate: bool, most: int
) -> list[Arm]:
    """The arms in order of priority, the control first, none twice.

    edges  each family with its edge of divergence, that of the control first"""
    if not free_rate:  # the rate is a person's: families at that rate
        arms = [control, *(arm.at(control.lr) for arm, _ in edges)]
    elif not free_rule:
        arms = [control, *(control.at(edges[0][1] / part) for part in BELOW_EDGE)]
    else:
        arms = [control, _point(), *_below(edges)]
    return _different(arms)[:most]


def _below(edges: Sequence[tuple[Arm, float]]) -> list[Arm]:
    """Rates under each edge, those most often best first, families in turn."""
    return [arm.at(rate / part) for part in BELOW_EDGES for arm, rate in edges]


def _different(arms: Sequence[Arm]) -> list[Arm]:
    kept: list[Arm] = []
    for arm in arms:
        if not any(_same(arm, other) for other in kept):
            kept.append(arm)
    return kept


def _same(a: Arm, b: Arm) -> bool:
    return a.rule == b.rule and a.hyper == b.hyper and max(a.lr, b.lr) < SAME * min(a.lr, b.lr)


def _usual(rule: str) -> Arm:
    made = rules.named(rule)
    return Arm(rule, float(made.lr), _number(getattr(made, "weight_decay", None)))


def _point() -> Arm:
    return Arm("nadamwsimple", POINT_LR, POINT_DECAY, POINT)


def _mostly_matrices(model: nn.Module) -> bool:
    trained = {name: w for name, w in model.named_parameters() if w.requires_grad}
    try:
        found = hidden(model, rules.Muon(), trained)
    except UserError:  # there is none
        return False
    return sum(trained[name].numel() for name in found) >= MUON_SHARE * sum(
        w.numel() for w in trained.values()
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def has_decay(recipe: Recipe, given: Any) -> bool:
    """Whether the rule of a recipe pulls weights towards zero at all."""
    return hasattr(rule_of(recipe, given), "weight_decay")
