"""Where a run computes: device, threads, determinism."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from steepest.evidence import Evidence
from steepest.optim.errors import UserError
from steepest.recipe import Recipe

SHARED = 100_000_000
"""Operations of a forward pass below which `fit` takes one thread, for the sake of shared machines: on two
quiet cores two threads are ahead from some 20 million on (benchmarks/threads.py)."""


def begin(recipe: Recipe) -> torch.device:
    """Find the device, ask torch for determinism, and build on one thread.

    The start of the weights must not depend on the number of threads that is chosen when they stand."""
    torch.set_num_threads(1)
    if recipe.deterministic:  # even to ask for False makes torch import its compiler
        torch.use_deterministic_algorithms(True)
    name = recipe.device
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        name = found.type if found is not None else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"The device {name!r} cannot be used here: {said} Use cpu.") from None


@contextmanager
def kept() -> Generator[None]:
    """Threads and determinism of torch are afterwards as before: a run is not to change its caller's."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)


def threads(recipe: Recipe, forward: Callable[[], Any]) -> tuple[int | None, tuple[Evidence, ...]]:
    """(threads for the run, the choice): one where a forward pass is small, else None, as torch chooses.

    Counted in operations and not in seconds, for the bits of a run depend on its threads."""
    if isinstance(recipe.num_threads, int):
        return recipe.num_threads, ()
    with FlopCounterMode(display=False) as counter:
        forward()
    operations = counter.get_total_flops()
    chosen = 1 if 0 < operations < SHARED else None
    why = (
        f"a forward pass of {operations / 1e6:.3g} million operations; several threads from {SHARED / 1e6:g}"
    )
    return chosen, (Evidence("num_threads", chosen or "as torch chooses", why),)
