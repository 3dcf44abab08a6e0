"""What Numba has no word for: memory that does not overlap, addresses, cube roots, counters, calls; and the
functions of `bits`, as LLVM's instructions, which take no time to compile."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import reduce
from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from steepest.optim.engines.precision import bits
from steepest.optim.engines.precision.formats import BLOCK


@intrinsic
def assume_apart(typing_context: Any) -> Any:
    """Mark every pointer argument of the calling function `noalias`; the caller has checked that they are.

    Without this promise loops over five arrays stay scalar."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for argument in builder.function.args:
            if isinstance(argument.type, ir.PointerType) and "noalias" not in argument.attributes:
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def pointer(typing_context: Any, address: Any, dtype: Any) -> Any:
    """An address as a pointer to numbers of a dtype."""
    kind = types.CPointer(dtype.instance_type)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(types.int64, dtype), generate


@intrinsic
def cube_root(typing_context: Any, x: Any) -> Any:
    """∛x; NaN below 0. A few multiplications, of many numbers at once where the library's power takes one.

    y, nearly 1/∛x, is guessed from the bits and twice made better by h = 1 - xy³, y ← y(1 + h/3 + 2h²/9),
    thrice in float64; then c = xy² is corrected by what it lacks, (x - c³)y²/3."""
    whole = ir.IntType(x.bitwidth)
    guess, times = (0x54A2FA8C, 2) if x.bitwidth == 32 else (0x553EF0FF289DD796, 3)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (given,) = arguments
        kind = given.type

        def product(*factors: Any) -> Any:
            return reduce(builder.fmul, (kind(f) if isinstance(f, float) else f for f in factors))

        # Powers of 8 that keep all that follows from overflow, and subnormal numbers from losing digits.
        large = builder.fcmp_ordered(">", given, kind(2.0**99))
        small = builder.fcmp_ordered("<", given, kind(2.0**-99))
        by = builder.select(large, kind(2.0**-48), builder.select(small, kind(2.0**48), kind(1.0)))
        back = builder.select(large, kind(2.0**16), builder.select(small, kind(2.0**-16), kind(1.0)))
        scaled = product(given, by)
        third = builder.fptosi(product(builder.sitofp(builder.bitcast(scaled, whole), kind), 1 / 3), whole)
        y = builder.bitcast(builder.sub(whole(guess), third), kind)
        for _ in range(times):
            h = builder.fsub(kind(1.0), product(scaled, y, y, y))
            y = builder.fadd(y, product(y, h, builder.fadd(kind(1 / 3), product(h, 2 / 9))))
        square = product(y, y)
        c = product(scaled, square)
        lacks = builder.fsub(scaled, product(c, c, c))
        c = product(builder.fadd(c, product(lacks, square, 1 / 3)), back)
        inside = builder.and_(
            builder.fcmp_ordered(">", given, kind(0.0)), builder.fcmp_ordered("<", given, kind(math.inf))
        )
        below = builder.fcmp_ordered("<", given, kind(0.0))
        return builder.select(inside, c, builder.select(below, kind(math.nan), given))

    return x(x), generate


@intrinsic
def take(typing_context: Any, counter: Any, amount: Any) -> Any:
    """The number at a pointer to int64, raised by `amount` in the same instant for all threads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", *arguments, "seq_cst")

    return types.int64(types.CPointer(types.int64), types.int64), generate


@intrinsic
def call_kernel(
    typing_context: Any, kernel: Any, table: Any, pieces: Any, first: Any, last: Any, k: Any
) -> Any:
    """Call the kernel at an address. Pointers are handed on as the integers that they are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(64)
        function = ir.FunctionType(ir.VoidType(), [number] * 5)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.none(*[types.int64] * 6), generate


@intrinsic
def ask(typing_context: Any, function: Any, first: Any, second: Any) -> Any:
    """What the C function at an address says of two integers or addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(64)
        kind = ir.FunctionType(number, [number] * 2)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(*[types.int64] * 3), generate


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
