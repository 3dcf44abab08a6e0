"""The plain engine: a rule on torch tensors of any device, dtype and stride, one weight after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from steepest.optim.engines.on_numpy import normal
from steepest.optim.engines.precision import memory
from steepest.optim.engines.precision.formats import widest
from steepest.optim.engines.precision.memory import Draws, Layout
from steepest.optim.engines.sharded import is_dtensor, local
from steepest.optim.errors import UserError
from steepest.optim.maths import HOST, VOCABULARY
from steepest.optim.rule import Rule

Axis = int | tuple[int, ...] | None


def _summed(x: torch.Tensor, axis: Axis = None, keepdims: bool = False) -> torch.Tensor:
    return torch.sum(x, dim=axis, keepdim=keepdims)


def _mean(x: torch.Tensor, axis: Axis = None, keepdims: bool = False) -> torch.Tensor:
    return torch.mean(x, dim=axis, keepdim=keepdims)


def _max(x: torch.Tensor, axis: Axis = None, keepdims: bool = False) -> torch.Tensor:
    return torch.amax(x, dim=tuple(range(x.dim())) if axis is None else axis, keepdim=keepdims)


def _reshaped(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return torch.reshape(x, tuple(shape))


def _stack(arrays: Sequence[torch.Tensor], axis: int = 0) -> torch.Tensor:
    return torch.stack(list(arrays), dim=axis)


def _argsort(x: torch.Tensor) -> torch.Tensor:
    return torch.argsort(x, dim=-1, stable=True)


def _take(x: torch.Tensor, indices: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.index_select(x, axis, indices)


def _addmm(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, beta: float = 1.0, alpha: float = 1.0) -> Any:
    together = {2: torch.addmm, 3: torch.baddbmm}.get(c.dim())
    return together(c, a, b, beta=beta, alpha=alpha) if together else beta * c + alpha * (a @ b)


def _zeros(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)


def _eye(n: int, like: torch.Tensor) -> torch.Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def _of_numbers(decompose: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    """A decomposition that gives NaN where its matrix holds NaN or ∞, instead of an error."""

    def parts(x: torch.Tensor) -> Any:
        if torch.isfinite(x).all():
            return decompose(x)
        return tuple(part + torch.nan for part in decompose(torch.zeros_like(x)))

    return parts


def _solve_triangular(a: torch.Tensor, b: torch.Tensor, lower: bool = False) -> torch.Tensor:
    return torch.linalg.solve_triangular(a, b, upper=not lower)


def _normal(shape: Sequence[int], seed: int, t: int, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(normal(tuple(shape), seed, t)).to(like)


def _cond(condition: Any, f: Callable[..., Any], g: Callable[..., Any], *arrays: Any) -> Any:
    return f(*arrays) if condition else g(*arrays)


WHOLE = {
    "sum": _summed,
    "mean": _mean,
    "max": _max,
    "reshape": _reshaped,
    "swapaxes": torch.swapaxes,
    "stack": _stack,
    "triu": torch.triu,
    "tril": torch.tril,
    "argsort": _argsort,
    "take": _take,
    "addmm": _addmm,
    "zeros": _zeros,
    "eye": _eye,
    "eigh": _of_numbers(torch.linalg.eigh),
    "qr": torch.linalg.qr,
    "svd": _of_numbers(partial(torch.linalg.svd, full_matrices=False)),
    "solve_triangular": _solve_triangular,
    "normal": _normal,
    "cond": _cond,
}
"""Each word and what it is in torch. Random numbers are NumPy's, so that both engines have the same."""


_LOW = (torch.bfloat16, torch.float16)


def _on_scalars_too(name: str) -> Callable[[Any], Any]:
    on_tensor, on_float = getattr(torch, name), getattr(HOST, name)
    return lambda x: on_tensor(x) if isinstance(x, torch.Tensor) else on_float(x)


def _of_two(name: str) -> Callable[[Any, Any], Any]:
    on_tensors, on_floats = getattr(torch, name), getattr(HOST, name)

    def operation(a: Any, b: Any) -> Any:
        like = a if isinstance(a, torch.Tensor) else b
        if not isinstance(like, torch.Tensor):
            return on_floats(a, b)
        # A float by way of torch's default dtype would come out of float32, rounded.
        return on_tensors(*(torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (a, b)))

    return operation


def _sign(x: Any) -> Any:
    """-1, 0 or 1, and NaN of NaN, which torch.sign turns into 0."""
    return torch.where(x != x, x, torch.sign(x)) if isinstance(x, torch.Tensor) else HOST.sign(x)


def _where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, torch.Tensor):
        return HOST.where(condition, a, b)
    if not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor):
        a = torch.tensor(
            a, dtype=widest(condition), device=condition.device
        )  # of two floats torch makes float32
    return torch.where(condition, a, b)


TORCH = SimpleNamespace(
    **{name: _on_scalars_too(name) for name in set(VOCABULARY) - {"maximum", "minimum", "sign", "where"}},
    maximum=_of_two("maximum"),
    minimum=_of_two("minimum"),
    sign=_sign,
    where=_where,
    zeros_like=torch.zeros_like,
    ones_like=torch.ones_like,
    full_like=torch.full_like,
    **WHOLE,
)
"""`xp` for tensors: the closed vocabulary of rules, mixed with floats; and that of whole arrays."""


def real(x: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor as reals; a complex one as pairs, in the same memory."""
    return torch.view_as_real(x) if x.is_complex() else x


def wide(x: torch.Tensor) -> torch.Tensor:
    """The tensor in the dtype of arithmetic and state: float32 for 16-bit floats, else its own."""
    return x.float() if x.dtype in _LOW else x


def start(rule: Rule, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The slots of a weight before its first update."""
    if rule.whole and w.is_complex():
        raise UserError(
            f"{type(rule).__name__} moves real weights only; one of shape {tuple(w.shape)} is complex. "
            "Give it a rule of its own that goes by elements, such as AdamW."
        )
    with torch.no_grad():
        slots = rule.init(TORCH, wide(real(w.detach())))
        return tuple(torch.view_as_complex(slot) for slot in slots) if w.is_complex() else tuple(slots)


class Leaf(NamedTuple):
    """One weight in one step: the gradient and what its rule reads besides, all that it keeps, the rule with
    its constants, the factor of the gradient and the numbers of `Memory`."""

    layout: Layout
    w: torch.Tensor
    inputs: Sequence[torch.Tensor]
    kept: Sequence[torch.Tensor]
    place: int
    rule: Rule
    k: Any
    scale: float
    numbers: Sequence[float]

    def local(self) -> Leaf:
        """The same of the part of a DTensor that lies in this process."""
        inputs, kept = [local(x, self.w) for x in self.inputs], [local(x, self.w) for x in self.kept]
        return self._replace(w=local(self.w), inputs=inputs, kept=kept)


def update(leaf: Leaf) -> None:
    """One update of one weight in place; what is only read is not written."""
    if not leaf.w.numel():
        return  # sums and means of nothing are no numbers
    w, kept = real(leaf.w.detach()), [real(x) for x in leaf.kept]
    arrays = _arrays(leaf, w, kept)
    moved, *new = _apart(arrays[1 + len(leaf.inputs) :], leaf.rule.update(TORCH, leaf.k, *arrays))
    share = leaf.numbers[0] if leaf.numbers else 0.0
    memory.store(leaf.layout, w, kept, moved, new, share, Draws(leaf.numbers, leaf.place))


def _apart(slots: Sequence[torch.Tensor], made: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """What was made, (w, *slots), copied where it is an old slot that is written before it is read."""
    places = {id(slot): place for place, slot in enumerate(slots, start=1)}
    return (x.clone() if places.get(id(x), place) != place else x for place, x in enumerate(made))


def sums(leaf: Leaf) -> list[float]:
    """What the rule measures of one weight, summed in the device's widest float; nothing is written."""
    w = real(leaf.w.detach())
    addends = leaf.rule.addends(TORCH, leaf.k, *_arrays(leaf, w, [real(x) for x in leaf.kept]))
    each = [torch.as_tensor(x).expand(w.shape).sum(dtype=widest(w)) for x in addends]
    return [float(x.full_tensor() if is_dtensor(x) else x) for x in each]  # pyright: ignore[reportAttributeAccessIssue]


def _arrays(leaf: Leaf, w: torch.Tensor, kept: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """(w, g, *reads, *slots) in the dtype and on the device of arithmetic."""
    w, slots = memory.loaded(leaf.layout, w, kept)
    g, *reads = (real(x.detach()).to(w.device, w.dtype) for x in leaf.inputs)
    return [w, g if leaf.scale == 1.0 else leaf.scale * g, *reads, *slots]


def usable(x: torch.Tensor, w: torch.Tensor) -> bool:
    """True where x can be the gradient of a weight, or what a rule reads beside it."""
    kind = x.is_complex() if w.is_complex() else x.is_floating_point()
    return kind and x.layout is torch.strided and x.shape == w.shape and x.device == w.device


class Leaves:
    """Weights that go through this engine, one after the other; with the interface of a kernel's table.

    moments: for each weight the number of its set of constants. places: among all weights."""

    def __init__(
        self,
        layout: Layout,
        weights: Sequence[torch.Tensor],
        kept: Any,
        moments: Sequence[int],
        places: Sequence[int],
    ) -> None:
        self.layout, self.weights, self.moments = layout, weights, moments
        self.slots, self.places = kept, places

    def fits(self, inputs: Sequence[torch.Tensor]) -> bool:
        """Keeps the gradients of all rows and, after them, each array that the rule reads besides.

        False where one of them could not be used, as `plan` would say."""
        count = len(self.weights)
        self.inputs = [inputs[row::count] for row in range(count)]
        return all(map(usable, inputs, cycle(self.weights)))

    def _rows(self, made: Sequence[tuple[Any, ...]]) -> Iterator[Leaf]:
        columns: Any = zip(self.weights, self.inputs, self.slots, self.places, self.moments, strict=True)
        for *own, moment in columns:
            leaf = Leaf(self.layout, *own, *made[moment])
            yield leaf.local() if is_dtensor(leaf.w) and not leaf.rule.whole else leaf

    def total(self, made: Sequence[tuple[Any, ...]]) -> np.ndarray:
        """For each row the sums of `rule.measure`, with what `run` is given but the constants from sums."""
        with torch.no_grad():
            return np.array([sums(leaf) for leaf in self._rows(made)])

    def run(self, made: Sequence[tuple[Any, ...]], cleared: Sequence[torch.Tensor] | None = None) -> None:
        """Update every weight once. cleared: the gradients, where they shall be 0 afterwards.

        made: for each moment (rule, constants, factor of the gradients, numbers of `Memory`)."""
        with torch.no_grad():
            for leaf in self._rows(made):
                update(leaf)
            for gradient in cleared or ():
                gradient.zero_()
