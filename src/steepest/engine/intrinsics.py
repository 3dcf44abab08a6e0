"""What Numba has no word for: memory that does not overlap, addresses, a shared counter, a call by address."""

from __future__ import annotations

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
