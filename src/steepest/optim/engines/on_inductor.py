"""The engine of other devices: a rule's update through torch.compile, over flat buffers.

Of each slot the small weights have one buffer, in which the state's tensors are views, end to end. Weights
and gradients are the user's: they are copied to buffers of the same form before the update, and weights back
after it, by torch's operations on lists, a few launches for any number of tensors. What is compiled sees flat
arrays of any length and one short array of the constants, and is one kernel: one compilation a rule, dtype
and device, whatever the model, the rate or the step. Compiled over lists of tensors instead, a graph has a
kernel for each tensor, takes minutes for hundreds of them, and is made anew for each model.

The copies cost a buffer for weights and one for gradients, and about as much traffic again as the update. A
weight of DIRECT elements is worth a launch of its own: the same code runs on it in place, without copies.

Rules with sums and rules of whole arrays do not go this way, nor do complex weights, moments of few bits
and rounding but to nearest: on_torch serves them. Constants are made on the host, in float64, and sent in one
copy a step; so this engine cannot be captured in a CUDA graph, and a rate that is a tensor on the device is
read back to the host once a step, which waits for the device. What ran is inductor for the CPU; nothing here
was run on a GPU yet."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate, cycle, pairwise
from types import FunctionType
from typing import Any, NamedTuple

import torch

from steepest.optim.engines.kernels.source import constants_of
from steepest.optim.engines.on_numba import PLAIN, Made, Tensors
from steepest.optim.engines.on_torch import TORCH, usable
from steepest.optim.engines.precision import memory
from steepest.optim.engines.precision.formats import FULL, NEAREST
from steepest.optim.engines.precision.memory import Layout
from steepest.optim.engines.pure import form
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

DIRECT = 1 << 20
"""Elements from which a weight is updated in place. By reckoning, not measured on a GPU: copies of fewer cost
less than the host takes for a launch."""

ALIGNMENT = 16
"""Elements at a multiple of which each weight begins in a buffer; no buffer has 1, which compiles anew."""

_WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
_DTYPES = {torch.float64, torch.float32, *_WIDE}

Update = Callable[[torch.Tensor, torch.Tensor, Any, Any, torch.Tensor], None]
"""(weights, gradients, all that is kept, what is read besides, constants), all flat; in place."""


def suits(rule: Rule, w: torch.Tensor, kept: Tensors, layout: Layout) -> bool:
    """True where this engine can move a weight by a rule."""
    return (
        not (rule.whole or rule.sums)
        and type(w) in PLAIN
        and w.layout is torch.strided
        and w.dtype in _DTYPES
        and w.device.type != "meta"
        and not w.is_inference()
        and all(one is FULL for one in layout.slots)
        and "lost" not in layout.extras  # the compiler keeps more digits between than 16 bits have
        and (layout.weight is FULL or layout.weight is NEAREST[w.dtype])
        and all(x.shape == w.shape and x.device == w.device and x.layout is torch.strided for x in kept)
    )


_updates: dict[Any, Update | None] = {}


def update_of(rule: Rule, layout: Layout, like: Tensors) -> Update | None:
    """The compiled update of a rule's formula; None, after one warning, where it cannot be compiled.

    like: a weight and all that it keeps, for their dtypes and device."""
    key = form(rule), layout, like[0].device, *(x.dtype for x in like)
    if key not in _updates:
        _updates[key] = _compiled(rule, layout, like)
    return _updates[key]


def _compiled(rule: Rule, layout: Layout, like: Tensors) -> Update | None:
    name, device = type(rule).__name__, like[0].device
    w, *kept = (torch.zeros(ALIGNMENT, dtype=x.dtype, device=device) for x in like)
    k = torch.ones(2 + len(constants_of(rule)), dtype=_WIDE.get(w.dtype, w.dtype), device=device)
    try:
        update = torch.compile(_formula(rule, layout), fullgraph=True, dynamic=True)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's words about its own parts
            # Now, on nothing, for both dtypes of what is read: where it fails, no weight has moved.
            for dtype in {w.dtype, _WIDE.get(w.dtype, w.dtype)}:
                g, *reads = (torch.zeros_like(w, dtype=dtype) for _ in range(1 + len(rule.extra_inputs)))
                update(w, g, kept, reads, k)
    except Exception as error:
        cause = getattr(error, "inner_exception", error)
        text = str(cause).strip().partition("\n")[0]
        warnings.warn(
            f"{name} runs as plain torch operations on {device}, weight by weight: torch.compile failed with "
            f"{type(cause).__name__}: {text}. It needs a compiler (g++ on the CPU, Triton on a GPU); "
            'engine="torch" asks for plain operations without this warning.',
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return update


def _formula(rule: Rule, layout: Layout) -> Any:
    """The update of flat arrays as a function with code of its own.

    torch.compile counts compilations by code object: shared by all rules, it would soon refuse the next."""
    kind = type(rule.constants(HOST, 1, rule.shared)[0])
    count = len(kind._fields)

    def update(w: Any, g: Any, kept: Any, reads: Any, k: Any) -> None:
        numbers, slots = memory.loaded(layout, w, kept)
        own = [x.to(numbers.dtype) for x in (g, *reads)]
        constants = kind(*(k[1 + at] for at in range(count)))
        moved, *new = rule.update(TORCH, constants, numbers, k[0] * own[0], *own[1:], *slots)
        memory.store(layout, w, kept, moved, new, k[1 + count], _NO_DRAWS)

    code = update.__code__.replace(co_name=f"{type(rule).__name__.lower()}_update")
    return FunctionType(code, globals(), code.co_name, None, update.__closure__)


_NO_DRAWS: Any = None


class Stretch:
    """Weights of one dtype, device and set of constants, end to end in flat arrays; or one weight in place.

    lay: whether what is kept moves into flat arrays for good; else it is copied to and fro as weights are."""

    def __init__(
        self,
        rows: Sequence[int],
        moment: int,
        update: Update,
        weights: Tensors,
        kept: Sequence[list[torch.Tensor]],
        lay: bool,
    ) -> None:
        self.rows, self.moment, self.update = rows, moment, update
        self.weights, self.kept = [weights[row] for row in rows], [kept[row] for row in rows]
        self.direct = len(rows) == 1 and _direct(self.weights[0], self.kept[0])
        self.copied: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
        self.read: dict[torch.dtype, list[tuple[torch.Tensor, list[torch.Tensor]]]] = {}
        columns = list(map(list, zip(*self.kept, strict=True)))
        if self.direct:
            self.flat = [column[0].view(-1) for column in columns]
            return
        self.w, views = self._flat(self.weights[0].dtype)
        self.copied.append((self.weights, views))
        self.flat = [self._lay(number, column, lay) for number, column in enumerate(columns)]

    def _flat(self, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """A flat array, and its stretches in the shapes of the weights."""
        sizes = [w.numel() for w in self.weights]
        starts = list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
        whole = torch.zeros(starts[-1], dtype=dtype, device=self.weights[0].device)
        places = zip(starts, sizes, self.weights, strict=False)
        return whole, [whole[start : start + size].view(w.shape) for start, size, w in places]

    def _lay(self, number: int, column: list[torch.Tensor], lay: bool) -> torch.Tensor:
        whole, views = self._flat(column[0].dtype)
        if lay:
            torch._foreach_copy_(views, column)
            for own, view in zip(self.kept, views, strict=True):
                own[number] = view
        else:
            self.copied.append((column, views))
        return whole

    def run(self, inputs: Sequence[Tensors], k: torch.Tensor) -> None:
        """Update all weights once. inputs: of each the gradient and what the rule reads besides."""
        if self.direct:
            w = self.weights[0].detach()
            dtype = self._dtype(inputs)
            g, *reads = (x.detach().to(dtype).contiguous().view(-1) for x in inputs[0])
            self.update(w.view(-1), g, self.flat, reads, k)  # torch counts the weight's version on
            return
        g, *reads = self._gathered(inputs)
        for own, views in self.copied:
            torch._foreach_copy_(views, own)
        if self.w.numel():
            self.update(self.w, g, self.flat, reads, k)
        for own, views in self.copied:
            torch._foreach_copy_(own, views)

    def _gathered(self, inputs: Sequence[Tensors]) -> list[torch.Tensor]:
        """What is only read, flat."""
        dtype = self._dtype(inputs)
        if dtype not in self.read:
            self.read[dtype] = [self._flat(dtype) for _ in inputs[0]]
        for (_, views), column in zip(self.read[dtype], zip(*inputs, strict=True), strict=True):
            torch._foreach_copy_(views, list(column))
        return [whole for whole, _ in self.read[dtype]]

    def _dtype(self, inputs: Sequence[Tensors]) -> torch.dtype:
        """What is only read is read in the dtype of the weights, or of arithmetic where it is in another."""
        dtype = self.weights[0].dtype
        alike = all(x.dtype is dtype for own in inputs for x in own)
        return dtype if alike else _WIDE.get(dtype, dtype)


def _direct(w: torch.Tensor, kept: Tensors) -> bool:
    return w.numel() >= DIRECT and all(x.is_contiguous() for x in (w, *kept))


def flat(
    rule: Rule,
    layout: Layout,
    weights: Tensors,
    kept: Sequence[list[torch.Tensor]],
    moments: Sequence[int],
    lay: bool,
) -> Flat | None:
    """The engine for these weights; None where weights overlap or nothing can be compiled.

    kept: of each weight; where `lay`, these lists are given other tensors with the same numbers."""
    if not _apart(weights):
        return None
    updates = [update_of(rule, layout, [w, *own]) for w, own in zip(weights, kept, strict=True)]
    if any(update is None for update in updates):
        return None
    found: dict[Any, list[int]] = {}
    for row, (w, own) in enumerate(zip(weights, kept, strict=True)):
        alone = row if _direct(w, own) else None
        found.setdefault((moments[row], updates[row], alone), []).append(row)
    stretches = [
        Stretch(rows, moment, update, weights, kept, lay) for (moment, update, _), rows in found.items()
    ]
    return Flat(weights, stretches)


def _apart(weights: Tensors) -> bool:
    """True where no two weights may share an element; others must move one after the other."""
    stretches = []
    for w in weights:
        reach = sum((size - 1) * stride for size, stride in zip(w.shape, w.stride(), strict=True))
        if w.numel():
            stretches.append((w.data_ptr(), w.data_ptr() + (reach + 1) * w.element_size()))
    return all(before[1] <= after[0] for before, after in pairwise(sorted(stretches)))


class Kind(NamedTuple):
    """What a weight must stay for its buffers to serve."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def _kind(w: torch.Tensor) -> Kind:
    return Kind(w.shape, w.stride(), w.dtype, w.device)


class Flat:
    """Weights that go through compiled code, with the interface of `Leaves`, but for sums."""

    def __init__(self, weights: Tensors, stretches: Sequence[Stretch]) -> None:
        self.weights, self.stretches = weights, stretches
        self.kinds = list(map(_kind, weights))

    def fits(self, inputs: Tensors) -> bool:
        """Keeps the gradients of all rows and, after them, each array that the rule reads besides.

        False where one of them could not be used, or a weight is not of the kind that it was."""
        count = len(self.weights)
        self.inputs = [inputs[row::count] for row in range(count)]
        return list(map(_kind, self.weights)) == self.kinds and all(map(usable, inputs, cycle(self.weights)))

    def run(self, made: Made, cleared: Tensors | None = None) -> None:
        """Update every weight once. cleared: the gradients, where they shall be 0 afterwards."""
        rows = [(scale, *k, numbers[0] if numbers else 0.0) for _, k, scale, numbers in made]
        sent: dict[Any, torch.Tensor] = {}
        with torch.no_grad():
            for stretch in self.stretches:
                w = stretch.weights[0]
                to = w.device, _WIDE.get(w.dtype, w.dtype)
                if to not in sent:
                    sent[to] = _sent(rows, *to)
                stretch.run([self.inputs[row] for row in stretch.rows], sent[to][stretch.moment])
            if cleared:
                torch._foreach_zero_(list(cleared))


def _sent(rows: Sequence[Sequence[float]], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The constants of all moments on a device, without waiting for it where its memory allows."""
    here = torch.tensor(rows, dtype=dtype)
    if device.type == "cpu":
        return here
    return (here.pin_memory() if device.type == "cuda" else here).to(device, non_blocking=True)
