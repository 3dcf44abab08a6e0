"""The classes of torch.optim, each with the rules that stand for its flags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from steepest.optim import rules
from steepest.optim.engines.torch.drop_in import Densifying, DropIn, Real, form
from steepest.optim.engines.torch.plan import begin
from steepest.optim.errors import UnsupportedGradient
from steepest.optim.rule import Rule


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
