"""`hypertune`: hyperparameters that are learnt while the weights are, from one-step hypergradients.

    opt = optimizer(net, "adamw", {"head*": "adamw"})
    hypertune(net, opt, "lr_scale", "beta1")

From then on opt.step() does it, in `loop` and in any loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from torch import Tensor, nn

from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.rule import Rule
from steepest.train.knobs import Dial, Knob, Line, Number, OfLoss, Rates
from steepest.train.tuner import Losses, Pace, Tuner

__all__ = ["Dial", "Tuner", "hypertune"]

DECAYS = ("weight_decay", "l1", "l2", "lambd")
"""What holds weights back. The training loss would have less of it always; so a validation loss decides."""


def hypertune(
    net: nn.Module,
    opt: RuleOptimizer,
    *what: str | Dial,
    validation: Callable[[int], Tensor] | None = None,
    training: Callable[[int], Tensor] | None = None,
    window: int = 100,
    every: int = 5,
    validate_every: int = 10,
    warmup: int = 0,
    gain: float = 0.05,
    highest: float = float("inf"),
) -> Tuner:
    """Tune these hyperparameters in every step of `opt` from now on; `tuner.stop()` ends it.

    what        "lr_scale": the ratios of the groups' rates, their level kept. "lr": the level, which only
                rises, until longer steps no longer help. The name of any other number of the rules ("beta1",
                "momentum", "weight_decay"). A `Dial` that the loss or the augmentation reads
    validation  n → the loss on the n-th validation batch; for decays and dials, which nothing else may turn
    training    n → the loss on the n-th training batch with the dials as they stand; for dials
    window      steps from one decision to the next
    every, validate_every  steps from one look to the next, at the coming gradient and at a validation loss
    warmup      steps in which only the level moves; and as long as a schedule of the rate rises
    gain        the longest move of a decision: 0.05 is 5 % of a rate
    highest     the rate that none may pass, such as 0.7 of the one at which training diverges

    A number moves in its logarithm, a share such as momentum in log-odds; at most to a tenth, or to ten
    times (rates: three times) of where it began. Its state is saved with a `loop`'s; elsewhere keep
    tuner.state_dict()."""
    _check(opt, what)
    pace = Pace(window, every, validate_every, warmup, gain)
    _check_functions(validation=validation, training=training)
    losses = Losses(net, validation, training)
    knobs: list[Knob] = [*_rates(opt, what, highest)]
    for one in what:
        if isinstance(one, Dial):
            knobs.append(_dial(opt, one, losses))
        elif one not in ("lr", "lr_scale"):
            knobs.append(_number(opt, one, losses))
    _check_names(knobs)
    return Tuner(opt, knobs, losses, pace)


def _check(opt: Any, what: Sequence[str | Dial]) -> None:
    if not isinstance(opt, RuleOptimizer):
        raise UserError(
            f"hypertune differentiates steepest's rules, and was given {type(opt).__name__}. Make the "
            "optimizer with steepest.torch, which has every class of torch.optim."
        )
    if strange := [one for one in what if not isinstance(one, str | Dial)]:
        raise UserError(
            f"Name what to tune one by one, as text or as a Dial: hypertune(net, opt, 'lr', 'beta1'); got "
            f"{strange[0]!r}."
        )
    names = [one.name if isinstance(one, Dial) else one for one in what]
    if not names or len(set(names)) < len(names):
        raise UserError(f"Name what to tune, each once, such as 'lr_scale' or 'beta1'; got {names}.")
    if opt.updates_in_backward is not None:
        opt.updates_in_backward.refuse("hypertune")
    if any(group.get("differentiable") for group in opt.param_groups):
        raise UserError("differentiable=True records steps for autograd; hypertune is for ordinary ones.")


def _check_functions(**given: Any) -> None:
    for name, function in given.items():
        if function is not None and not callable(function):
            raise UserError(f"{name} must be a function, n → the loss on the n-th batch; got {function!r}.")


def _check_names(knobs: Sequence[Knob]) -> None:
    """What was seen and saved of a knob goes by its name."""
    names = [knob.name for knob in knobs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"A dial has the name {twice[0]!r}, under which the rates are told and saved. Name it otherwise."
        )


def _rates(opt: RuleOptimizer, what: Sequence[str | Dial], highest: float) -> list[Rates]:
    level, ratios = "lr" in what, "lr_scale" in what
    if ratios and len(opt.param_groups) < 2:
        raise UserError(
            "'lr_scale' tunes the ratios of the rates of groups, and this optimizer has one group. Make "
            "several: optimizer(net, rule, {pattern: rule}), or one for each tensor."
        )
    if not (level or ratios):
        return []
    if not isinstance(highest, Real) or not highest > 0:
        raise UserError(f"highest must be above 0, got {highest!r}: it is the rate that none may pass.")
    sizes = [sum(weight.numel() for weight in group["params"]) for group in opt.param_groups]
    shares = [size / max(sum(sizes), 1) for size in sizes]
    return [Rates(opt, shares, level, ratios, highest)]


def _number(opt: RuleOptimizer, name: str, losses: Losses) -> Number:
    rules = [opt.rule_of(group) for group in opt.param_groups]
    having = {k: rule for k, rule in enumerate(rules) if name in rule.numbers()}
    if not having:
        known = {number for rule in rules for number in rule.numbers()}
        raise UserError(f"No rule here has a number {name!r}.{did_you_mean(name, known)}")
    for k, rule in having.items():
        if callable(getattr(opt.template(k), name)):
            raise UserError(
                f"{name} of {type(rule).__name__} follows a schedule, and cannot be tuned besides. Give it a "
                "number to begin from."
            )
    lines = {k: _line(rule, name) for k, rule in having.items()}
    inside = {k: rule for k, rule in having.items() if lines[k].holds(getattr(rule, name))}
    if not inside:
        values = sorted({getattr(rule, name) for rule in having.values()})
        raise UserError(
            f"{name} is {values}, the end of its range, from where it cannot move: it goes by its logarithm. "
            "Begin within the range."
        )
    if name in DECAYS and losses.validation is None:
        raise UserError(
            f"{name} is tuned on a validation loss alone: on the training loss, less of it always looks "
            "better. Give validation=, a function: n → the loss on the n-th validation batch."
        )
    kinds: dict[int, type[Rule]] = {k: type(rule) for k, rule in inside.items()}
    return Number(opt, kinds, {k: lines[k] for k in kinds}, name=name, held_out=name in DECAYS)


def _line(rule: Rule, name: str) -> Line:
    quantity = rule.quantity(name)
    return Line() if quantity is None else Line(quantity.low, quantity.high)


def _dial(opt: RuleOptimizer, dial: Dial, losses: Losses) -> OfLoss:
    given: Mapping[str, Any] = {"validation": losses.validation, "training": losses.training}
    missing = [name for name, function in given.items() if function is None]
    if missing:
        raise UserError(
            f"The dial {dial.name!r} needs {' and '.join(f'{name}=' for name in missing)}: functions n → the "
            "loss on the n-th batch. What a dial does to the training loss says nothing of its worth."
        )
    return OfLoss(dial, list(range(len(opt.param_groups))), name=dial.name)
