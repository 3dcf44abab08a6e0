"""One face over the optimizers that the loop drives: steepest's own, and any of torch.optim.

What a checkpoint holds of an optimizer is three parts:

    slots   its state by the names of weights; a rewind loads these alone
    groups  the entries of param_groups: rates, betas, decays, whatever a person or a scheduler has set there
    clock   updates that its own schedules have seen, and the factor of the plateau schedule
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase as RunningNorm

from steepest.optim.engines.kernels.reduction import norm
from steepest.optim.engines.precision.formats import widest
from steepest.optim.engines.torch import evaluate, passes
from steepest.optim.errors import UserError


class OptimizerAdapter(Protocol):
    """What the loop asks of an optimizer.

    opt       the optimizer
    weights   the parameters that it moves
    several   the name of a rule that takes more than one pass over a batch; empty where each takes one
    averages  whether the evaluation weights are not those that are trained"""

    opt: Any
    weights: list[nn.Parameter]
    several: str
    averages: bool

    @property
    def rate(self) -> float:
        """The learning rate in force in the first group."""
        ...

    def scale_rates(self, factor: float) -> None:
        """Multiply the rate of every group by this factor, in place of the one before."""
        ...

    def norm(self) -> float:
        """Norm of the whole gradient; not finite where any of it is not."""
        ...

    def look(self, compute: Callable[[], Any]) -> Tensor:
        """Take all passes over one batch and give its loss; `step` then has all that it needs."""
        ...

    def step(self, scale: float, gradients: list[Tensor | None] | None) -> None:
        """One update with every gradient multiplied by `scale`."""
        ...

    def pass_over(self) -> None:
        """A step went by without an update."""
        ...

    def evaluated(self) -> AbstractContextManager[None]:
        """Within it the network holds the evaluation weights."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """slots, groups and clock, in memory of their own."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; where groups are None, those here stay."""
        ...

    def load_slots(self, slots: Mapping[str, Any]) -> None:
        """Take over the state of the weights; groups and clock stay at today's."""
        ...

    def ship(self, state: Mapping[str, Any]) -> None:
        """Put the evaluation weights of a `state_dict` into the network; the optimizer stays."""
        ...


def adapted(opt: torch.optim.Optimizer, net: nn.Module) -> OptimizerAdapter:
    """The face of this optimizer. Raises UserError where it moves a weight that is not the network's."""
    return RuleAdapter(opt, net) if hasattr(opt, "state_by_name") else TorchAdapter(opt, net)


def total_norm(gradients: Iterable[Tensor | None]) -> float:
    """Euclidean norm of all gradients together; not finite where any of them is not."""
    present = [g for g in gradients if g is not None]
    if not present:
        return 0.0
    norms = torch._foreach_norm(present)
    together = torch.stack(norms)
    return float(torch.linalg.vector_norm(together, dtype=widest(together)))


class RuleAdapter:
    """Over an optimizer that scales inside its kernel and knows its state by name."""

    def __init__(self, opt: Any, net: nn.Module) -> None:
        self.opt = opt
        self.weights = list(chain.from_iterable(group["params"] for group in opt.param_groups))
        self.several, self.averages = passes.whose(opt), evaluate.differs(opt)
        self._norms = [module for module in net.modules() if isinstance(module, RunningNorm)]
        self._reads: dict[str, list[Tensor | None]] | None = None

    def scale_rates(self, factor: float) -> None:
        self.opt.factor = factor

    @property
    def rate(self) -> float:
        return self.opt.rate

    def norm(self) -> float:
        """nan where curvature that was looked at is not finite."""
        columns = (self._reads or {}).values()
        seen = [x for column in columns for x in column if x is not None]
        return self.opt.gradient_norm() if not seen or math.isfinite(norm(seen)) else math.nan

    def look(self, compute: Callable[[], Any]) -> Tensor:
        """Running statistics of batch norms take in the first pass alone."""
        calls: list[int] = []

        def counted() -> Any:
            calls.append(1)
            with _at_rest(self._norms) if len(calls) > 1 else nullcontext():
                return compute()

        loss, _, self._reads = passes.look(self.opt, counted)
        return loss

    def step(self, scale: float, gradients: list[Tensor | None] | None) -> None:
        if self.several and gradients is None:
            gradients = [weight.grad for weight in self.weights]
        reads, self._reads = self._reads, None
        self.opt.step(scale=scale, gradients=gradients, reads=reads)

    def pass_over(self) -> None:
        self.opt.steps += 1  # schedules go on
        self._reads = None

    def evaluated(self) -> AbstractContextManager[None]:
        return self.opt.evaluate()

    def state_dict(self) -> dict[str, Any]:
        slots = self.opt.state_by_name()
        clock = {"steps": int(slots.pop("steps")), "factor": float(slots.pop("factor"))}
        return {"slots": slots, "groups": _groups_of(self.opt), "clock": clock}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._load(state["slots"], state["clock"])
        for group, saved in _pairs(self.opt.param_groups, state["groups"]):
            group.update({name: _like(group.get(name), value) for name, value in saved.items()})

    def load_slots(self, slots: Mapping[str, Any]) -> None:
        self._load(slots, {"steps": self.opt.steps, "factor": self.opt.factor})
        for listener in self.opt.listeners:
            if hasattr(listener, "forget"):
                listener.forget()

    @torch.no_grad()
    def ship(self, state: Mapping[str, Any]) -> None:
        if not self.averages:
            return
        held = self.state_dict()
        self.load_state_dict(state)
        for weight, shipped in evaluate.to_ship(self.opt):
            weight.copy_(shipped)
        self.load_state_dict(held)

    def _load(self, slots: Mapping[str, Any], clock: Mapping[str, Any]) -> None:
        factor = torch.tensor(clock["factor"], dtype=torch.float64)
        self.opt.load_state_by_name({**slots, "steps": clock["steps"], "factor": factor})


@contextmanager
def _at_rest(norms: Sequence[RunningNorm]) -> Iterator[None]:
    """Batch norms go by their batch and keep their running statistics."""
    tracked = [norm for norm in norms if norm.track_running_stats]
    for one in tracked:
        one.track_running_stats = False
    try:
        yield
    finally:
        for one in tracked:
            one.track_running_stats = True


class TorchAdapter:
    """Over an optimizer of torch.optim, or one with its manners; gradients are changed in place."""

    several = ""
    averages = False

    def __init__(self, opt: torch.optim.Optimizer, net: nn.Module) -> None:
        if isinstance(opt, torch.optim.LBFGS):
            raise UserError(
                "L-BFGS looks at the loss many times within one step, and this loop takes steps that it can "
                "check, clip and repeat. Call its step(closure) in a loop of your own."
            )
        self.opt = opt
        self.weights = list(chain.from_iterable(group["params"] for group in opt.param_groups))
        self._factor = 1.0
        known = {id(weight): name for name, weight in net.named_parameters()}
        strange = [tuple(w.shape) for w in self.weights if id(w) not in known]
        if strange:
            raise UserError(
                f"The optimizer moves weights that the network does not have (shapes {strange[:5]}). "
                "Make it from net.parameters() of the network that is trained."
            )
        self._names = [known[id(weight)] for weight in self.weights]

    def scale_rates(self, factor: float) -> None:
        for group in self.opt.param_groups:
            group["lr"] *= factor / self._factor
        self._factor = factor

    @property
    def rate(self) -> float:
        return float(self.opt.param_groups[0]["lr"])

    def norm(self) -> float:
        return total_norm(weight.grad for weight in self.weights)

    def step(self, scale: float, gradients: list[Tensor | None] | None) -> None:
        if gradients is not None:
            for weight, gradient in zip(self.weights, gradients, strict=True):
                weight.grad = gradient
        if scale != 1.0:
            torch._foreach_mul_([w.grad for w in self.weights if w.grad is not None], scale)
        self.opt.step()

    def pass_over(self) -> None:
        """torch's optimizers have no time of their own."""

    def look(self, compute: Callable[[], Any]) -> Tensor:
        """Not asked: one pass is all that these take."""
        raise NotImplementedError

    def evaluated(self) -> AbstractContextManager[None]:
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        slots = {
            f"{self._names[index]}/{key}": _copy(value)
            for index, entries in self.opt.state_dict()["state"].items()
            for key, value in entries.items()
        }
        return {"slots": slots, "groups": _groups_of(self.opt), "clock": {"factor": self._factor}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._load(state["slots"], state["groups"])
        self._factor = state["clock"]["factor"]

    def load_slots(self, slots: Mapping[str, Any]) -> None:
        self._load(slots, None)

    def ship(self, state: Mapping[str, Any]) -> None:
        """Evaluation weights are those that are trained."""

    def _load(self, slots: Mapping[str, Any], groups: Sequence[Mapping[str, Any]] | None) -> None:
        place = {name: index for index, name in enumerate(self._names)}
        state: dict[int, dict[str, Any]] = {}
        for flat, value in slots.items():
            name, _, key = flat.rpartition("/")
            state.setdefault(place[name], {})[key] = _copy(value)  # torch keeps the tensors that it is given
        held = self.opt.state_dict()["param_groups"]
        merged = [
            group | {key: _like(group.get(key), value) for key, value in saved.items()}
            for group, saved in _pairs(held, groups)
        ]
        self.opt.load_state_dict({"state": state, "param_groups": merged or held})


def _groups_of(opt: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The entries of all groups, but for their weights and the names of these."""
    return [
        {name: _copy(value) for name, value in group.items() if name not in ("params", "param_names")}
        for group in opt.param_groups
    ]


def _pairs(
    groups: list[dict[str, Any]], saved: Sequence[Mapping[str, Any]] | None
) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """(a group, its saved entries); none where nothing of the groups was saved."""
    if saved is not None and len(saved) != len(groups):
        raise UserError(
            f"The saved run has an optimizer of {len(saved)} groups, this one has {len(groups)}. Make the "
            "groups as they were, or train into another folder."
        )
    return [] if saved is None else list(zip(groups, saved, strict=True))


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _like(here: Any, saved: Any) -> Any:
    """A saved entry of a group in the type of the one that is there: tensor, tuple, or as it is."""
    if isinstance(here, Tensor):
        return torch.as_tensor(saved, dtype=here.dtype, device=here.device).clone()
    return tuple(saved) if isinstance(here, tuple) else saved
