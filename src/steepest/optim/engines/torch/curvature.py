"""Estimates of the curvature of each coordinate, from an extra backward pass (AdaHessian, Sophia)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

Maybe = Sequence[Tensor | None]


def hutchinson(gradients: Maybe, weights: Sequence[Tensor], draw: torch.Generator) -> list[Tensor | None]:
    """z⊙Hz of every weight for one z of ±1; its mean is the diagonal of the Hessian H.

    gradients: of the loss, made with create_graph=True; None where there is none.
    Hutchinson 1990, doi:10.1080/03610919008812866; Bekas, Kokiopoulou & Saad 2007."""
    rows = {n: g for n, g in enumerate(gradients) if g is not None and g.requires_grad}
    z = {n: signs(weights[n], draw) for n in rows}
    wanted = [weights[n] for n in rows]
    products: Sequence[Tensor | None] = ()
    if rows:
        products = torch.autograd.grad(
            list(rows.values()), wanted, list(z.values()), allow_unused=True, retain_graph=True
        )
    found: list[Tensor | None] = [None if g is None else torch.zeros_like(g) for g in gradients]
    for n, product in zip(rows, products, strict=True):
        if product is not None:
            found[n] = z[n] * product.detach()
    return found


def gauss_newton(logits: Tensor, weights: Sequence[Tensor], draw: torch.Generator) -> list[Tensor | None]:
    """B·ĝ² of every weight, ĝ the mean gradient over B examples for labels drawn from predictions.

    logits: (…, classes) of the cross entropy, (…, 1) of the binary one; B is the number of rows.
    Liu et al. 2023, arXiv:2305.14342, algorithm 2."""
    rows = logits.reshape(-1, logits.shape[-1])
    if rows.shape[1] == 1:  # the other class has the logit 0
        rows = torch.cat([torch.zeros_like(rows), rows], dim=1)
    chances = rows.detach().float().softmax(1).cpu()
    labels = torch.multinomial(chances, 1, generator=draw).squeeze(1).to(rows.device)
    loss = torch.nn.functional.cross_entropy(rows, labels)
    gradients = torch.autograd.grad(loss, list(weights), allow_unused=True)
    return [None if g is None else len(rows) * g.detach().square() for g in gradients]


def signs(like: Tensor, draw: torch.Generator) -> Tensor:
    """Numbers that are 1 or -1, each with the same chance, in the shape of `like`."""
    coins = torch.randint(0, 2, like.shape, generator=draw)
    return (2 * coins - 1).to(like.device, like.dtype)


def by_kernel(d: Tensor) -> Tensor:
    """The mean of |d| over each kernel of a convolution, whose axes are those from the third on."""
    axes = tuple(range(2, d.ndim))
    return d.abs().mean(dim=axes, keepdim=True).expand_as(d) if axes else d


def measured(optimizer: Any, closure: Callable[[], Any]) -> tuple[Any, dict[str, list[Tensor | None]]]:
    """(loss, the arrays that rules read beside gradients), from a closure that has not called backward.

    It returns the loss, or (loss, logits) where a rule draws labels (SophiaG). p.grad is set to the gradient,
    not added to. An estimate is made where it is due; elsewhere the array is the gradient, and not read."""
    loss, logits = _given(optimizer, closure())
    rows = list(_rows(optimizer))
    weights = [weight for _, weight in rows]
    due = {by_labels(rule) for rule, weight in rows if rule.reads and _is_due(optimizer, rule, weight)}
    gradients = _gradients(loss, weights, second=False in due, again=bool(due))
    draw = _generator(optimizer)
    estimates = {False: gradients, True: gradients}
    if False in due:
        estimates[False] = hutchinson(gradients, weights, draw)
    if True in due:
        estimates[True] = gauss_newton(logits, weights, draw)
    column = [_estimate(rule, estimates[by_labels(rule)][n]) for n, (rule, _) in enumerate(rows)]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = None if gradient is None else gradient.detach()
    return loss.detach(), {name: column for rule, _ in rows for name in rule.reads}


def by_labels(rule: Rule) -> bool:
    """Whether the rule's estimate needs labels drawn from predictions, and so the logits."""
    return _is(rule, "SophiaG")


def _is(rule: Rule, name: str) -> bool:
    """Whether a rule is that of this name, or wrapped round it."""
    return any(one.__name__ == name for one in type(rule).__mro__)


def _rows(optimizer: Any) -> Iterator[tuple[Rule, Tensor]]:
    for index, group in enumerate(optimizer.param_groups):
        rule = optimizer.template(index)
        yield from ((rule, weight) for weight in group["params"])


def _is_due(optimizer: Any, rule: Any, weight: Tensor) -> bool:
    done = optimizer.state.get(weight, {}).get("step", 0)
    return int(done) % rule.every == 0


def _given(optimizer: Any, given: Any) -> tuple[Tensor, Any]:
    """(loss, logits or None) of what a closure returned; UserError where it is not what the rules need."""
    loss, logits = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise UserError(
            f"The closure must return the loss as a tensor that depends on the weights, got {loss!r}. "
            "The rule takes the gradient itself, and the curvature: leave backward() to it."
        )
    rule = next((rule for rule, _ in _rows(optimizer) if by_labels(rule)), None)
    if rule is not None and not (isinstance(logits, Tensor) and logits.ndim > 1 and logits.requires_grad):
        raise UserError(
            f"{type(rule).__name__} draws labels from the model's predictions: let the closure return "
            "(loss, logits), logits of shape (…, classes)."
        )
    return loss, logits


def _gradients(loss: Tensor, weights: list[Tensor], second: bool, again: bool) -> Sequence[Tensor | None]:
    try:
        return torch.autograd.grad(
            loss, weights, create_graph=second, retain_graph=second or again, allow_unused=True
        )
    except RuntimeError as error:
        if "a second time" not in str(error):
            raise
        raise UserError(
            "The closure has called backward() already. Let it return the loss and nothing more: "
            "the rule takes the gradient itself, and the curvature."
        ) from error


def _estimate(rule: Rule, d: Tensor | None) -> Tensor | None:
    return by_kernel(d.detach()) if d is not None and _is(rule, "AdaHessian") else d


def _generator(optimizer: Any) -> torch.Generator:
    """Chance that is a function of seed and step, so that a run repeats and resumes."""
    words = np.random.SeedSequence([optimizer._memory.seed % 2**64, optimizer.steps]).generate_state(1)
    return torch.Generator().manual_seed(int(words[0]))
