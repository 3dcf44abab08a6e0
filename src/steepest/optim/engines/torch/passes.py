"""Steps that are more than one pass: gradients up the slope (SAM, ASAM), at the weights of before (MARS),
curvature from an extra backward pass (AdaHessian, Sophia), and updates that autograd records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from steepest.optim.engines.kernels.reduction import norm
from steepest.optim.engines.on_torch import TORCH, real, start, wide
from steepest.optim.engines.precision.memory import Memory
from steepest.optim.engines.sharded import refuse_unsynchronised
from steepest.optim.engines.torch.groups import places
from steepest.optim.engines.torch.watched_state import slot_keys
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

Step: TypeAlias = Callable[..., Any]

EPS = 1e-12
"""What is added to the norm of the stretched gradient, as the authors' code does."""

PAST, BEFORE = "p", "o"
"""What rules call the gradient at the weights of before, and the slot that holds those weights."""

Column = Sequence[Tensor | None]
"""One array for each weight over all groups, None where there is none."""


@contextmanager
def put_back() -> Iterator[Callable[[Tensor], Any]]:
    """Gives a function that keeps a weight; those that were kept are put back afterwards, to the bit."""
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        yield lambda weight: kept.append((weight, weight.detach().clone()))
    finally:
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)


def needed(rules: Sequence[Rule], groups: Sequence[Mapping[str, Any]]) -> Step | None:
    """How an optimizer steps where that is not one plan over gradients; None for ordinary rules."""
    climbs, reads = any(rule.perturb for rule in rules), any(rule.extra_inputs for rule in rules)
    if climbs + any(map(curved, rules)) + any(map(looks_back, rules)) > 1:
        raise UserError(
            "Rules that read curvature, the gradient at the last weights (MARSExact), or that up the slope "
            "(sam, asam) take passes of their own, and cannot be together in one optimizer. Take one."
        )
    if any(group.get("differentiable") for group in groups):
        if climbs or reads:
            raise UserError("differentiable=True is for rules of one pass; leave it out.")
        return differentiable
    return several if climbs or reads else None


def several(optimizer: Any, closure: Any, scale: float, gradients: Any, reads: Any) -> Any:
    """A step of rules that take passes of their own; gradients or arrays that are given stand for them."""
    loss = None
    if gradients is None and reads is None:
        loss, gradients, reads = take(optimizer, closure)
    optimizer.move(scale, gradients, as_gradients(optimizer, scale, reads))
    return loss


def curved(rule: Rule) -> bool:
    """Whether a rule reads curvature, for which the loss is differentiated twice."""
    return bool(rule.extra_inputs) and not looks_back(rule)


def looks_back(rule: Rule) -> bool:
    """Whether a rule reads the gradient at the weights of the step before."""
    return PAST in rule.extra_inputs


def whose(optimizer: Any) -> str:
    """The name of a rule that takes more than one pass; empty where each takes one."""
    return next((type(rule).__name__ for rule in optimizer.rules if rule.perturb or rule.extra_inputs), "")


def take(optimizer: Any, closure: Callable[[], Any] | None) -> tuple[Any, Sequence[Any], Any]:
    """(loss, gradients, reads) of all passes; the weights are where they were, nothing is updated."""
    second = any(map(curved, optimizer.rules))
    if closure is None:
        what = "returns the loss without backward()" if second else "calls backward() and returns the loss"
        raise UserError(
            f"{whose(optimizer)} takes more than one pass: call step(closure) with a function that {what}."
        )
    with torch.enable_grad():
        if second:
            loss, reads = measured(optimizer, closure)
        elif any(map(looks_back, optimizer.rules)):
            loss, reads = at_previous_weights(optimizer, closure)
        else:
            loss, reads = perturbed(optimizer, closure), None
    return loss, [weight.grad for weight in _weights(optimizer)], reads


def look(optimizer: Any, compute: Callable[[], Any]) -> tuple[Any, Sequence[Any], Any]:
    """`take` from a function that computes the loss and calls no backward, whatever the rule."""

    def closure() -> Any:
        loss = compute()
        loss.backward()
        return loss.detach()

    if whose(optimizer):
        return take(optimizer, compute if any(map(curved, optimizer.rules)) else closure)
    return closure(), [weight.grad for weight in _weights(optimizer)], None


def _weights(optimizer: Any) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def perturbed(optimizer: Any, closure: Callable[[], Any]) -> Any:
    """Call the closure at the weights w and at w + e. Gives its first loss; p.grad is its second gradient.

    e = radius·s(s(g))/(‖s(g)‖ + 1e-12) with the rule's stretch s, the norm over all weights of such rules, in
    float64. The weights are put back to the bit, also where the closure raises."""
    loss = closure()
    with put_back() as keep:
        with torch.no_grad():
            for weight, e in _ways_up(optimizer):
                keep(weight)
                real(weight).add_(e)
        optimizer.zero_grad()
        closure()
    return loss


def _ways_up(optimizer: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight, e) of every weight that goes up."""
    rows = list(_stretched(optimizer))
    length = norm([s for *_, s in rows])
    for rule, weight, sign, s in rows:
        yield weight, sign * rule.radius / (length + EPS) * rule.perturb(TORCH, wide(real(weight)), s)


def _stretched(optimizer: Any) -> Iterator[tuple[Any, Tensor, float, Tensor]]:
    """(rule, weight, 1 or -1 where the loss is to grow, stretched gradient) of every weight that goes up."""
    for group in optimizer.param_groups:
        rule, sign = optimizer.rule_of(group), -1.0 if group.get("maximize") else 1.0
        for weight in group["params"] if rule.perturb else ():
            if weight.grad is not None:
                w = wide(real(weight))
                yield rule, weight, sign, rule.perturb(TORCH, w, real(weight.grad).to(w.device, w.dtype))


def at_previous_weights(optimizer: Any, closure: Callable[[], Any]) -> tuple[Any, dict[str, Column]]:
    """Call the closure at the weights, then at those of before. Gives its first loss and {"p": gradients}.

    p.grad is the first gradient afterwards, and the weights are put back to the bit, also where the closure
    raises. Both passes draw the same random numbers on the CPU. Weights of rules that do not ask for it, and
    those that have not moved yet, stay where they are."""
    weights = _weights(optimizer)
    before = torch.get_rng_state()
    loss = closure()
    first = [weight.grad for weight in weights]
    rows = list(_before(optimizer))
    if not rows:
        return loss, {PAST: first}
    try:
        with put_back() as keep:
            for weight in weights:
                weight.grad = None
            with torch.no_grad():
                for weight, past in rows:
                    keep(weight)
                    real(weight).copy_(past)
            with torch.random.fork_rng(devices=()):
                torch.set_rng_state(before)
                closure()
            return loss, {PAST: [weight.grad for weight in weights]}
    finally:
        for weight, gradient in zip(weights, first, strict=True):
            weight.grad = gradient


def as_gradients(optimizer: Any, scale: float, reads: Any) -> Any:
    """The arrays, those that are gradients multiplied as the gradients beside them will be."""
    if reads is None or PAST not in reads:
        return reads
    turns = [
        -scale if group.get("maximize") else scale
        for group in optimizer.param_groups
        for _ in group["params"]
    ]
    pairs = zip(reads[PAST], turns, strict=True)
    return {**reads, PAST: [x if x is None or turn == 1.0 else turn * x for x, turn in pairs]}


def _before(optimizer: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight, where it was before its last update) of every weight whose rule asks for it."""
    for index, group in enumerate(optimizer.param_groups):
        rule = optimizer.template(index)
        if PAST in rule.extra_inputs:
            key = slot_keys(rule)[rule.slots.index(BEFORE)]
            states: Iterator[Mapping[str, Any]] = (optimizer.state.get(w, {}) for w in group["params"])
            yield from (
                (w, real(own[key])) for w, own in zip(group["params"], states, strict=True) if key in own
            )


def hutchinson(gradients: Column, weights: Sequence[Tensor], draw: torch.Generator) -> list[Tensor | None]:
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
    rows = list(_rows(optimizer))
    refuse_unsynchronised(whose(optimizer), _weights(optimizer), even_split=True)
    loss, logits = _given(optimizer, closure())
    weights = [weight for _, weight in rows]
    due = {by_labels(rule) for rule, weight in rows if rule.extra_inputs and _is_due(optimizer, rule, weight)}
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
    return loss.detach(), {name: column for rule, _ in rows for name in rule.extra_inputs}


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


def differentiable(optimizer: Any, closure: Any, scale: float, gradients: Any, reads: Any) -> Any:
    """One step, operation by operation; all that it reads may want gradients, 0-dim numbers too.

    Weights change in place, so they must not be leaves; entries of the state are replaced."""
    loss = None if closure is None else torch.enable_grad()(closure)()
    rules = [_open(optimizer, index) for index in range(len(optimizer.param_groups))]
    given = None if gradients is None else iter(gradients)
    with torch.enable_grad():
        for rule, group in zip(rules, optimizer.param_groups, strict=True):
            turned = -scale if group.get("maximize") else scale
            for weight in group["params"]:
                gradient = weight.grad if given is None else next(given)
                if gradient is not None:
                    _move(rule, weight, gradient, turned, optimizer.state[weight])
    optimizer.steps += 1
    return loss


def _open(optimizer: Any, index: int) -> Rule:
    """The rule of a group with its 0-dim tensors in the place of their numbers."""
    group = optimizer.param_groups[index]
    rule = copy(optimizer.rule_of(group))
    if rule.sums:
        raise UserError(
            f"differentiable=True is for rules that move each element by itself; {type(rule).__name__} sums "
            "over many. Leave it out."
        )
    if optimizer.memories[index] != Memory(seed=optimizer.memories[index].seed):
        raise UserError(
            "differentiable=True keeps weights and state in full, and no average: leave state_dtype=, "
            "rounding= and average= out."
        )
    for name, (entry, place) in places(type(rule)).items():
        value = group.get(entry)
        value = value if place is None or value is None else value[place]
        if isinstance(value, Tensor):
            by = optimizer.factor * group.get("lr_scale", 1.0) if name == "lr" else 1.0
            object.__setattr__(rule, name, value.reshape(()) * by)
    return rule


def _move(rule: Rule, weight: Tensor, gradient: Tensor, scale: float, entry: dict[str, Any]) -> None:
    keys = slot_keys(rule)
    if any(entry.get(key) is None for key in keys):
        fresh = zip(keys, start(rule, weight), strict=True)
        entry.update({key: slot for key, slot in fresh if entry.get(key) is None})
    t = int(entry.get("step", 0)) + 1
    shared = {name: float(entry.get(name, first)) for name, first in rule.shared.items()}
    k, following = rule.constants(TORCH, t, shared)
    # A copy, for what is saved for backward must not be written to.
    before = wide(real(weight.clone()))
    arrays = [scale * real(gradient).to(before.dtype), *(real(entry[key]) for key in keys)]
    moved, *slots = rule.update(TORCH, k, before, *arrays)
    real(weight).copy_(moved)
    if weight.is_complex():
        slots = map(torch.view_as_complex, slots)
    entry.update(zip(keys, slots, strict=True))
    entry["step"] = torch.tensor(float(t))
    entry.update({name: torch.tensor(float(x), dtype=torch.float64) for name, x in following.items()})
