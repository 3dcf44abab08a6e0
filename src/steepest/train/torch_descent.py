"""`TorchDescent`: what the loop asks of an optimizer of torch.optim, or one with its manners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from steepest.optim.engines.precision.formats import widest
from steepest.optim.errors import UserError


def total_norm(gradients: Iterable[Tensor | None]) -> float:
    """Euclidean norm of all gradients together; not finite where any of them is not."""
    present = [g for g in gradients if g is not None]
    if not present:
        return 0.0
    norms = torch._foreach_norm(present)
    together = torch.stack(norms)
    return float(torch.linalg.vector_norm(together, dtype=widest(together)))


class TorchDescent:
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

    @property
    def factor(self) -> float:
        return self._factor

    @factor.setter
    def factor(self, value: float) -> None:
        for group in self.opt.param_groups:
            group["lr"] *= value / self._factor
        self._factor = value

    @property
    def rate(self) -> float:
        return float(self.opt.param_groups[0]["lr"])

    def norm(self) -> float:
        """Norm of the whole gradient."""
        return total_norm(weight.grad for weight in self.weights)

    def step(self, scale: float, gradients: list[Tensor | None] | None) -> None:
        """One update with every gradient multiplied by `scale`."""
        if gradients is not None:
            for weight, gradient in zip(self.weights, gradients, strict=True):
                weight.grad = gradient
        if scale != 1.0:
            torch._foreach_mul_([w.grad for w in self.weights if w.grad is not None], scale)
        self.opt.step()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(copies of all state by name, numbers): hyperparameters, and what of the state is no tensor."""
        held = self.opt.state_dict()
        flat = {
            f"{self._names[index]}/{key}": value
            for index, slots in held["state"].items()
            for key, value in slots.items()
        }
        tensors = {name: value.detach().clone() for name, value in flat.items() if isinstance(value, Tensor)}
        groups = [{k: v for k, v in group.items() if k != "params"} for group in held["param_groups"]]
        numbers = {
            "factor": self._factor,
            "groups": [{k: _plain(v) for k, v in group.items()} for group in groups],
            "state": {name: value for name, value in flat.items() if not isinstance(value, Tensor)},
        }
        return tensors, _checked(numbers, self.opt)

    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._load(tensors, numbers["state"], numbers["groups"])
        self._factor = numbers["factor"]

    def rewind(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take over the state of the weights; the groups' hyperparameters stay at today's."""
        self._load(tensors, numbers["state"], [{} for _ in self.opt.param_groups])

    def pass_over(self) -> None:
        """A step went by without an update; torch's optimizers have no time of their own."""

    def look(self, compute: Callable[[], Any]) -> Tensor:
        """Not asked: one pass is all that these take."""
        raise NotImplementedError

    def evaluated(self) -> AbstractContextManager[None]:
        """The weights to test are those that are trained."""
        return nullcontext()

    def ship(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """The weights to ship are those that are trained."""

    def _load(
        self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any], groups: list[dict[str, Any]]
    ) -> None:
        place = {name: index for index, name in enumerate(self._names)}
        state: dict[int, dict[str, Any]] = {}
        for flat, value in chain(tensors.items(), rest.items()):
            name, _, key = flat.rpartition("/")
            state.setdefault(place[name], {})[key] = value
        held = self.opt.state_dict()
        merged = [
            group | {k: _as(group.get(k), v) for k, v in saved.items()}
            for group, saved in zip(held["param_groups"], groups, strict=True)
        ]
        # torch keeps the tensors that it is given; a snapshot must stay as it is.
        copies = {i: {k: _copy(v) for k, v in slots.items()} for i, slots in state.items()}
        self.opt.load_state_dict({"state": copies, "param_groups": merged})


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _as(like: Any, value: Any) -> Any:
    """A saved hyperparameter in the type that the optimizer holds: tensor, tuple, or as it is."""
    if isinstance(like, Tensor):
        return torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return tuple(value) if isinstance(like, tuple) else value


def _checked(numbers: dict[str, Any], opt: torch.optim.Optimizer) -> dict[str, Any]:
    try:
        json.dumps(numbers)
    except TypeError:
        raise UserError(
            f"The state of {type(opt).__name__} holds objects that are neither tensors nor numbers and "
            "cannot be saved without executing code on loading. Use another optimizer, or out=None."
        ) from None
    return numbers
