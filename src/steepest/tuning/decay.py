"""Weight decay by its time scale: too slow to be seen in a search, so that a rule decides."""

from __future__ import annotations

import math

from steepest.evidence import Evidence
from steepest.optim.rule import Rule, coupled
from steepest.tuning.constants import COUPLED_FEW, COUPLED_MANY, DECAY_CAP, MANY_EPOCHS, REMEMBERED, TAU


def weight_decay(rule: Rule, lr: float, updates: int, epochs: float | None) -> Evidence:
    """The weight decay of a run of so many updates at a peak rate.   min(cap, 1/(lr·memory))

    memory = 1/(lr·weight_decay): the updates that a weight is remembered: τ of the run or a few epochs."""
    if not hasattr(rule, "weight_decay"):
        return Evidence("weight_decay", None, f"{type(rule).__name__} has none")
    if type(rule).couple is coupled:
        many = epochs is not None and epochs > MANY_EPOCHS
        long = "an unknown number of" if epochs is None else f"{epochs:.3g}"
        value = COUPLED_MANY if many else COUPLED_FEW
        return Evidence("weight_decay", value, f"the usual one inside the gradient, for {long} epochs")
    memory = min(TAU, math.inf if epochs is None else REMEMBERED / epochs) * updates
    asked = 1 / (lr * memory) if lr else math.inf
    long = f"{memory:.4g} of {updates} updates at {lr:.3g}"
    why = f"weights are remembered for {long}"
    if memory < TAU * updates:
        why += f": {REMEMBERED:g} epochs"
    if asked > DECAY_CAP:
        why = f"the largest that is taken; {long} ask for {asked:.3g}"
    return Evidence("weight_decay", min(DECAY_CAP, asked), why)
