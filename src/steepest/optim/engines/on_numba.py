"""The compiled engine: a rule's kernels over a table of addresses in the processor's memory."""

from __future__ import annotations

import struct
import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.graph import increment_version

from steepest.optim.engines.kernels.compiled import ARGUMENTS, PARALLEL_FROM, Kernel, compiled, spread
from steepest.optim.engines.kernels.inline import NotInlinable
from steepest.optim.engines.kernels.pointers import SAME, UNFIT, looker
from steepest.optim.engines.kernels.source import ARITHMETIC, NUMBERS, constants_of, source, source_of_sums
from steepest.optim.engines.precision.memory import Layout
from steepest.optim.engines.pure import form
from steepest.optim.rule import Rule

PIECE = 1 << 16
"""Elements a kernel does at a time; constant, so that the bits do not depend on the threads."""

SEEN = 100
"""Places of one gradient that are remembered as fit; an allocator has a few that it gives in turn."""

PLAIN = {torch.Tensor, torch.nn.Parameter}

_address, _size, _contiguous = torch.Tensor.data_ptr, attrgetter("nbytes"), torch.Tensor.is_contiguous
_ground = torch.UntypedStorage.data_ptr
Tensors = Sequence[torch.Tensor]
Made = Sequence[tuple[Rule, Any, float, Sequence[float]]]
"""For each moment (rule, constants, factor of the gradients, numbers of `Memory`)."""


def by_layout(
    rows: Sequence[int],
    weights: Mapping[int, torch.Tensor],
    slots: Mapping[int, Tensors],
    layouts: Mapping[int, Layout],
) -> dict[tuple[Layout, torch.dtype | None], list[int]]:
    """The rows by layout and dtype; those that no kernel may touch under the dtype None."""
    found: dict[tuple[Layout, torch.dtype | None], list[int]] = {}
    for row in rows:
        w, own = weights[row], layouts[row]
        found.setdefault((own, w.dtype if _fit(w, slots[row], own) else None), []).append(row)
    return found


def _fit(w: torch.Tensor, kept: Tensors, layout: Layout) -> bool:
    """True where a kernel may touch a weight and all that it keeps."""
    full = torch.float64 if w.dtype is torch.float64 else torch.float32
    dtypes = [one.dtype or full for one in layout.slots]
    dtypes += [torch.float32] * len(layout.blocks) + [w.dtype if x == "lost" else full for x in layout.extras]
    scales = range(len(layout.slots), len(layout.slots) + len(layout.blocks))
    return plain(w, w) and all(
        plain(x, x if number in scales else w, dtype)
        for number, (x, dtype) in enumerate(zip(kept, dtypes, strict=True))
    )


def plain(x: torch.Tensor, like: torch.Tensor, dtype: torch.dtype | None = None) -> bool:
    """True where x is nothing but a stretch of this processor's memory, with as many numbers as `like`.

    They are of the same dtype, or x is of the one given."""
    return (
        type(x) in PLAIN
        and x.layout is torch.strided
        and x.device.type == "cpu"
        and like.dtype in ARITHMETIC
        and x.dtype is (dtype or like.dtype)
        and x.shape == like.shape
        and x.is_contiguous()
        and not x.is_inference()
        and not x.is_neg()
        and (x.storage_offset() + x.numel()) * x.element_size() <= x.untyped_storage().nbytes()
    )


def cut(lengths: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """The pieces of rows of these lengths: (row, start, stop, place of the row's constants)."""
    pieces = [
        (row, start, min(start + PIECE, length), place)
        for row, (length, place) in enumerate(zip(lengths, places, strict=True))
        for start in range(0, length, PIECE)
    ]
    return np.array(pieces, np.int64).reshape(-1, 4)


class Kernels(NamedTuple):
    """What is compiled of a rule: its update, what sums for it, and how many constants they take."""

    update: Kernel
    sums: Kernel | None
    constants: int


_kernels: dict[Any, Kernels | None] = {}


def kernels_of(rule: Rule, dtype: torch.dtype, layout: Layout, clears: bool = False) -> Kernels | None:
    """The compiled kernels of a rule's formula; None where its body, or the compiler, does not allow them.

    clears: its update leaves gradients of 0."""
    if rule.whole:
        return None
    key = form(rule), dtype, layout, clears
    if key not in _kernels:
        _kernels[key] = _compiled(rule, dtype, layout, clears)
    return _kernels[key]


def _compiled(rule: Rule, dtype: torch.dtype, layout: Layout, clears: bool) -> Kernels | None:
    name = type(rule).__name__
    made = partial(compiled, f"{name.lower()}_{str(dtype).removeprefix('torch.')}")
    try:
        sums = made(source_of_sums(rule, dtype, layout), *ARGUMENTS) if rule.sums else None
        update = made(source(rule, dtype, layout, clears), *ARGUMENTS)
        constants = 1 + len(constants_of(rule)) + (0 if layout.plain else NUMBERS)
        return Kernels(update, sums, constants)
    except NotInlinable:
        return None
    except Exception as error:
        warnings.warn(f"{name} runs without a kernel: {error}", RuntimeWarning, stacklevel=2)
        return None


def table(
    rule: Rule, dtype: torch.dtype | None, layout: Layout, chosen: Sequence[Any], sets: int
) -> Table | None:
    """A table for the rule's kernels; None where there are none or tensors overlap.

    chosen: for each row its weight, all that it keeps, the number of its set of constants, of so many sets,
    and its place among all weights."""
    kernels = None if dtype is None else kernels_of(rule, dtype, layout)
    weights, kept, moments, places = chosen
    made = kernels and Table(rule, layout, kernels, weights, kept, moments, places, sets)
    return made if made and made.apart else None


class Table:
    """Addresses of weights, of what is only read (gradients first), and of slots, cut into pieces.

    They are compared with the tensors before every step; whatever is not as it was makes `fits` False."""

    def __init__(
        self,
        rule: Rule,
        layout: Layout,
        kernels: Kernels,
        weights: Tensors,
        slots: Sequence[Tensors],
        moments: Sequence[int],
        places: Sequence[int],
        sets: int,
    ) -> None:
        self.rule, self.layout = rule, layout
        self.weights, self.slots = weights, slots  # kept alive: the optimizer knows them by where they lie
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for kept in slots for x in kept}
        self.grounds, self.storages = list(storages), list(storages.values())
        count = len(weights)
        columns = [list(weights), *map(list, zip(*slots, strict=True))]
        self.written = list(map(_address, chain.from_iterable(columns)))
        sizes = list(map(_size, chain.from_iterable(columns)))
        stretches = sorted((a, a + n) for a, n in zip(self.written, sizes, strict=True) if n)
        self.starts, self.stops = [a for a, _ in stretches], [b for _, b in stretches]
        self.apart = all(before[1] <= after[0] for before, after in pairwise(stretches))
        self.inputs = 1 + len(rule.extra_inputs)
        self.sizes = sizes[:count] * self.inputs
        self.looker = looker(weights, self.inputs)
        self.places: list[int] = []  # of inputs and weights, as last found fit
        self.seen: set[tuple[int, int]] = set()
        read = self.written[:count] * self.inputs  # until `fits` has seen the gradients
        rows = [*self.written[:count], *read, *self.written[count:], *([] if layout.plain else places)]
        self.rows = np.array(rows, np.int64).reshape(-1, count).T.copy()
        lengths = [w.numel() for w in weights]
        self.pieces, self.elements = (
            cut(lengths, [kernels.constants * moment for moment in moments]),
            sum(lengths),
        )
        self._lay_out(len(rule.sums), kernels.constants, sets)
        self.update = self._runner(kernels.update)
        self.measure = kernels.sums and self._runner(kernels.sums)
        self.clearing: Callable[[], None] | None = None
        self.loaded: Any = None  # what the constants were made of; None where nobody noted it
        self.judged: list[int] | None = None  # the places of which `lone` says whether gradients are apart

    def _lay_out(self, sums: int, constants: int, sets: int) -> None:
        """Make room for numbers: first the sums of each piece, then the sets of constants."""
        first = len(self.pieces) * sums
        self.pieces[:, 3] += first
        self.numbers = np.zeros(first + constants * sets)
        self.sums = self.numbers[:first].reshape(len(self.pieces), sums)
        self.constants, self.width = self.numbers[first:].data.cast("B"), constants
        self.pack = struct.Struct(f"{constants * sets}d").pack_into

    def _runner(self, kernel: Kernel) -> Callable[[], None]:
        table, pieces, k = (array.ctypes.data for array in (self.rows, self.pieces, self.numbers))
        if self.elements < PARALLEL_FROM:
            kinds = zip(ARGUMENTS, (table, pieces, 0, len(self.pieces), k), strict=True)
            return partial(kernel, *(kind(value) for kind, value in kinds))
        return partial(spread, kernel, table, pieces, len(self.pieces), k, self.elements)

    def fits(self, inputs: Tensors) -> bool:
        """True where every tensor lies where it lay, and the next run may read these inputs.

        inputs: the gradients of all rows, then each array that the rule reads besides."""
        seen = self.looker.look(inputs if type(inputs) is list else list(inputs))
        if seen == UNFIT or (self.grounds and list(map(_ground, self.storages)) != self.grounds):
            return False
        return seen == SAME or self._point(inputs, self.looker.found)

    def stays(self) -> bool:
        """True where all that is written lies where it lay: then it was an input that did not fit."""
        try:
            grounds, places = list(map(_ground, self.storages)), list(map(_address, self.weights))
        except RuntimeError:
            return False
        same = grounds == self.grounds and places == self.written[: len(places)]
        return same and all(plain(w, w) for w in self.weights)

    def _point(self, inputs: Tensors, places: list[int]) -> bool:
        """Let the table point to inputs that lie elsewhere than before; the weights may not."""
        count, read = len(self.weights), len(inputs)
        if places[read:] != self.written[:count]:
            return False
        if not self.seen.issuperset(enumerate(places[:read])):
            for place, x in zip(enumerate(places[:read]), inputs, strict=True):
                if not plain(x, self.weights[place[0] % count]) or not self._outside(place[1], x.nbytes):
                    return False
            if len(self.seen) > SEEN * read:
                self.seen.clear()
            self.seen.update(enumerate(places[:read]))
        self.rows[:, 1 : 1 + self.inputs] = np.array(places[:read]).reshape(self.inputs, count).T
        self.places = places
        self.looker.know()
        return True

    def _outside(self, start: int, size: int) -> bool:
        """True where a stretch of memory touches nothing that the kernel writes."""
        after = bisect_right(self.stops, start)
        return after == len(self.starts) or start + size <= self.starts[after]

    def _load(self, made: Made) -> None:
        values: list[float] = []
        width, plain = self.width, self.layout.plain
        for _, k, scale, numbers in made:
            values += (scale, *k)
            if len(k) + 1 < width:  # before the sums are known, or where there is more to know
                more = () if plain else numbers
                values += [0.0] * (width - len(k) - 1 - len(more))
                values += more
        self.pack(self.constants, 0, *values)
        self.loaded = None

    def total(self, made: Made) -> np.ndarray:
        """For each row the sums of `rule.measure`, given what `run` is, but for constants that need sums."""
        self._load(made)
        assert self.measure is not None
        self.measure()
        totals = np.zeros((len(self.weights), self.sums.shape[1]))
        np.add.at(totals, self.pieces[:, 0], self.sums)
        return totals

    def run(self, made: Made, cleared: Tensors | None = None) -> None:
        """Update every weight once. cleared: the gradients, where they shall be 0 afterwards."""
        self._load(made)
        clear = None if cleared is None else self._clear()
        (clear or self.update)()
        increment_version(self.weights)
        if cleared is not None and clear:
            increment_version(cleared)
        elif cleared is not None:
            torch._foreach_zero_(list(cleared))

    def _clear(self) -> Callable[[], None] | None:
        """The update that leaves gradients of 0; None where these overlap each other."""
        if self.judged is not self.places:
            stretches = sorted(zip(self.places, self.sizes[: len(self.weights)], strict=False))
            self.lone = all(a + n <= b for (a, n), (b, _) in pairwise(stretches) if n)
            self.judged = self.places
        if self.clearing is None and self.lone:
            kernels = kernels_of(self.rule, self.weights[0].dtype, self.layout, clears=True)
            self.clearing = kernels and self._runner(kernels.update)
        return self.clearing if self.lone else None
