"""Classes of optimizers under names: those of torch.optim, with the rules that stand for their flags, and one
for each other rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from inspect import Parameter, Signature, cleandoc
from typing import Any, ClassVar

import torch

from steepest.optim import rules
from steepest.optim.engines.precision.memory import Memory
from steepest.optim.engines.torch.groups import as_it_stands, at_step, places, scheduled
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.engines.torch.plan import begin
from steepest.optim.engines.torch.watched_state import slot_keys
from steepest.optim.errors import UnsupportedGradient, UserError
from steepest.optim.rule import Rule

FLAGS = {"maximize": False, "differentiable": False}
"""What of torch's flags means something for every rule."""
KEPT = {field.name: field.default for field in fields(Memory)}
"""How weights and state are kept. Where a rule has a field of such a name, the argument is the rule's."""
OLDER = ("moments",)
"""Names that arguments had before."""


@lru_cache(1024)
def form(rule: type[Rule], **structure: Any) -> Rule:
    """The rule with this structure; its numbers are those of a group. Made once."""
    return rule(**structure)


class DropIn(RuleOptimizer):
    """One of torch.optim's optimizers: its arguments, defaults, complaints, groups, state and checkpoints.

    Any number may be a 0-dim tensor, read at every step, or a schedule.
    foreach, fused: choose among torch's implementations and mean nothing here.
    capturable: means nothing here; a step reads numbers on the host and cannot go into a CUDA graph.
    differentiable: the update is recorded by autograd, operation by operation.
    state_dtype, rounding, average, seed: by name only; how weights and state are kept, see RuleOptimizer."""

    twin: ClassVar[type[torch.optim.Optimizer]]
    form: ClassVar[Callable[[dict[str, Any]], Rule]]
    by_group = (*RuleOptimizer.by_group, "_due")

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "twin"):
            theirs = inspect.signature(cls.twin)
            kept = [Parameter(name, Parameter.KEYWORD_ONLY, default=own) for name, own in KEPT.items()]
            cls.__signature__ = theirs.replace(parameters=[*theirs.parameters.values(), *kept])  # type: ignore[attr-defined]

    def __init__(self, params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        kept = {name: kwargs.pop(name) for name in (*KEPT, *OLDER) if name in kwargs}
        given = inspect.signature(self.twin).bind(params, *args, **kwargs).arguments
        del given["params"]
        self._given = scheduled(given)
        self._due: list[dict[str, Any]] = []
        defaults = self._defaults(at_step(1, given))
        super().__init__(params, type(self).form(defaults), defaults, **kept)

    @classmethod
    def _defaults(cls, given: dict[str, Any]) -> dict[str, Any]:
        """torch's, or torch's complaint with what we say of the number."""
        weight = torch.nn.Parameter(torch.empty(0, 0))
        try:
            return cls.twin([weight], **given).defaults
        except (TypeError, ValueError, IndexError) as error:
            arguments = inspect.signature(cls.twin).bind([weight], **given)
            arguments.apply_defaults()
            entries = {name: one for name, one in arguments.arguments.items() if name != "params"}
            try:
                as_it_stands(cls.form(entries), entries)
            except UserError as ours:
                theirs = f"{error}. " if isinstance(error, ValueError) else ""
                raise UserError(f"{theirs}{ours}") from error
            raise

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights, with hyperparameters (numbers, 0-dim tensors, schedules) of their own where given."""
        if "rule" in param_group:
            raise UserError(
                f"{type(self).__name__} is one rule; for others take RuleOptimizer or optimizer(model, …)."
            )
        super().add_param_group(param_group)
        own = {entry: value for entry, value in param_group.items() if entry in self.defaults}
        self._due.append(scheduled(self._given | own))

    @property
    def timed(self) -> bool:
        """Whether schedules write to param_groups."""
        return any(self._due)

    def template(self, index: int) -> Rule:
        """The formula that the group's flags choose; they may change at any time."""
        group, due = self.param_groups[index], self._due[index]
        if due:
            group.update(at_step(self.steps + 1, due))
        return type(self).form(group)

    def form_of(self, index: int, group: dict[str, Any]) -> Rule:
        """The formula that these entries of a group choose."""
        return type(self).form(group)

    def keys(self, index: int, group: dict[str, Any]) -> set[str]:
        """The keys of the state under any flags: they may have been others when it was made."""
        flags = {"momentum": 0.9, "centered": True, "amsgrad": True, "nesterov": False}
        every = group | {name: value for name, value in flags.items() if name in group}
        return {*slot_keys(type(self).form(every)), *super().keys(index, group)}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_given": self._given, "_due": self._due}


class Densifying(DropIn):
    """Takes sparse gradients, as dense ones: where a gradient is zero, these rules leave the weight."""

    def move(self, scale: float, gradients: Any = None, reads: Any = None, zero_grad: bool = False) -> None:
        """The update itself."""
        try:
            super().move(scale, gradients, reads, zero_grad)
        except UnsupportedGradient:
            given = _gradients(self) if gradients is None else gradients
            if not any(g is not None and g.is_sparse for g in given):
                raise
            super().move(scale, self.dense(given), reads)
            if zero_grad:
                self.clear(gradients)

    def dense(self, gradients: Sequence[Any]) -> list[Any]:
        """The gradients made dense."""
        return [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]


class Real(DropIn):
    """Takes no complex weights, and says so as torch does."""

    def move(self, scale: float, gradients: Any = None, reads: Any = None, zero_grad: bool = False) -> None:
        """The update itself."""
        given = _gradients(self) if gradients is None else gradients
        weights = (weight for group in self.param_groups for weight in group["params"])
        if any(weight.is_complex() and g is not None for weight, g in zip(weights, given, strict=True)):
            raise UnsupportedGradient(f"{type(self).__name__} does not support complex parameters")
        super().move(scale, gradients, reads, zero_grad)


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor | None]:
    return [weight.grad for group in optimizer.param_groups for weight in group["params"]]


def _sgd(group: dict[str, Any]) -> Rule:
    if group["nesterov"]:
        return form(rules.Nesterov)
    return form(rules.Momentum if group["momentum"] else rules.SGD)


def _rmsprop(group: dict[str, Any]) -> Rule:
    if group["centered"]:
        return form(rules.RMSpropCenteredMomentum if group["momentum"] else rules.RMSpropCentered)
    return form(rules.RMSpropMomentum if group["momentum"] else rules.RMSprop)


def _adam(group: dict[str, Any]) -> Rule:
    if group.get("decoupled_weight_decay"):
        return _adamw(group)
    return form(rules.AMSGrad if group["amsgrad"] else rules.Adam)


def _adamw(group: dict[str, Any]) -> Rule:
    return form(rules.AMSGradW if group["amsgrad"] else rules.AdamW)


def _asgd(group: dict[str, Any]) -> Rule:
    return form(rules.ASGD, power=float(group["alpha"]))


def _rates(group: dict[str, Any]) -> Callable[[float], dict[str, torch.Tensor]]:
    """What torch's ASGD keeps for the step after `done` ones: the rate and the share of the new weights."""
    lr, lambd, alpha, t0 = (float(group[name]) for name in ("lr", "lambd", "alpha", "t0"))
    return lambda done: {
        "eta": torch.tensor(lr / (1 + lambd * lr * done) ** alpha),
        "mu": torch.tensor(1 / max(1.0, done - t0)),
    }


def _rprop(group: dict[str, Any]) -> Rule:
    (shrink, grow), (shortest, longest) = (map(float, group[name]) for name in ("etas", "step_sizes"))
    return form(rules.Rprop, shrink=shrink, grow=grow, shortest=shortest, longest=longest)


def _adafactor(group: dict[str, Any]) -> Rule:
    eps1, eps2 = group["eps"]
    if eps1 is None:  # torch takes that of the first weight's dtype for all of them
        eps1 = torch.finfo(group["params"][0].dtype if "params" in group else torch.float32).eps
    made = {"decay_rate": -float(group["beta2_decay"]), "threshold": float(group["d"])}
    return form(rules.AdafactorTorch, eps1=float(eps1), eps2=float(eps2), **made)


def _muon(group: dict[str, Any]) -> Rule:
    rule = rules.MuonMatched if group["adjust_lr_fn"] == "match_rms_adamw" else rules.Muon
    coefficients = tuple(map(float, group["ns_coefficients"]))
    return form(rule, steps=group["ns_steps"], nesterov=group["nesterov"], coefficients=coefficients)


class SGD(Densifying):
    """torch.optim.SGD: plain, with momentum, or Nesterov's. Sparse gradients are made dense."""

    twin, form = torch.optim.SGD, staticmethod(_sgd)


class Adagrad(Densifying):
    """torch.optim.Adagrad. Sparse gradients are made dense."""

    twin = torch.optim.Adagrad
    form = staticmethod(lambda group: form(rules.Adagrad, initial=float(group["initial_accumulator_value"])))

    def dense(self, gradients: Sequence[Any]) -> list[Any]:
        """The gradients made dense; torch's RuntimeError where they would not be alone in moving weights."""
        if any(group["weight_decay"] for group in self.param_groups):
            raise UnsupportedGradient("weight_decay option is not compatible with sparse gradients")
        return super().dense(gradients)

    def share_memory(self) -> None:
        """Put sums where other processes see them, as torch does; counts of steps stay each one's own."""
        begin(self)
        for entry in self.state.values():
            for tensor in (x for key, x in entry.items() if key != "step"):
                tensor.share_memory_()


class Adadelta(DropIn):
    """torch.optim.Adadelta."""

    twin, form = torch.optim.Adadelta, staticmethod(lambda group: form(rules.Adadelta))


class RMSprop(DropIn):
    """torch.optim.RMSprop: plain, with momentum, centred, or both."""

    twin, form = torch.optim.RMSprop, staticmethod(_rmsprop)


class Adam(DropIn):
    """torch.optim.Adam, with amsgrad and decoupled_weight_decay."""

    twin, form = torch.optim.Adam, staticmethod(_adam)


class AdamW(DropIn):
    """torch.optim.AdamW, with amsgrad."""

    twin, form = torch.optim.AdamW, staticmethod(_adamw)


class Adamax(DropIn):
    """torch.optim.Adamax."""

    twin, form = torch.optim.Adamax, staticmethod(lambda group: form(rules.Adamax))


class NAdam(DropIn):
    """torch.optim.NAdam, with decoupled_weight_decay."""

    twin = torch.optim.NAdam
    form = staticmethod(lambda group: form(rules.NAdamW if group["decoupled_weight_decay"] else rules.NAdam))


class RAdam(DropIn):
    """torch.optim.RAdam, with decoupled_weight_decay."""

    twin = torch.optim.RAdam
    form = staticmethod(lambda group: form(rules.RAdamW if group["decoupled_weight_decay"] else rules.RAdam))


class Rprop(DropIn):
    """torch.optim.Rprop. It is for gradients of the whole data: noise in their signs shortens all steps."""

    twin, form = torch.optim.Rprop, staticmethod(_rprop)


class ASGD(DropIn):
    """torch.optim.ASGD. Its average is what `evaluate()` puts into the model.

    eta and mu, which follow from the step, stand in checkpoints and not in the state. A new learning rate
    counts at once; torch's counts one step later."""

    twin, form = torch.optim.ASGD, staticmethod(_asgd)

    def state_dict(self) -> dict[str, Any]:
        """As torch's, eta and mu of the next step among it."""
        held = super().state_dict()
        rates = {index: _rates(group) for group in held["param_groups"] for index in group["params"]}
        state = {index: entry | rates[index](float(entry["step"])) for index, entry in held["state"].items()}
        return held | {"state": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's."""
        super().load_state_dict(state_dict)
        for entry in self.state.values():
            entry.pop("eta", None)
            entry.pop("mu", None)


class Adafactor(Real):
    """torch.optim.Adafactor. The paper's is rules.Adafactor, through `optimizer` or RuleOptimizer."""

    twin, form = torch.optim.Adafactor, staticmethod(_adafactor)


class Muon(Real):
    """torch.optim.Muon, for matrices, in either of its scales. It is computed in the weights' own precision,
    where torch rounds to bfloat16; for a whole model see `optimizer`, which gives other weights to AdamW."""

    twin, form = torch.optim.Muon, staticmethod(_muon)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add matrices, with hyperparameters of their own where given."""
        given = param_group["params"]
        given = [given] if isinstance(given, torch.Tensor) else list(given)
        for weight in (one[1] if isinstance(one, tuple) else one for one in given):
            if isinstance(weight, torch.Tensor) and weight.ndim != 2:
                raise ValueError(
                    f"Muon only supports 2D parameters whereas we found a parameter with size: {weight.shape}"
                )
        super().add_param_group(param_group | {"params": given})


class LBFGS(torch.optim.LBFGS):
    """torch.optim.LBFGS itself. It calls its closure many times a step, along a line; nothing here makes it
    faster or other. rules.LBFGS, by RuleOptimizer, takes one gradient a step and searches nothing."""


class SparseAdam(torch.optim.SparseAdam):
    """torch.optim.SparseAdam itself, for gradients that are sparse tensors, which rules are not for."""


class OfRule(RuleOptimizer):
    """The optimizer that moves weights by the rule `kind`."""

    kind: ClassVar[type[Rule]]
    __signature__: ClassVar[Signature]

    def __init__(self, params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        older = {name: kwargs.pop(name) for name in OLDER if name in kwargs}
        bound = self.__signature__.bind(params, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        rule = self.kind(**_fields(self.kind, given))
        held = [*(entry for entry, _ in places(self.kind).values()), *FLAGS]
        kept = {name: given[name] for name in by_name(self.kind) if name not in FLAGS}
        super().__init__(params, rule, at_step(1, {entry: given[entry] for entry in held}), **kept, **older)


def class_of(rule: type[Rule]) -> type[OfRule]:
    """The optimizer of a rule, under its name. Any number may be a 0-dim tensor or a schedule."""
    signature = _signature(rule)
    body = {
        "kind": rule,
        "__signature__": signature,
        "__doc__": f"{cleandoc(rule.__doc__ or '')}\n\n{rule.__name__}{signature}",
        "__module__": "steepest.torch",
    }
    return type(rule.__name__, (OfRule,), body)


def _signature(rule: type[Rule]) -> Signature:
    """params, the rule's fields in their order, with its betas as one tuple, and the flags."""
    arguments: dict[str, Any] = {"params": Parameter.empty}
    for name, (entry, place) in _arguments(rule).items():
        default = rule.__dataclass_fields__[name].default
        arguments[entry] = default if place is None else (*arguments.get(entry, ()), default)
    made = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=own) for name, own in arguments.items()]
    rest = by_name(rule).items()
    return Signature(made + [Parameter(name, Parameter.KEYWORD_ONLY, default=own) for name, own in rest])


def by_name(rule: type[Rule]) -> dict[str, Any]:
    """The arguments of a rule's class that are given by name only, with their defaults."""
    own = {field.name for field in fields(rule)}
    return {name: default for name, default in (FLAGS | KEPT).items() if name not in own}


def _arguments(rule: type[Rule]) -> dict[str, tuple[str, int | None]]:
    """Where the arguments hold each field: (argument, place in its tuple or None)."""
    return {field.name: places(rule).get(field.name, (field.name, None)) for field in fields(rule)}


def _fields(rule: type[Rule], given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a rule out of the arguments of its class; 0-dim tensors as the floats that they hold."""
    where = _arguments(rule)
    for entry in {entry for entry, place in where.values() if place is not None}:
        wanted = sum(other == entry for other, _ in where.values())
        if not isinstance(given[entry], tuple | list) or len(given[entry]) != wanted:
            raise UserError(f"{entry} of {rule.__name__} must be {wanted} numbers, got {given[entry]!r}.")
    found = {
        name: given[entry] if place is None else given[entry][place] for name, (entry, place) in where.items()
    }
    return {name: _number(name, value) for name, value in found.items()}


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.numel() != 1:
        raise ValueError(f"Tensor {name} must be 1-element")  # torch.optim's words
    return float(value.detach())
