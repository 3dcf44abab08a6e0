"""The size of a batch: from the measured noise of gradients, and from what a step costs.

To come as far as one step without noise takes 1 + Bc/B steps on B examples (McCandlish et al. 2018,
arXiv:1812.06162, equation 2.7), so that the batch of least cost is that of the least t(B)·(1 + Bc/B).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steepest.data.batches import count
from steepest.data.tree import Tree, cut
from steepest.evidence import Evidence
from steepest.optim.errors import UserError
from steepest.optim.noise import Critical, Pair, critical_batch
from steepest.train import budget, memory
from steepest.train.job import Job
from steepest.train.microbatching import squared
from steepest.tuning import constants
from steepest.tuning.trial import SingleSteps


@dataclass(frozen=True)
class Costs:
    """What a step on so many examples costs, in seconds or examples.   ended: why larger ones are unknown"""

    of: Mapping[int, float]
    unit: str
    gradients: float = 0.0
    ended: str = ""


def choose_batch(job: Job, updates: int, seconds: float | None, part: float = 1.0) -> Evidence:
    """The size of least cost for a run of `updates` at the usual size, or of so many seconds.

    part   of what `fit` spends on this choice, where a search may take less than it does there

    Without seconds nothing is timed: a step is then taken to cost its examples, and as many more as the usual
    batch has. Raises UserError where not even one example fits into memory."""
    began, usual = time.perf_counter(), _usual(job)
    sizes = _sizes(job, usual, seconds is None)
    share = part * constants.BATCH_SHARE / 2
    steps = min(constants.NOISE_STEPS[1], int(share * updates))
    if isinstance(sizes, str) or steps < constants.NOISE_STEPS[0]:
        why = sizes if isinstance(sizes, str) else _too_few(updates, share)
        return Evidence("batch_size", usual, f"not measured: {why}")
    try:
        every = _pairs(job, usual, steps, seconds and share * seconds)
    except _NotFinite:
        return Evidence("batch_size", usual, "not measured: the loss was not finite", gradients=steps)
    pairs = every[len(every) // 3 :]
    found = critical_batch(pairs)
    costs = _costs(job, sizes, usual, seconds, share)
    allowed = _allowed(job, costs, updates * usual, updates, seconds)
    chosen, scores = best(costs.of, found.value, allowed)
    return Evidence(
        "batch_size",
        chosen,
        _why(found, chosen, scores, costs),
        _rows(costs, scores, chosen),
        time.perf_counter() - began,
        interval=(found.low, found.high),
        of="critical batch",
        gradients=round(len(every) + costs.gradients),
        picture=_picture(pairs),
    )


def best(costs: Mapping[int, float], critical: float, allowed: Sequence[int]) -> tuple[int, dict[int, float]]:
    """(the size of least cost·(1 + Bc/B) among those allowed, each size's in shares of it); the smaller at
    ties within a hundredth."""

    def steps(size: int) -> float:
        return 1 / size if math.isinf(critical) else 1 + critical / size

    scores = {size: cost * steps(size) for size, cost in costs.items()}
    least = min(scores[size] for size in allowed)
    chosen = min(size for size in allowed if scores[size] <= 1.01 * least)
    return chosen, {size: score / scores[chosen] for size, score in scores.items()}


class _NotFinite(Exception):
    """The loss or a gradient was no number."""


def _too_few(updates: int, share: float) -> str:
    return (
        f"{100 * share:.3g} % of {updates} updates are too few to measure noise on; it takes "
        f"{constants.NOISE_STEPS[0]}"
    )


def _usual(job: Job) -> int:
    size = job.recipe.batch_size
    examples = job.source.examples
    whole = size if isinstance(size, int) else constants.USUAL
    return whole if examples is None else min(whole, examples)


def _sizes(job: Job, usual: int, blind: bool) -> list[int] | str:
    """The sizes that may be chosen, or why there is no choice."""
    if job.source.resumes_by == "skipping" or job.source.examples is None:
        return "a DataLoader or iterable brings its own batches"
    low, high = constants.BATCHES
    low = max(low, constants.SMALLEST_NORMED) if memory.normed(job.model) else low
    high = min(high, job.source.examples // constants.PASSES, constants.BLIND * usual if blind else high)
    powers = [2**k for k in range(high.bit_length()) if low <= 2**k <= high]
    if len(powers) > 1:
        return powers
    return (
        f"{job.source.examples} examples are too few: to choose between sizes of {low} and {2 * low} with "
        f"{constants.PASSES} updates an epoch takes {2 * constants.PASSES * low}"
    )


def _pairs(job: Job, usual: int, steps: int, most: float | None = None) -> list[Pair]:
    """What the gradients of steps of the usual size tell, so many steps and seconds at most; parts are halved
    where memory runs out."""
    size = max(1, usual // constants.PARTS)
    while True:
        try:
            return _measured(SingleSteps(job), usual, size, steps, most)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            ran_out = error
        if size == 1:
            raise UserError(
                "Memory ran out at every size of batch, down to a single example. Take a smaller network or "
                "smaller inputs, or free memory."
            ) from ran_out
        size //= 2


def _measured(copy: SingleSteps, usual: int, size: int, steps: int, most: float | None) -> list[Pair]:
    pairs: list[Pair] = []
    until = math.inf if most is None else time.perf_counter() + most
    with copy.working():
        whole = (batch for batch in copy.batches(usual) if count(batch) >= usual)  # epochs end in a rest
        while len(pairs) < steps and (len(pairs) < constants.NOISE_STEPS[0] or time.perf_counter() < until):
            pairs.append(_pair(copy, cut(next(whole), size)))
            copy.optimizer.step()
    return pairs


def _pair(copy: SingleSteps, parts: Sequence[Tree]) -> Pair:
    """The mean of ‖g‖² over the parts, and ‖g‖² of the whole, which is left in place for the step."""
    counts = [count(part) for part in parts]
    weights = [w for group in copy.optimizer.param_groups for w in group["params"]]
    whole: dict[int, torch.Tensor] = {}
    small = 0.0
    for part, examples in zip(parts, counts, strict=True):
        copy.backward(part)
        small += _square(copy) / len(parts)
        for place, weight in enumerate(weights):
            if weight.grad is not None:
                addend = weight.grad * (examples / sum(counts))
                whole[place] = addend if place not in whole else whole[place] + addend
    for place, weight in enumerate(weights):
        weight.grad = whole.get(place)
    large = _square(copy)
    if not (math.isfinite(small) and math.isfinite(large)):
        raise _NotFinite
    return Pair(small, large, len(counts) / sum(1 / examples for examples in counts), sum(counts))


def _square(copy: SingleSteps) -> float:
    """‖g‖² in the rule's unit, once it has one."""
    scaled = copy.scaled and copy.optimizer.steps > 0
    return squared(copy.optimizer, scaled)


def _costs(job: Job, sizes: Sequence[int], usual: int, seconds: float | None, share: float) -> Costs:
    if seconds is None:
        return Costs({size: float(usual + size) for size in sizes}, "examples")
    lasted, ended = lasting(SingleSteps(job), sizes, share * seconds)
    if not lasted:
        return Costs({sizes[0]: float(sizes[0])}, "examples", ended=ended)
    return Costs(lasted, "seconds", (WARM + TIMED) * sum(lasted) / usual, ended)


def _allowed(job: Job, costs: Costs, examples: float, updates: int, seconds: float | None) -> list[int]:
    """Sizes that leave the run enough updates; the smallest where none does."""
    by_steps = budget.parse(job.recipe.budget).unit == "steps"

    def left(size: int) -> float:
        if seconds is not None and costs.unit == "seconds":
            return seconds / costs.of[size]
        return updates if by_steps else examples / size

    return [size for size in costs.of if left(size) >= constants.UPDATES] or [min(costs.of)]


def _why(found: Critical, chosen: int, scores: Mapping[int, float], costs: Costs) -> str:
    beside = [
        f"{size}: {100 * (score - 1):+.0f} %"
        for size, score in scores.items()
        if size in (chosen // 2, 2 * chosen)
    ]
    cost = "t(B)" if costs.unit == "seconds" else f"({costs.of[chosen] - chosen:.0f}+B)"
    said = [f"{cost}(1+Bc/B) least of those with enough updates", f"critical batch Bc={found}", *beside]
    return "; ".join([*said, costs.ended] if costs.ended else said)


def _rows(costs: Costs, scores: Mapping[int, float], chosen: int) -> list[dict[str, Any]]:
    return [
        {"batch_size": size, costs.unit: cost, "cost": scores[size], "kept": size == chosen}
        for size, cost in costs.of.items()
    ]


def _picture(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The critical batch with its band, from more and more of the updates."""
    ends = sorted({max(len(pairs) * part // 6, 5) for part in range(1, 7)})
    seen = [critical_batch(pairs[:end]) for end in ends]
    first = len(pairs) // 2  # a third of all steps was left out before
    line = {
        "name": "critical batch",
        "x": [first + end for end in ends],
        "y": [one.value for one in seen],
        "low": [one.low for one in seen],
        "high": [one.high for one in seen],
    }
    return {"kind": "noise", "lines": [line]}


WARM, TIMED = 2, 3
"""Steps before, and steps of which the shortest counts: others may use the machine too."""

GAIN = 0.95
"""A ladder of sizes ends where the double batch leaves the time of an example above this share."""


def lasting(
    copy: SingleSteps,
    sizes: Sequence[int],
    most: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[int, float], str]:
    """({size: seconds of a step}, why larger ones were not tried), for sizes that rise.

    The ladder ends where an example is no longer cheaper, memory runs out, or `most` seconds have gone by."""
    lasted: dict[int, float] = {}
    until = clock() + most
    for before, size in zip((0, *sizes), sizes, strict=False):
        try:
            lasted[size] = _shortest(copy, size, clock)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            return lasted, f"memory ran out with {size}"
        if before and lasted[size] / size > GAIN * lasted[before] / before:
            return lasted, f"beyond {size} an example costs no less"
        if clock() > until:
            return lasted, f"beyond {size} nothing was timed, for the budget's sake"
    return lasted, ""


def _shortest(copy: SingleSteps, size: int, clock: Callable[[], float]) -> float:
    found = float("inf")
    with copy.working():
        windows = copy.batches(size)
        for number in range(WARM + TIMED):
            batch = next(windows)
            began = clock()
            copy.backward(batch)
            copy.optimizer.step()
            if number >= WARM:
                found = min(found, clock() - began)
    return found
