"""Rules that torch.optim has too, as calls of its classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steepest.optim import rules
from steepest.optim.rule import Rule

Numbers = dict[str, Any]


def _betas(rule: Any) -> Numbers:
    return {"betas": (rule.beta1, rule.beta2), "eps": rule.eps}


def _means(rule: Any) -> Numbers:
    return {"alpha": rule.alpha, "eps": rule.eps}


TWINS: dict[type[Rule], tuple[str, Callable[[Any], Numbers]]] = {
    rules.SGD: ("SGD", lambda r: {}),
    rules.Momentum: ("SGD", lambda r: {"momentum": r.momentum, "dampening": r.dampening}),
    rules.Nesterov: ("SGD", lambda r: {"momentum": r.momentum, "nesterov": True}),
    rules.Adagrad: (
        "Adagrad",
        lambda r: {"lr_decay": r.lr_decay, "initial_accumulator_value": r.initial, "eps": r.eps},
    ),
    rules.Adadelta: ("Adadelta", lambda r: {"rho": r.rho, "eps": r.eps}),
    rules.RMSprop: ("RMSprop", _means),
    rules.RMSpropMomentum: ("RMSprop", lambda r: _means(r) | {"momentum": r.momentum}),
    rules.RMSpropCentered: ("RMSprop", lambda r: _means(r) | {"centered": True}),
    rules.RMSpropCenteredMomentum: (
        "RMSprop",
        lambda r: _means(r) | {"momentum": r.momentum, "centered": True},
    ),
    rules.Adam: ("Adam", _betas),
    rules.AdamW: ("AdamW", _betas),
    rules.AMSGrad: ("Adam", lambda r: _betas(r) | {"amsgrad": True}),
    rules.AMSGradW: ("AdamW", lambda r: _betas(r) | {"amsgrad": True}),
    rules.Adamax: ("Adamax", _betas),
    rules.NAdam: ("NAdam", lambda r: _betas(r) | {"momentum_decay": r.momentum_decay}),
    rules.NAdamW: (
        "NAdam",
        lambda r: _betas(r) | {"momentum_decay": r.momentum_decay, "decoupled_weight_decay": True},
    ),
    rules.RAdam: ("RAdam", _betas),
    rules.RAdamW: ("RAdam", lambda r: _betas(r) | {"decoupled_weight_decay": True}),
    rules.Rprop: (
        "Rprop",
        lambda r: {"etas": (r.shrink, r.grow), "step_sizes": (r.shortest, r.longest)},
    ),
    rules.AdafactorTorch: (
        "Adafactor",
        lambda r: {"beta2_decay": -r.decay_rate, "eps": (r.eps1, r.eps2), "d": r.threshold},
    ),
}
"""Rule → (class of torch.optim, its arguments beside lr and weight decay). The oracle tests hold them equal.

Not ASGD, whose average torch does not ship; not Muon, which torch computes in bfloat16."""


def call(rule: Rule) -> str | None:
    """The call that makes torch's optimizer of `{groups}`; None where torch has no such rule."""
    if type(rule) not in TWINS:
        return None
    name, arguments = TWINS[type(rule)]
    written = "".join(f", {key}={value!r}" for key, value in arguments(rule).items())
    return f"torch.optim.{name}({{groups}}, lr=LR{written})"
