"""`RuleOptimizer`: a rule as a torch.optim.Optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch.compiler import is_compiling
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from steepest.optim.engines import sharded
from steepest.optim.engines.kernels.reduction import norm
from steepest.optim.engines.named_state import Names
from steepest.optim.engines.precision.memory import Memory, called_moments, split
from steepest.optim.engines.torch import evaluate, passes, saved
from steepest.optim.engines.torch.groups import (
    Groups,
    align,
    as_it_stands,
    at_step,
    following,
    group_of,
    lines,
    number,
)
from steepest.optim.engines.torch.in_backward import InBackward
from steepest.optim.engines.torch.plan import Plan, kinds, refuse_scale
from steepest.optim.engines.torch.watched_state import Entries, slot_keys
from steepest.optim.engines.torch.weight_group import known
from steepest.optim.errors import UserError
from steepest.optim.groups import LR_SCALE
from steepest.optim.rule import Rule
from steepest.optim.rules import chosen
from steepest.optim.rules.shapes import refuse

try:
    from torch._C._dynamo.eval_frame import get_eval_frame_callback as compiler
except ImportError:  # it is torch's own; without it a compiled step is slow to compile

    def compiler() -> Any:
        """What compiles Python as it runs; None where nothing does."""


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


class RuleOptimizer(torch.optim.Optimizer):
    """Moves weights by a rule. Groups, state and checkpoints are torch.optim's; schedulers and hooks work.

    params: tensors, (name, tensor) pairs, or groups of them; a group may bring a "rule" of its own.
    factor: multiplies the learning rate of every group; 1 until somebody sets it.
    evaluating: whether a block of `evaluate` is open.
    updates_in_backward: what in_backward(optimizer) returned, while it lasts.
    steps:  updates so far; schedules in a rule are evaluated at steps + 1 and written into the group.
    engine: "numba" (kernels for the CPU), "torch" (plain operations) or "compiled" (torch.compile, for rules
    by elements); None chooses by the device. What an engine cannot move goes through plain operations.
    defaults: the entries of param_groups, where these are not the rule's hyperparameters alone.
    state_dtype, rounding, average, seed: how weights and state are kept, see Memory; a group may bring its
    own. moments: the old name of state_dtype.
    A group's "lr_scale" multiplies its learning rate, "maximize" turns its gradient round.
    p.grad is written to only where step(zero_grad=True) asks for it.
    listeners: called with (scale, gradients, reads) of `move` before every update, and may change groups.
    known: the groups that the lists named in `by_group` are about, place by place.
    timed: whether more than rules writes to param_groups before a step."""

    by_group: ClassVar[tuple[str, ...]] = ("rules", "memories")
    timed = False

    def __init__(
        self,
        params: Iterable[Any],
        rule: Rule | str,
        defaults: dict[str, Any] | None = None,
        *,
        state_dtype: str = "float32",
        rounding: str = "nearest",
        average: float | None = None,
        seed: int = 0,
        engine: str | None = None,
        moments: str | None = None,
    ) -> None:
        self.engine = known(engine)
        self.rules: list[Rule] = []
        self.memories: list[Memory] = []
        self.known: list[dict[str, Any]] = []
        self._memory = Memory(called_moments(state_dtype, moments), rounding, average, seed)
        self.factor, self.steps = 1.0, 0
        self._rule = chosen(rule)
        self._groups = Groups()
        self._plan: Plan | None = None
        self._state_pointers: list[int] = []
        self._otherwise: passes.Step | None = None
        self.updates_in_backward: InBackward | None = None
        self.listeners: list[Callable[[float, Any, Any], None]] = []
        self.evaluating = False
        super().__init__(params, group_of(self._rule) if defaults is None else defaults)
        self.state = Entries(self.state)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with hyperparameters (numbers, 0-dim tensors, schedules) or a "rule" of their own."""
        align(self)
        rule, step = param_group.get("rule"), self.steps + 1
        kept, param_group = split(self._memory, param_group)
        own = {} if rule is None else group_of(chosen(rule), step)
        known = {key: value for key, value in param_group.items() if key in own or key in self.defaults}
        rest = {key: value for key, value in param_group.items() if key not in known and key != "rule"}
        made = following(self._rule if rule is None else chosen(rule), known)
        otherwise = passes.needed([*self.rules, made], [*self.param_groups, self.defaults | param_group])
        super().add_param_group(rest | own | at_step(step, known))
        self.rules.append(made)
        try:
            self._check(len(self.rules) - 1, kept)
        except UserError:
            del self.rules[-1], self.param_groups[-1]
            raise
        self.memories.append(kept)
        self.known.append(self.param_groups[-1])
        self._otherwise = otherwise
        if self.updates_in_backward is not None:
            self.updates_in_backward.watch()

    def _check(self, index: int, memory: Memory) -> None:
        """UserError where a group holds a weight that its rule cannot move, or a number that cannot be."""
        group = self.param_groups[index]
        LR_SCALE.number("lr_scale", number(group.get("lr_scale", 1.0)))
        rule = as_it_stands(self.form_of(index, group), group)
        for weight in group["params"]:
            if is_lazy(weight):  # it has no shape yet
                continue
            refuse(rule, weight.shape)
            sharded.refuse(rule, memory, weight)
            if is_expanded(weight):
                raise UserError(
                    f"A weight of shape {tuple(weight.shape)} is expanded: several of its elements are one "
                    "number in memory, which cannot move in several ways. Give a clone() of it."
                )

    def template(self, index: int) -> Rule:
        """What the group of this index was made with: its formula, its structure and its schedules."""
        return self.rules[index]

    def form_of(self, index: int, group: dict[str, Any]) -> Rule:
        """What the template would be if the group of this index held these entries."""
        return self.rules[index]

    def keys(self, index: int, group: dict[str, Any]) -> set[str]:
        """The keys of slots that a checkpoint may hold, where the group of this index holds these entries."""
        return set(slot_keys(self.form_of(index, group)))

    def rule_of(self, group: dict[str, Any]) -> Rule:
        """The rule that a group's next step follows, every hyperparameter a float."""
        index = next(i for i, known in enumerate(self.param_groups) if known is group)
        return self._groups.follow(self).rules[index]

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
        reads: Mapping[str, Sequence[torch.Tensor | None]] | None = None,
        zero_grad: bool = False,
    ) -> Any:
        """Update every weight that has a gradient, from `scale` times it; returns the closure's loss.

        gradients: used in place of p.grad, in the order of the weights over all groups.
        reads: for rules that read more than gradients, each array by its name, in the same order.
        zero_grad: leave gradients of 0, in the same pass over memory."""
        if scale != 1.0:
            refuse_scale(scale)
        if is_compiling() or compiler():  # it would take half a minute over Python that finds nothing changed
            from steepest.optim.engines.torch.uncompiled import step

            return step(self, closure, scale, gradients, reads, zero_grad)
        if watched(self):
            return self._watched_step(
                closure, scale=scale, gradients=gradients, reads=reads, zero_grad=zero_grad
            )
        if closure is None and self._otherwise is None and self.updates_in_backward is None:
            return self.move(scale, gradients, reads, zero_grad)
        return self._step(closure, scale, gradients, reads, zero_grad)

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it, at a cost in every call

    def _step(
        self,
        closure: Any = None,
        scale: float = 1.0,
        gradients: Any = None,
        reads: Any = None,
        zero_grad: bool = False,
    ) -> Any:
        if self.updates_in_backward is not None:
            return self.updates_in_backward.step(closure, scale, gradients, reads)
        if self._otherwise is not None:
            loss = self._otherwise(self, closure, scale, gradients, reads)
            if zero_grad:
                self.clear(gradients)
            return loss
        loss = None if closure is None else torch.enable_grad()(closure)()
        self.move(scale, gradients, reads, zero_grad)
        return loss

    def clear(self, gradients: Any = None) -> None:
        """Zero these gradients, or those of all weights."""
        own = self.param_groups if gradients is None else ()
        found = [w.grad for group in own for w in group["params"]] if gradients is None else gradients
        with torch.no_grad():
            for gradient in found:
                if gradient is not None:
                    gradient.zero_()

    _watched_step = torch.optim.Optimizer.profile_hook_step(_step)

    def move(self, scale: float, gradients: Any = None, reads: Any = None, zero_grad: bool = False) -> None:
        """The update itself: what `step` does after its closure, hooks and further passes."""
        for listen in self.listeners:
            listen(scale, gradients, reads)
        now, plan = self._groups.follow(self), self._plan  # may refuse; nothing moved
        if gradients is None and reads:
            gradients = list(map(_gradient, chain.from_iterable(now.weights)))
        if plan and gradients is not None and kinds(gradients, reads or {}) != plan.kinds:
            plan = None
        again = None if plan is None or reads or zero_grad else plan.fast_path
        if again and again(now, self.state, scale, gradients):
            self.steps += 1
            return
        own = list(map(_gradient, chain.from_iterable(now.weights))) if gradients is None else gradients
        read = {} if reads is None else reads
        if plan is None or not self._same_state() or not plan.fits(now.forms, now.weights, own, read):
            self._plan = None  # nothing old is kept where the new one is refused
            plan = Plan(
                now.forms, now.rules, now.weights, own, read, self.state, self.memories, engine=self.engine
            )
            self._plan, self._state_pointers = plan, _pointers(self.state)
        turns = now.turns if scale == 1.0 else [turn * scale for turn in now.turns]
        plan.run(now.rules, turns, own if zero_grad else None)
        self.steps += 1

    def gradient_norm(self) -> float:
        """Euclidean norm of all gradients together, summed in float64; nan or inf where any element is."""
        if self.updates_in_backward is not None:
            self.updates_in_backward.refuse("The norm of the gradient")
        weights = [w for group in self.param_groups for w in group["params"] if w.grad is not None]
        if any(map(sharded.is_flat_shard, weights)):
            raise UserError(
                "The norm of flat shards of FullyShardedDataParallel is that of this process alone. Call the "
                "module's own clip_grad_norm_, or use fully_shard."
            )
        gradients = list(map(_gradient, weights))
        return norm(gradients, self._plan and self._plan.places(gradients))

    def evaluate(self) -> AbstractContextManager[None]:
        """`with optimizer.evaluate():` the model holds the weights to test and to ship, not the trained ones.

        They differ where a rule averages weights (ASGD, schedule-free, lookahead) or an average is kept."""
        align(self)
        return evaluate.evaluated(self)

    def summary(self) -> list[str]:
        """One line a group: what moves, by which rule, and whether it decays."""
        return lines(self)

    def state_by_name(self) -> dict[str, torch.Tensor]:
        """A copy of all state: "<weight>/<slot>", "<weight>/step", …, and "steps" and "factor"."""
        evaluate.refuse(self, "saves no state")
        align(self)
        return saved.collect(self)

    def load_state_by_name(self, tensors: Mapping[str, Any], names: Names | None = None) -> None:
        """Take over what `state_by_name` gave, here or elsewhere; a UserError lists what does not fit.

        names: {their name of a weight: (our name, "same", "transpose" or "conv")}; none where names agree."""
        evaluate.refuse(self, "loads no state")
        align(self)
        saved.restore(self, tensors, names)
        self._plan = None

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with "steps" and "factor" beside its two entries."""
        evaluate.refuse(self, "saves no state")
        found = super().state_dict() | {"steps": self.steps, "factor": self.factor}
        found["state"] = {key: dict(entry) for key, entry in found["state"].items()}
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, torch.optim's checkpoints too. Weights are matched by name where both sides have them;
        state keeps its precision and is copied to memory of its own."""
        evaluate.refuse(self, "loads no state")
        align(self)
        final: list[dict[str, Any]] = []

        def fitted(_: Any, given: dict[str, Any]) -> dict[str, Any]:
            final.append(saved.aligned(self, given))
            return final[0]

        # After everybody else's hook before loading, and before everybody else's after it.
        before = self.register_load_state_dict_pre_hook(fitted)
        after = self.register_load_state_dict_post_hook(lambda _: saved.adopt(self, final[0]), prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def __getstate__(self) -> dict[str, Any]:
        evaluate.refuse(self, "is not copied")
        align(self)
        own = ("rules", "factor", "steps", "_rule", "memories", "_memory", "engine")
        return super().__getstate__() | {name: self.__dict__[name] for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.state, self.known = Entries(self.state), list(self.param_groups)
        for group in self.param_groups:
            group.update({key: value for key, value in self.defaults.items() if key not in group})
        self._groups, self._plan, self._state_pointers = Groups(), None, []
        self._otherwise, self.evaluating = passes.needed(self.rules, self.param_groups), False
        self.updates_in_backward = vars(self).get("updates_in_backward")  # a copy has no hooks
        self.listeners = vars(self).get("listeners", [])  # and nobody listens to it

    def _same_state(self) -> bool:
        """True where the state holds the tensors that the plan knows, in the same memory."""
        state = self.state
        if type(state) is not Entries:  # somebody put another in its place
            self.state = Entries(state)
            return False
        if state.watch.touched:
            if _pointers(state) != self._state_pointers:
                return False
            state.hush()
        return True


def is_expanded(weight: torch.Tensor) -> bool:
    """Whether an axis of the weight repeats the same memory."""
    strides = weight.stride() if weight.layout is torch.strided else ()
    return any(stride == 0 and length > 1 for stride, length in zip(strides, weight.shape, strict=False))


def _pointers(state: Mapping[Any, dict[str, Any]]) -> list[int]:
    """Where all tensors of the state lie. A plan keeps its own alive, so no other can come to lie there."""
    entries = chain.from_iterable(map(dict.values, dict.values(state)))  # pyright: ignore[reportArgumentType]
    return [sharded.pointer(entry) for entry in entries if isinstance(entry, torch.Tensor)]
