"""`in_backward`: every weight is updated as soon as its gradient is there, and the gradient is freed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from operator import is_
from typing import Any, NamedTuple
from weakref import ref

from torch import Tensor

from steepest.optim.engines.sharded import refuse_unsynchronised
from steepest.optim.engines.torch.plan import Plan
from steepest.optim.errors import UserError


def in_backward(optimizer: Any) -> InBackward:
    """Let the optimizer update weights while backward() runs; gradients are never all alive.

    optimizer.step() then only counts: call it once after each backward(). The numbers are those of ordinary
    steps. What must see all gradients first cannot work with it and is refused: a global norm, rules with
    sums over the model, several passes a step, closures, several backward() calls a step. Gradients must not
    be scaled (torch.amp.GradScaler): they are gone when the scaler would look at them. `remove()` of what is
    returned ends it."""
    if optimizer.updates_in_backward is not None:
        raise UserError("This optimizer updates in backward() already: call in_backward once.")
    return InBackward(optimizer)


class _Place(NamedTuple):
    """A weight's group, its row in it, and its number over all groups."""

    group: int
    row: int
    number: int


class InBackward:
    """The hooks of one optimizer, and what they did since its last step."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.handles: list[Any] = []
        self.watched: set[Tensor] = set()
        self.moved: set[Tensor] = set()
        self._plans: dict[Tensor, tuple[Plan, list[Any]]] = {}
        self._places: dict[Tensor, _Place] = {}
        self._lists: list[Any] = []  # of weights, one a group, that the places are of
        self._refuse_unfit()
        optimizer.updates_in_backward = self
        self.watch()

    def watch(self) -> None:
        """Hook all weights of the optimizer that are not hooked yet."""
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                if weight not in self.watched and weight.requires_grad:
                    self.watched.add(weight)
                    self.handles.append(weight.register_post_accumulate_grad_hook(self._hook()))
        self._refuse_unfit()

    def remove(self) -> None:
        """From now on step() updates again."""
        for handle in self.handles:
            handle.remove()
        self.optimizer.updates_in_backward = None

    def step(self, closure: Any, scale: float, gradients: Any, reads: Any) -> None:
        """Count one step, whose updates are done."""
        given = {
            "a closure": closure,
            "gradients": gradients,
            "reads": reads,
            "a scale": scale != 1.0 or None,
        }
        for name, value in given.items():
            if value is not None:
                raise UserError(
                    f"step() was given {name}, and the weights have been updated in backward() already. "
                    "Call step() without arguments, or remove() what in_backward returned."
                )
        self._share()
        self.optimizer.steps += 1
        self.moved.clear()

    def refuse(self, what: str) -> None:
        """UserError: this needs gradients that are gone."""
        raise UserError(
            f"{what} needs all gradients at once, and in_backward(optimizer) frees each when it is there. "
            "Do without it, or remove() what in_backward returned."
        )

    def _hook(self) -> Any:
        own = ref(self)  # no garbage collector looks into a weight's hooks: it would live for ever

        def hook(weight: Tensor) -> None:
            this = own()
            if this is not None:
                this._move(weight)

        return hook

    def _move(self, weight: Tensor) -> None:
        """Update one weight, whose gradient has just come."""
        optimizer = self.optimizer
        if weight in self.moved:
            raise UserError(
                f"backward() ran twice before step(): the weight of shape {tuple(weight.shape)} has been "
                "updated by the first gradient. Gradients of several batches cannot be added up here."
            )
        if optimizer.evaluating:
            raise UserError(
                "backward() updates weights, and must not run inside `with optimizer.evaluate()`."
            )
        now = optimizer._groups.follow(optimizer)
        place = self._place(weight, now.weights)
        if place is None:  # taken out of its group: no longer the optimizer's
            return
        plan = self._plan(weight, place, now)
        plan.run([now.rules[place.group]], [now.turns[place.group]])
        self.moved.add(weight)
        weight.grad = None

    def _place(self, weight: Tensor, lists: Sequence[Sequence[Tensor]]) -> _Place | None:
        """Where a weight stands now; looked for anew where groups came, went or changed places."""
        known, found = self._lists, self._places.get(weight)
        if len(lists) == len(known) and all(map(is_, lists, known)) and found is not None:
            own = lists[found.group]
            if found.row < len(own) and own[found.row] is weight:
                return found
        self._lists, self._places, self._plans = list(lists), {}, {}
        numbers = count()
        for group, own in enumerate(lists):
            self._places |= {one: _Place(group, row, next(numbers)) for row, one in enumerate(own)}
        return self._places.get(weight)

    def _plan(self, weight: Tensor, place: _Place, now: Any) -> Plan:
        index = place.group
        forms, groups, gradients = [now.forms[index]], [[weight]], [weight.grad]
        plan, known = self._plans.get(weight, (None, []))
        held = list(dict.values(self.optimizer.state[weight]))
        if plan is None or len(held) != len(known) or not all(map(is_, held, known)):
            plan = None
        if plan is None or not plan.fits(forms, groups, gradients, {}):
            memories, state = [self.optimizer.memories[index]], self.optimizer.state
            plan = Plan(
                forms,
                [now.rules[index]],
                groups,
                gradients,
                {},
                state,
                memories,
                place.number,
                self.optimizer.engine,
            )
            self._plans[weight] = plan, list(dict.values(state[weight]))
        return plan

    def _share(self) -> None:
        """Give what all weights of a group have in common to those without a gradient, as `WeightGroup`."""
        for index, group in enumerate(self.optimizer.param_groups):
            rule = self.optimizer.template(index)
            if not rule.shared or rule.scope != "model":
                continue
            entries = [(w in self.moved, self.optimizer.state.get(w) or {}) for w in group["params"]]
            leaders = [entry for moved, entry in entries if moved]
            leader: dict[str, Any] = max(leaders, key=lambda entry: float(entry["step"]), default={})
            for moved, entry in entries if leader else ():
                for name in rule.shared if entry and not moved else ():
                    entry[name].fill_(float(leader[name]))

    def _refuse_unfit(self) -> None:
        optimizer = self.optimizer
        own = [weight for group in optimizer.param_groups for weight in group["params"]]
        refuse_unsynchronised("in_backward", own)
        for index in range(len(optimizer.param_groups)):
            rule = optimizer.template(index)
            if rule.sums and rule.scope == "model":
                self.refuse(f"{type(rule).__name__}, which sums over the model,")
        if optimizer._otherwise is not None:
            raise UserError(
                "in_backward is for ordinary steps: not for rules that take several passes or read curvature "
                "(sam, AdaHessian, Sophia), nor for differentiable=True."
            )
