"""Memory that runs out: how it is told, and which microbatches are tried next.

The sum over an update's microbatches of share·mean gradient is the mean gradient of the whole, however it
is cut: a smaller microbatch changes rounding and nothing else, but for layers that look at what is beside an
example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase as RunningNorm

from steepest.data.batches import count
from steepest.data.tree import Tree, cut
from steepest.optim.errors import UserError

T = TypeVar("T")

SAID = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")
"""What the allocators of torch say on the CPU, where no class of error tells."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAID)


def pieces(window: Sequence[Tree], most: int | None) -> list[Tree]:
    """The microbatches of an update, cut further where they hold more than `most` examples."""
    if most is None:
        return list(window)
    return [part for batch in window for part in (cut(batch, most) if count(batch) > most else [batch])]


def by_parts(work: Callable[[Tree], T], batch: Tree, fewest: int = 1) -> Iterator[tuple[T, Tree]]:
    """(what `work` gives, the batch); where memory runs out, the same of its halves, of theirs, and so on.

    Raises UserError where memory runs out with so few that half would be less than `fewest`."""
    try:
        found = work(batch)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
    else:
        yield found, batch
        return
    for part in cut(batch, _half(count(batch), fewest)):  # what the failed pass held is free by now
        yield from by_parts(work, part, fewest)


def smaller(window: Sequence[Tree], net: nn.Module) -> int:
    """Half of the largest microbatch. Raises UserError where that is too few to be computed on."""
    return _half(max(map(count, window)), fewest(net))


def fewest(net: nn.Module) -> int:
    """Examples that a network must have beside each other in training."""
    return 2 if normed(net) else 1


def _half(largest: int, fewest: int) -> int:
    if largest // 2 >= fewest:
        return largest // 2
    alone = "a single example" if largest == 1 else f"{largest} examples, and batch norms need two"
    raise UserError(
        f"Memory ran out at every size of batch, down to {alone}. Take a smaller network or smaller inputs, "
        'precision="bf16", or free memory.'
    )


def cannot_repeat(several: str, examples: int) -> UserError:
    """Why an update for which memory ran out cannot be made again in parts, and what can be done."""
    if several:
        return UserError(
            f"Memory ran out with {examples} examples. {several} takes more than one pass over a batch, "
            "which must be whole and cannot be cut: give a smaller batch_size."
        )
    return UserError(
        f"Memory ran out in the backward pass of {examples} examples. Give steps.step a function that "
        "computes the loss, as in steps.step(lambda: loss_of(net(x), y)), and it is made again in smaller "
        "parts; or give accumulate=2, or more."
    )


def normed(net: nn.Module) -> bool:
    """Whether the network has batch norms, which look at the microbatch that they are in."""
    return any(isinstance(module, RunningNorm) for module in net.modules())
