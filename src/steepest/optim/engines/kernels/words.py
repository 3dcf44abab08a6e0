"""The functions of `bits` as words of kernels: LLVM's instructions, which take no time to compile."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from steepest.optim.engines.precision import bits
from steepest.optim.engines.precision.formats import BLOCK

_INT, _FLOAT = ir.IntType(32), ir.FloatType()
_TYPES = {"Int": types.int32, "Float": types.float32}


class _Value:
    """A number in a kernel that is being built; operators add instructions."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _with(self, other: Any, on_ints: str, on_floats: str = "", *kind: str) -> _Value:
        value = other.value if isinstance(other, _Value) else self.value.type(other)
        name = on_floats if self.value.type == _FLOAT else on_ints
        return _Value(self.builder, getattr(self.builder, name)(*kind, self.value, value))

    def __add__(self, other: Any) -> _Value:
        return self._with(other, "add", "fadd")

    def __sub__(self, other: Any) -> _Value:
        return self._with(other, "sub", "fsub")

    def __mul__(self, other: Any) -> _Value:
        return self._with(other, "mul", "fmul")

    def __and__(self, other: Any) -> _Value:
        return self._with(other, "and_")

    def __or__(self, other: Any) -> _Value:
        return self._with(other, "or_")

    def __xor__(self, other: Any) -> _Value:
        return self._with(other, "xor")

    def __lshift__(self, other: Any) -> _Value:
        return self._with(other, "shl")

    def __lt__(self, other: Any) -> _Value:
        return self._with(other, "icmp_signed", "fcmp_ordered", "<")

    def __le__(self, other: Any) -> _Value:
        return self._with(other, "icmp_signed", "fcmp_ordered", "<=")

    def __gt__(self, other: Any) -> _Value:
        return self._with(other, "icmp_signed", "fcmp_ordered", ">")

    def __eq__(self, other: Any) -> _Value:  # type: ignore[override]
        return self._with(other, "icmp_signed", "fcmp_ordered", "==")


def _bits(x: _Value) -> _Value:
    return _Value(x.builder, x.builder.bitcast(x.value, _INT))


def _number(b: _Value) -> _Value:
    return _Value(b.builder, b.builder.bitcast(b.value, _FLOAT))


def _down(b: _Value, places: int) -> _Value:
    return b._with(places, "lshr") if isinstance(b, _Value) else b >> places


def _where(condition: _Value, a: Any, b: Any) -> _Value:
    plain = _FLOAT if isinstance(a, float) else _INT
    known = next((x.value.type for x in (a, b) if isinstance(x, _Value)), plain)
    a, b = (x.value if isinstance(x, _Value) else known(x) for x in (a, b))
    return _Value(condition.builder, condition.builder.select(condition.value, a, b))


LLVM = SimpleNamespace(bits=_bits, number=_number, down=_down, where=_where)
"""`xp` for `bits`, where a kernel is built."""


def _word(function: Callable[..., Any]) -> Any:
    """The function as an intrinsic of Numba's, its types from its annotations."""
    kinds = inspect.get_annotations(function)
    returned = _TYPES[kinds.pop("return")]
    taken = [_TYPES[kind] for kind in list(kinds.values())[1:]]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return function(LLVM, *(_Value(builder, value) for value in arguments)).value

    def typed(typing_context: Any, *arguments: Any) -> Any:
        return returned(*taken), generate

    typed.__name__ = function.__name__
    typed.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # Numba wants no *arguments
    return intrinsic(typed)


@intrinsic
def scratch(typing_context: Any) -> Any:
    """Room for a block of float32 on the stack of the calling function."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        room = cgutils.alloca_once(builder, ir.ArrayType(_FLOAT, BLOCK))
        return builder.bitcast(room, _FLOAT.as_pointer())

    return types.CPointer(types.float32)(), generate


NAMES = (
    "first_key", "second_key", "chance", "low", "high", "top", "larger", "scale_of",
    "from_bfloat16", "bfloat16_near", "bfloat16_by_chance",
    "from_float16", "float16_near", "float16_by_chance",
    "from_signed", "signed", "from_positive", "positive",
)  # fmt: skip
globals().update({name: _word(getattr(bits, name)) for name in NAMES})
