"""A second gradient of the same batch, at the weights of the step before (MARSExact)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.optim.engines.on_torch import real
from steepest.optim.engines.state import slot_keys

PAST = "p"
"""What rules call that gradient, in `reads`."""
BEFORE = "o"
"""And the slot that holds those weights."""

Column = list[Tensor | None]


def twice(optimizer: Any, closure: Callable[[], Any]) -> tuple[Any, dict[str, Column]]:
    """Call the closure at the weights, then at those of before. Gives its first loss and {"p": gradients}.

    p.grad is the first gradient afterwards, and the weights are put back to the bit, also where the closure
    raises. Both passes draw the same random numbers on the CPU. Weights of rules that do not ask for it, and
    those that have not moved yet, stay where they are."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    before = torch.get_rng_state()
    loss = closure()
    first = [weight.grad for weight in weights]
    rows = list(_before(optimizer))
    if not rows:
        return loss, {PAST: first}
    kept = [(weight, weight.detach().clone()) for weight, _ in rows]
    try:
        _put(weights, [None] * len(weights))
        with torch.no_grad():
            for weight, past in rows:
                real(weight).copy_(past)
        with torch.random.fork_rng(devices=()):
            torch.set_rng_state(before)
            closure()
        return loss, {PAST: [weight.grad for weight in weights]}
    finally:
        _put(weights, first)
        with torch.no_grad():
            for weight, now in kept:
                weight.copy_(now)


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
        if PAST in rule.reads:
            key = slot_keys(rule)[rule.slots.index(BEFORE)]
            states: Iterator[Mapping[str, Any]] = (optimizer.state.get(w, {}) for w in group["params"])
            yield from (
                (w, real(own[key])) for w, own in zip(group["params"], states, strict=True) if key in own
            )


def _put(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
