"""What Numba has no word for: memory that does not overlap, addresses, cube roots, counters, calls."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


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
