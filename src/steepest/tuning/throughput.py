"""What a step costs at several sizes of batch, by the clock. Only for budgets in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from steepest.train import memory
from steepest.tuning.control import Control

WARM, TIMED = 2, 3
"""Steps before, and steps of which the shortest counts: others may use the machine too."""

GAIN = 0.95
"""A ladder of sizes ends where the double batch leaves the time of an example above this share."""


def lasting(
    control: Control,
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
            lasted[size] = _shortest(control, size, clock)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            return lasted, f"memory ran out with {size}"
        if before and lasted[size] / size > GAIN * lasted[before] / before:
            return lasted, f"beyond {size} an example costs no less"
        if clock() > until:
            return lasted, f"beyond {size} nothing was timed, for the budget's sake"
    return lasted, ""


def _shortest(control: Control, size: int, clock: Callable[[], float]) -> float:
    found = float("inf")
    with control.working():
        windows = control.batches(size)
        for number in range(WARM + TIMED):
            batch = next(windows)
            began = clock()
            control.backward(batch)
            control.optimizer.step()
            if number >= WARM:
                found = min(found, clock() - began)
    return found
