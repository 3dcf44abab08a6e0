"""Losses: what is descended, as a mean over examples, and the penalty on weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from steepest.models.import_path import imported
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.groups import no_decay
from steepest.tasks import Target
from steepest.tasks.positions import IGNORED
from steepest.train import formulas

Layout = Literal["classes", "flags", "numbers", "any"]
"""classes: whole numbers 0 … K-1 · flags: 0 or 1 · numbers: real values · any: as the function wants it."""

EachLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss as the loop calls it.   (1/n) Σᵢ wᵢ cᵢ ℓᵢ, with wᵢ the example's weight, cᵢ its class's weight

    Divided by the number of examples, not by the sum of the weights: so microbatches add up to the whole
    batch exactly and its gradient is unbiased. Weights of mean 1 keep the scale of the loss.

    each          (outputs, target) → ℓ, shaped like the target; a function of the user's may give one number
    target        what it takes as a target
    class_weight  cᵢ by class, or None
    terms         encoded target → how many terms each example brings, where that is not one or as many each
    """

    name: str
    each: EachLoss
    target: Layout
    class_weight: Tensor | None = None
    terms: Callable[[Tensor], Tensor | None] = lambda _: None

    def __call__(self, outputs: Any, target: Any, weight: Tensor | None = None) -> Tensor:
        losses = self._weighted(outputs, target, weight)
        counted = self.terms(target) if weight is None and losses.ndim else None
        return losses.mean() if counted is None else losses.sum() / counted.sum().clamp_min(1)

    def by_example(self, outputs: Any, target: Any, weight: Tensor | None = None) -> Tensor:
        """(n,) addends of that mean, one an example; (1,) the mean where a function gives one number."""
        losses = self._weighted(outputs, target, weight)
        return self._by_example(losses, target) if losses.ndim else losses.reshape(1)

    def _weighted(self, outputs: Any, target: Any, weight: Tensor | None) -> Tensor:
        losses = self.each(_as_target(outputs, target) if self.target == "any" else outputs, target)
        if self.class_weight is not None:
            number = target.long().clamp_min(0)  # below 0 lie positions that do not count: their loss is 0
            losses = losses * self.class_weight.to(losses)[number].reshape(losses.shape)
        if weight is not None:
            losses = self._by_example(losses, target) * weight.to(losses)
        return losses

    def _by_example(self, losses: Tensor, target: Any) -> Tensor:
        if losses.ndim == 0:
            raise UserError(
                f"The loss {self.name!r} returns one number for the batch, so examples cannot be weighted. "
                "Return one number an example, or leave out sample_weight and positions that do not count."
            )
        if losses.ndim == 1:
            return losses
        counted = self.terms(target)
        return (
            losses.flatten(1).mean(1) if counted is None else losses.flatten(1).sum(1) / counted.clamp_min(1)
        )


def build(
    name: str | Callable[..., Tensor],
    target: Target,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    huber_delta: float = 1.0,
    class_weight: Sequence[float] | Tensor | None = None,
) -> Loss:
    """The loss of that name, import path or function for a target.

    A function of the user's takes (outputs, target) and returns one number, or one an example so that it can
    be weighted. "auto" is the one that suits the task.
    label_smoothing: share of the target spread over all classes, [0, 1).   focal_gamma: power, ≥ 0.
    huber_delta: error at which the square becomes a line, in units of the target, > 0."""
    _check_options(label_smoothing, focal_gamma, huber_delta)
    options = {
        "cross_entropy": {"smoothing": label_smoothing},
        "binary": {"smoothing": label_smoothing},
        "focal": {"smoothing": label_smoothing, "gamma": focal_gamma},
        "huber": {"delta": huber_delta},
    }
    function, layout, known = _named(name, target)
    _check_fit(known, layout, target, label_smoothing, class_weight)
    weights = None if class_weight is None else _class_weight(class_weight)
    return Loss(known, partial(function, **options.get(known, {})), layout, weights, target.terms)


def check(outputs: Any, target: Any, loss: Loss) -> Tensor:
    """The loss of a batch. Raises UserError where outputs do not fit it; costs a few reads of the device."""
    if loss.target != "any":
        _check_tensors(outputs, target, loss.name)
        _CHECKS[loss.target](outputs, target, loss)
    try:
        value = loss(outputs, target)
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as problem:
        raise UserError(f"The loss {loss.name!r} does not fit the model's outputs: {problem}") from problem
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise UserError(f"The loss {loss.name!r} must return a floating tensor, got {type(value).__name__}.")
    return value


def check_labels(target: Tensor, classes: int) -> None:
    """Raise a UserError when a label is not one of 0 … classes - 1."""
    if target.ndim > 1:  # at every position, some of which may not count
        target = target[target != IGNORED]
    if not len(target):
        return
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise UserError(
            f"Labels must be 0 to {classes - 1} for a model of {classes} outputs, got {wrong}. "
            f"Number the classes from 0, or give the model more outputs."
        )


def penalty(model: nn.Module, l1: float = 0.0, l2: float = 0.0) -> Callable[[], Tensor]:
    """A function that gives the penalty of the weights as they are.   l1·Σ|w| + ½·l2·Σw²

    Its gradient is l1·sign(w) + l2·w, so l2 means what weight_decay means in SGD. Biases, norms, embeddings
    and frozen weights are left out, as weight decay leaves them out."""
    if l1 < 0 or l2 < 0:
        raise UserError(f"l1 and l2 must be 0 or more, got l1={l1!r}, l2={l2!r}.")
    weights = _penalised(model)
    if not weights:
        raise UserError("There is no weight to penalise: all are frozen, or biases, norms and embeddings.")

    def of_weights() -> Tensor:
        terms = [l1 * w.abs().sum() + 0.5 * l2 * w.square().sum() for w in weights]
        return torch.stack(terms).sum()

    return of_weights


LOSSES: dict[str, tuple[Callable[..., Tensor], Layout]] = {
    "cross_entropy": (formulas.cross_entropy, "classes"),
    "focal": (formulas.focal, "classes"),
    "binary": (formulas.binary, "flags"),
    "mean_squared_error": (formulas.mean_squared_error, "numbers"),
    "l1": (formulas.l1, "numbers"),
    "huber": (formulas.huber, "numbers"),
}

ALIASES = {"mse": "mean_squared_error"}


def _as_target(outputs: Any, target: Any) -> Any:
    """One output an example, (n, 1), as (n,) where the target is: else torch would pair all with all."""
    tensors = isinstance(outputs, Tensor) and isinstance(target, Tensor)
    return outputs.squeeze(1) if tensors and outputs.shape == (*target.shape, 1) else outputs


def _named(name: str | Callable[..., Tensor], target: Target) -> tuple[Callable[..., Tensor], Layout, str]:
    if callable(name):
        return name, "any", getattr(name, "__name__", type(name).__name__)
    if name == "auto":
        name = target.loss
    name = ALIASES.get(name, name)
    if ":" in name:
        function: Callable[..., Tensor] = imported(name)
        if not callable(function):
            raise UserError(f"{name} must be a function of (outputs, target), got {type(function).__name__}.")
        return function, "any", name
    known = {**LOSSES, **target.losses}
    if name not in known:
        raise UserError(f"There is no loss named {name!r}.{did_you_mean(name, ['auto', *known, *ALIASES])}")
    return *known[name], name


TAKES = {"classes": "classes", "flags": "two classes, or labels of 0 and 1", "numbers": "numbers"}
"""What a loss of each layout is for."""


def _check_fit(name: str, layout: Layout, target: Target, smoothing: float, class_weight: object) -> None:
    if layout not in (*target.layouts, "any"):
        raise UserError(
            f"The loss {name!r} is for {TAKES[layout]}; the target here is {target.noun}, of the task "
            f"{target.kind!r}. Use {target.loss!r}."
        )
    if layout in ("numbers", "any") and smoothing:
        raise UserError(
            f"label_smoothing has no effect on the loss {name!r}, got {smoothing!r}. Leave it at 0."
        )
    if layout in ("numbers", "any") and class_weight is not None:
        raise UserError(
            f"class_weight has no effect on the loss {name!r}. Leave it out, or use sample_weight."
        )


def _check_options(smoothing: float, gamma: float, delta: float) -> None:
    if not 0 <= smoothing < 1:
        raise UserError(f"label_smoothing must lie in [0, 1), got {smoothing!r}; 0.1 is usual.")
    if not gamma >= 0:
        raise UserError(f"focal_gamma must be 0 or more, got {gamma!r}; 2 is usual, 0 is cross-entropy.")
    if not delta > 0:
        raise UserError(f"huber_delta must be above 0, got {delta!r}. It is in units of the target.")


def _class_weight(weights: Sequence[float] | Tensor) -> Tensor:
    made = torch.as_tensor(weights, dtype=torch.float32)
    if made.ndim != 1 or not bool(torch.isfinite(made).all()) or bool((made < 0).any()):
        raise UserError(f"class_weight must hold one number from 0 for each class, got {made.tolist()}.")
    return made


def _penalised(model: nn.Module) -> list[nn.Parameter]:
    return [
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and not no_decay(name, tuple(parameter.shape), type(module).__name__)
    ]


def _check_tensors(outputs: Any, target: Any, name: str) -> None:
    for what, value in (("model's output", outputs), ("target", target)):
        if not isinstance(value, Tensor):
            raise UserError(
                f"The loss {name!r} takes one tensor; the {what} is a {type(value).__name__}. "
                f"Give a loss of your own: loss=function(outputs, target)."
            )
    if not outputs.is_floating_point():
        raise UserError(f"The loss {name!r} takes floating outputs; the model gives {outputs.dtype}.")
    if outputs.shape[:1] != target.shape[:1]:
        raise UserError(
            f"The model gives {_sizes(outputs)} for targets of {_sizes(target)}: the first size, "
            f"the number of examples, must agree."
        )


def _check_classes(outputs: Tensor, target: Tensor, loss: Loss) -> None:
    if outputs.ndim < 2 or outputs.shape[1] < 2 or outputs.shape[:1] + outputs.shape[2:] != target.shape:
        raise UserError(
            f"The loss {loss.name!r} takes one output for each class, (examples, classes), and one label an "
            f"example; the model gives {_sizes(outputs)} for targets of {_sizes(target)}."
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise UserError(
            f"The loss {loss.name!r} takes whole numbers as labels, got {target.dtype}. Use target.long()."
        )
    check_labels(target, outputs.shape[1])
    if loss.class_weight is not None and len(loss.class_weight) != outputs.shape[1]:
        raise UserError(f"class_weight has {len(loss.class_weight)} numbers for {outputs.shape[1]} classes.")


def _check_flags(outputs: Tensor, target: Tensor, loss: Loss) -> None:
    _check_same_sizes(outputs, target, loss.name)
    if not bool(((target == 0) | (target == 1)).all()):
        raise UserError(f"The loss {loss.name!r} takes targets 0 and 1, got others, up to {target.max()}.")


def _check_numbers(outputs: Tensor, target: Tensor, loss: Loss) -> None:
    _check_same_sizes(outputs, target, loss.name)
    if target.is_complex() or target.dtype == torch.bool:
        raise UserError(f"The loss {loss.name!r} takes real numbers as targets, got {target.dtype}.")


def _check_same_sizes(outputs: Tensor, target: Tensor, name: str) -> None:
    if [n for n in outputs.shape if n != 1] != [n for n in target.shape if n != 1]:
        raise UserError(
            f"The loss {name!r} takes one output for each target; the model gives {_sizes(outputs)} for "
            f"targets of {_sizes(target)}."
        )


_CHECKS = {"classes": _check_classes, "flags": _check_flags, "numbers": _check_numbers}


def _sizes(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
