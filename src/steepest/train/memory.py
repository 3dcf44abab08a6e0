"""Memory that runs out: how it is told, and which microbatches are tried next.

The sum over an update's microbatches of share·mean gradient is the mean gradient of the whole, however it
is cut: a smaller microbatch changes rounding and nothing else, but for layers that look at what is beside an
example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase as RunningNorm
from torch.nn.modules.dropout import _DropoutNd as Dropout

from steepest.data.batches import count
from steepest.data.tree import Tree, cut
from steepest.errors import UserError

T = TypeVar("T")

SAID = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")
"""What the allocators of torch say on the CPU, where no class of error tells."""

DRAWING = (
    Dropout, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.RNNBase, nn.MultiheadAttention
)  # fmt: skip
"""Modules of torch that draw random numbers."""


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


class Beginning:
    """What the passes of an update change besides gradients, as it was before them, to be put back.

    That is running statistics and torch's random numbers, of networks that have such: nothing is kept of
    others. Modules that are not torch's may have both."""

    def __init__(self, net: nn.Module) -> None:
        self._places = list(_changing(net))
        self._draws = any(isinstance(module, DRAWING) or not _of_torch(module) for module in net.modules())
        self._buffers: list[Tensor] = []
        self._chance: list[Tensor] = []

    def keep(self, wanted: bool) -> None:
        """An update begins;   wanted: whether it could begin anew."""
        self._buffers = [held[name].clone() for held, name in self._places if wanted]
        self._chance = _chance() if wanted and self._draws else []

    @torch.no_grad()
    def put_back(self) -> None:
        """It begins anew."""
        for (held, name), before in zip(self._places, self._buffers, strict=False):
            held[name].copy_(before)
        if self._chance:
            torch.set_rng_state(self._chance[0])
            # Written for CUDA, not run there.
            for device, state in enumerate(self._chance[1:]):
                torch.cuda.set_rng_state(state, device)


def _changing(net: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """(buffers of a module, name) of each that a forward pass may write to."""
    for module in net.modules():
        if isinstance(module, RunningNorm) or not _of_torch(module):
            yield from ((module._buffers, name) for name, held in module._buffers.items() if held is not None)


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.")


def _chance() -> list[Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]
