"""From a rule to the source of its compiled kernel: one loop over elements, the rule's body inlined."""

from __future__ import annotations

import textwrap

from steepest.engine.inline import XP, Body, K, NotInlinable
from steepest.engine.kernel_cache import SIGNATURE
from steepest.maths import HOST
from steepest.rule import Rule

TEMPLATE = (
    '''"""Update by {name} in {dtype}. Written by steepest, which makes it anew where it is missing."""

import math

from numba import cfunc, njit, types
from numba import {dtype} as T

from steepest.engine.intrinsics import assume_apart

CACHED = "__file__" in globals()


@njit(error_model="numpy")
def span(k, start, stop, {arrays}):
    assume_apart()
{constants}
    for i in range(start, stop):
{body}


'''
    + SIGNATURE
    + """def kernel(table, pieces, first, last, k):
    for piece in range(first, last):
        row = {width} * pieces[3 * piece]
        span(k, pieces[3 * piece + 1], pieces[3 * piece + 2], {columns})
"""
)


def source(rule: Rule, dtype: str) -> str:
    """Source of the module that holds `kernel(table, pieces, first, last, k)` for "float32" or "float64".

    table: addresses, a row a weight: w, g, then the slots. pieces: (row, start, stop) of elements; first and
    last bound the pieces to do. k: what the gradient is multiplied by, then the constants of the step.
    Raises NotInlinable."""
    fields = rule.constants(HOST, 1, rule.shared)[0]._fields
    slots = [f"s{number}" for number in range(len(rule.slots))]
    body = Body(rule)
    old = [body.bind(f"{slot}[i]") for slot in slots]
    w, g = body.bind("w[i]"), body.bind("scale * g[i]")
    moved, *new = body.call(rule.update, [XP, K, w, g, *old])
    if len(new) != len(slots):
        raise NotInlinable(f"{type(rule).__name__} gives another number of arrays than it has slots")
    body.lines += [f"{name}[i] = {value}" for name, value in zip(["w", *slots], [moved, *new], strict=True)]
    constants = ["scale = T(k[0])"]
    constants += [f"k_{name} = T(k[{n}])" for n, name in enumerate(fields, 1) if name in body.constants]
    arrays = ["w", "g", *slots]
    return TEMPLATE.format(
        name=type(rule).__name__,
        dtype=dtype,
        arrays=", ".join(arrays),
        width=len(arrays),
        columns=", ".join(f"table[row + {column}]" for column in range(len(arrays))),
        constants=textwrap.indent("\n".join(constants), "    "),
        body=textwrap.indent("\n".join(body.lines), "        "),
    )
