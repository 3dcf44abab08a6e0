"""`RuleOptimizer`: a rule as a torch.optim.Optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from steepest.engine import by_name, saved, summary
from steepest.engine.plan import Plan
from steepest.engine.reduction import norm
from steepest.engine.state import follow_schedules, group_of, values_in
from steepest.rule import Rule

_gradient = attrgetter("grad")


def watched(optimizer: torch.optim.Optimizer) -> bool:
    """True where a hook or the profiler wants to see the step; torch's own wrapper then calls them."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
        or torch.autograd._profiler_enabled()
    )


class _Made:
    """The rule of a group as last made from the numbers in it."""

    def __init__(self, template: Rule, group: dict[str, Any]) -> None:
        self.template, self.numbers = template, template.numbers()
        self.scheduled = any(callable(getattr(template, name)) for name in self.numbers)
        names = dict.fromkeys(name if name in group else "betas" for name in self.numbers)
        self.entries = itemgetter(*names, "params")
        self.seen: tuple[Any, ...] = ()
        self.factor = self.lr_scale = 0.0

    def rule(self, factor: float, group: dict[str, Any]) -> Rule:
        """The template with the group's values, its learning rate multiplied by factor and "lr_scale"."""
        entries, lr_scale = self.entries(group), group.get("lr_scale", 1.0)
        # The very same floats cannot have changed; a tensor may have been written to.
        if factor != self.factor or lr_scale != self.lr_scale or not all(map(is_, entries, self.seen)):
            numbers = dict(zip(self.numbers, values_in(self.numbers, group), strict=True))
            numbers["lr"] *= factor * lr_scale
            self.made, self.factor, self.lr_scale = replace(self.template, **numbers), factor, lr_scale
            self.seen = entries if all(map(_fixed, entries[:-1])) else (None,)
        return self.made


def _fixed(entry: Any) -> bool:
    """True where a hyperparameter cannot change without another object taking its place."""
    return type(entry) is float or (type(entry) is tuple and all(map(_fixed, entry)))


class RuleOptimizer(torch.optim.Optimizer):
    """Moves weights by a rule. Groups, state and checkpoints are torch.optim's; schedulers and hooks work.

    params: tensors, (name, tensor) pairs, or groups of them; a group may bring a "rule" of its own.
    factor: multiplies the learning rate of every group; 1 until somebody sets it.
    steps:  updates so far; schedules in a rule are evaluated at steps + 1 and written into the group.
    defaults: the entries of param_groups, where these are not the rule's hyperparameters alone.
    A group's "lr_scale" multiplies its learning rate, "maximize" turns its gradient round.
    p.grad is never written to."""

    def __init__(self, params: Iterable[Any], rule: Rule, defaults: dict[str, Any] | None = None) -> None:
        self.rules: list[Rule] = []
        self.factor, self.steps = 1.0, 0
        self._rule = rule
        self._made: dict[int, _Made] = {}
        self._plans: dict[int, Plan] = {}
        self._state_places: list[int] = []
        super().__init__(params, group_of(rule) if defaults is None else defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with hyperparameters, and perhaps a "rule", of their own."""
        rule = param_group.get("rule")
        own = {} if rule is None else group_of(rule)
        super().add_param_group(own | {key: value for key, value in param_group.items() if key != "rule"})
        self.rules.append(rule or self._rule)

    def template(self, index: int) -> Rule:
        """What the group of this index was made with: its formula, its structure and its schedules."""
        return self.rules[index]

    def rule_of(self, group: dict[str, Any]) -> Rule:
        """The rule that a group's next step follows, every hyperparameter a float."""
        return self._rule_now(next(i for i, known in enumerate(self.param_groups) if known is group))

    @property
    def rate(self) -> float:
        """Learning rate in force in the first group."""
        return self.rule_of(self.param_groups[0]).lr  # type: ignore[return-value]

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        scale: float = 1.0,
        gradients: Sequence[torch.Tensor | None] | None = None,
    ) -> Any:
        """Update every weight that has a gradient, from `scale` times it; returns the closure's loss.

        gradients: used in place of p.grad, in the order of the weights over all groups."""
        if watched(self):
            return self._watched_step(closure, scale=scale, gradients=gradients)
        return self._step(closure, scale, gradients)

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it, at a cost in every call

    def _step(self, closure: Any = None, scale: float = 1.0, gradients: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        rules = list(map(self._rule_now, range(len(self.param_groups))))  # may refuse; nothing moved
        given = None if gradients is None else iter(gradients)
        if _places(self.state) != self._state_places:
            self._plans.clear()
        for index, rule in enumerate(rules):
            group = self.param_groups[index]
            weights = group["params"]
            own = list(map(_gradient, weights)) if given is None else [next(given) for _ in weights]
            plan = self._plans.get(index)
            if plan is None or not plan.fits(type(rule), weights, own):
                plan = self._planned(index, rule, weights, own)
            plan.run(rule, -scale if group.get("maximize") else scale)
        self.steps += 1
        return loss

    _watched_step = torch.optim.Optimizer.profile_hook_step(_step)

    def gradient_norm(self) -> float:
        """Euclidean norm of all gradients together, summed in float64; nan or inf where any element is."""
        return norm([w.grad for group in self.param_groups for w in group["params"] if w.grad is not None])

    def summary(self) -> list[str]:
        """One line a group: what moves, by which rule, and whether it decays."""
        return summary.lines(self)

    def state_by_name(self) -> dict[str, torch.Tensor]:
        """A copy of all state: "<weight>/<slot>", "<weight>/step", …, and "steps" and "factor"."""
        return by_name.collect(self)

    def load_state_by_name(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what `state_by_name` gave; a UserError lists all mismatches and loads nothing."""
        by_name.restore(self, tensors)
        self._plans.clear()

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with "steps" and "factor" beside its two entries."""
        return super().state_dict() | {"steps": self.steps, "factor": self.factor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, torch.optim's checkpoints too. Weights are matched by name where both sides have them;
        state keeps its precision and is copied to memory of its own."""
        state_dict = saved.aligned(self, state_dict)
        final: list[dict[str, Any]] = []
        hook = self.register_load_state_dict_pre_hook(lambda _, given: final.append(given))
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        saved.adopt(self, final[0])

    def __getstate__(self) -> dict[str, Any]:
        own = ("rules", "factor", "steps", "_rule")
        return super().__getstate__() | {name: self.__dict__[name] for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.update({key: value for key, value in self.defaults.items() if key not in group})
        self._made, self._plans, self._state_places = {}, {}, []

    def _rule_now(self, index: int) -> Rule:
        group, template = self.param_groups[index], self.template(index)
        made = self._made.get(index)
        if made is None or made.template is not template:
            made = self._made[index] = _Made(template, group)
        if made.scheduled:
            follow_schedules(template, self.steps + 1, group)
        return made.rule(self.factor, group)

    def _planned(self, index: int, rule: Rule, weights: Sequence[Any], gradients: Sequence[Any]) -> Plan:
        plan = self._plans[index] = Plan(rule, weights, gradients, self.state)
        self._state_places = _places(self.state)
        return plan


def _places(state: Mapping[Any, dict[str, Any]]) -> list[int]:
    """Where all tensors of the state lie. A plan keeps its own alive, so no other can come to lie there."""
    try:
        return list(map(torch.Tensor.data_ptr, chain.from_iterable(map(dict.values, state.values()))))
    except TypeError:  # torch keeps None for a buffer that is not used
        entries = chain.from_iterable(map(dict.values, state.values()))
        return [entry.data_ptr() for entry in entries if isinstance(entry, torch.Tensor)]
