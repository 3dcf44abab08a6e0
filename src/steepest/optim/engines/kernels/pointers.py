"""Where tensors lie: asked of many at once, and laid side by side.

Before each step every weight and gradient is asked for its address, size, dtype and layout. One by one, in
Python, that takes longer than the update of a small network. torch answers in C through DLPack's exchange
table (DLPack 1.3: `dltensor_from_py_object_no_sync`, which borrows and copies nothing), and one compiled loop
asks for all. Where torch has no such table, each tensor is asked in Python."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
import torch

from steepest.optim.engines.kernels.compiled import compiled

SAME, MOVED, UNFIT = 0, 1, 2
"""All lie where they were known to lie; some lie elsewhere; one is nothing for a kernel."""

MAJOR, BORROWS = 1, 40
"""DLPack's version; bytes from the start of its exchange table to the function that borrows a tensor."""

KINDS = {torch.float16: (2, 16), torch.bfloat16: (4, 16), torch.float32: (2, 32), torch.float64: (2, 64)}
"""DLPack's (code, bits) of the dtypes of weights that kernels move."""

SOURCE = '''"""Where tensors lie. Written by steepest, which makes it anew where it is missing."""

from numba import cfunc, types

from steepest.optim.engines.kernels.intrinsics import ask, pointer

CACHED = "__file__" in globals()


@cfunc(types.int64(types.CPointer(types.int64), types.int64), cache=CACHED)
def kernel(asked, inputs):
    borrow, size, item, given, own = asked[0], asked[1], asked[2], asked[3], asked[4]
    weights, wanted = pointer(asked[5], types.int64), pointer(asked[6], types.int64)
    known, found = pointer(asked[7], types.int64), pointer(asked[8], types.int64)
    tensor = pointer(asked[9], types.int64)
    if ask(size, inputs, 0) != given:
        return 2
    moved = 0
    for row in range(given + own):
        obj = ask(item, inputs, row) if row < given else weights[row - given]
        if ask(borrow, obj, asked[9]) & 0xFFFFFFFF != 0:
            return 2
        shape, strides = pointer(tensor[3], types.int64), pointer(tensor[4], types.int64)
        elements, dense = 1, True
        for axis in range((tensor[2] & 0xFFFFFFFF) - 1, -1, -1):
            dense = dense and (shape[axis] == 1 or strides[axis] == elements)
            elements *= shape[axis]
        fits = elements == wanted[2 * row] and (dense or elements == 0)
        if not fits or tensor[2] >> 32 != wanted[2 * row + 1] or tensor[1] & 0xFFFFFFFF != 1:
            return 2
        found[row] = tensor[0] + tensor[5]
        moved |= found[row] != known[row]
    return moved
'''
"""asked: functions that borrow a tensor, give the size of a list, give an element of it; how many inputs and
weights; addresses of the weights' objects, of (elements, dtype) of each, of the known places, of those found,
and of room for one DLTensor: data, device, (dimensions, dtype), shape, strides, offset."""

Looker: TypeAlias = "InC | InPython"


class InC:
    """Asks C. known: where inputs and weights lie; found: where they lay at the last look."""

    def __init__(self, weights: Sequence[torch.Tensor], inputs: int) -> None:
        self.weights = list(weights)  # kept alive: C knows them by where they lie
        rows = inputs * len(weights) + len(weights)
        kinds = [(w.numel(), _kind(w.dtype)) for w in weights]
        objects, wanted = np.array([id(w) for w in weights]), np.array(kinds * (inputs + 1))
        self._known, self._found, room = (
            np.zeros(rows, np.int64),
            np.zeros(rows, np.int64),
            np.zeros(6, np.int64),
        )
        arrays = [objects, wanted, self._known, self._found, room]
        counts = [inputs * len(weights), len(weights)]
        self._asked = np.array([*_functions(), *counts, *(x.ctypes.data for x in arrays)], np.int64)
        self._kept, self._kernel, self._place = arrays, _kernel(), ctypes.c_void_p(self._asked.ctypes.data)

    def look(self, inputs: list[Any]) -> int:
        """SAME, MOVED or UNFIT."""
        try:
            return self._kernel(self._place, inputs)
        except Exception:  # torch's and Python's, of what is no tensor or has no memory of its own
            return UNFIT

    @property
    def found(self) -> list[int]:
        return self._found.tolist()

    def know(self) -> None:
        """Take what was found for known."""
        self._known[:] = self._found


class InPython:
    """The same, where torch has no table of functions."""

    def __init__(self, weights: Sequence[torch.Tensor], inputs: int) -> None:
        self.weights, self.found = list(weights), []
        self.known: list[int] = []
        self._kinds = [(w.nbytes, w.dtype, w.device.type) for w in weights] * (inputs + 1)

    def look(self, inputs: list[Any]) -> int:
        tensors = [*inputs, *self.weights]
        try:
            self.found = list(map(torch.Tensor.data_ptr, tensors))
            if list(map(_of, tensors)) != self._kinds or not all(map(torch.Tensor.is_contiguous, tensors)):
                return UNFIT
        except (AttributeError, RuntimeError, TypeError):  # no tensor, or one without memory of its own
            return UNFIT
        return SAME if self.found == self.known else MOVED

    def know(self) -> None:
        self.known = self.found


_of = attrgetter("nbytes", "dtype", "device.type")


def looker(weights: Sequence[torch.Tensor], inputs: int) -> Looker:
    """What looks where so many inputs for each weight, and these weights of the processor's memory, lie."""
    return InC(weights, inputs) if _functions() else InPython(weights, inputs)


def _kind(dtype: torch.dtype) -> int:
    """As in a DLTensor: code, bits and lanes in one number."""
    code, bits = KINDS[dtype]
    return code | bits << 8 | 1 << 16


@cache
def _functions() -> tuple[int, ...]:
    """Addresses of the functions that are asked; () where there are none."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None or sys.implementation.name != "cpython" or sys.byteorder != "little":
        return ()
    python = ctypes.pythonapi
    open_capsule = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    table = open_capsule(("PyCapsule_GetPointer", python))(capsule, b"dlpack_exchange_api")
    borrow = ctypes.c_void_p.from_address(table + BORROWS).value
    if ctypes.c_uint32.from_address(table).value != MAJOR or not borrow:
        return ()
    own = (
        ctypes.cast(function, ctypes.c_void_p).value or 0
        for function in (python.PyList_Size, python.PyList_GetItem)
    )
    return borrow, *(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in own)


@cache
def _kernel() -> Any:
    address = compiled("places", SOURCE, ctypes.c_void_p, ctypes.c_int64).address
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.py_object)(address)


ALIGNMENT = 64
"""Bytes; a line of the cache, and the longest vector."""


def settle(state: Mapping[Any, dict[str, Any]]) -> None:
    """Let the arrays of an optimizer's state that lie in the processor's memory lie side by side there."""
    found = [(entry, key, x) for entry in state.values() for key, x in entry.items() if movable(x)]
    for (entry, key, _), x in zip(found, side_by_side([x for *_, x in found]), strict=True):
        entry[key] = x


def movable(x: Any) -> bool:
    """True for plain tensors of this processor's memory that have axes."""
    return type(x) is torch.Tensor and x.layout is torch.strided and x.device.type == "cpu" and x.dim() > 0


def side_by_side(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of these tensors of the processor's memory, those of a dtype one after the other.

    Many small tensors are then on few pages. Their memory has one owner, so that one look tells whether it is
    where it was: shared or resized is the whole of it, or nothing. It is zeroed when it is first touched, and
    large stretches are in huge pages where the system gives them (NumPy asks for both). Each dtype has memory
    of its own, or torch.save would refuse it."""
    found: dict[int, torch.Tensor] = {}
    for dtype in dict.fromkeys(x.dtype for x in tensors):
        own = [number for number, x in enumerate(tensors) if x.dtype is dtype]
        found |= zip(own, _together([tensors[number] for number in own]), strict=True)
    return [found[number] for number in range(len(tensors))]


def _together(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    sizes = [-(-x.nbytes // ALIGNMENT) * ALIGNMENT for x in tensors]
    memory = np.zeros(sum(sizes) + ALIGNMENT, np.uint8)
    place = -memory.ctypes.data % ALIGNMENT
    whole, copies = torch.from_numpy(memory), []
    for x, size in zip(tensors, sizes, strict=True):
        stretch = whole[place : place + x.nbytes].view(x.dtype).view(x.shape)
        copies.append(stretch.copy_(x))
        place += size
    return copies
