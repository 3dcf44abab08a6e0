"""From a rule to the source of its compiled kernels: one loop over elements, the rule's body inlined."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import torch

from steepest.optim.engines.kernels.columns import ARITHMETIC, Columns, imported
from steepest.optim.engines.kernels.compiled import SIGNATURE
from steepest.optim.engines.kernels.inline import XP, Body, K, NotInlinable
from steepest.optim.engines.precision.formats import BLOCK
from steepest.optim.engines.precision.memory import Layout
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

TEMPLATE = (
    '''"""{title} of {weights}. Written by steepest, which makes it anew where it is missing."""

import math

from numba import cfunc, njit, types
from numba import {dtype} as T

{words}from steepest.optim.engines.kernels.intrinsics import assume_apart, cube_root, pointer

CACHED = "__file__" in globals()


@njit(error_model="numpy", fastmath={{"reassoc"}})
def plus(total, addend):
    return total + types.float64(addend)


@njit(error_model="numpy")
def span(k, at, to, start, stop, {arrays}):
    assume_apart()
{before}
{loop}
{after}


'''
    + SIGNATURE
    + """def kernel(table, pieces, first, last, k):
    for piece in range(first, last):
        row, start = pieces[4 * piece], pieces[4 * piece + 1]
        stop, at = pieces[4 * piece + 2], pieces[4 * piece + 3]
        span(k, at, {sums} * piece, start, stop, {columns})
"""
)
"""`span` does one piece of one weight: at, where its constants lie in k; to, where its sums go. Only the
order of a piece's sum is left to the compiler, which fixes it; NaN and infinity stay."""

LOOP = """for i in range(start, stop):
{body}"""

BLOCKS = f"""for block in range(start // {BLOCK}, (stop + {BLOCK - 1}) // {BLOCK}):
    first, end = {BLOCK} * block, min({BLOCK} * (block + 1), stop)
{{opened}}
    for i in range(first, end):
{{body}}
{{closed}}"""
"""The loop where a slot is kept in blocks: the numbers of a block are written when its scale is known."""

CODES = """{scales}
for i in range(first, end):
{codes}"""


def source(rule: Rule, dtype: torch.dtype, layout: Layout, clears: bool = False) -> str:
    """Source of the module whose `kernel(table, pieces, first, last, k)` updates weights of a dtype.

    table: a row a weight: the addresses of w, g, what the rule reads and the slots; in other layouts than the
    plain one more (see Columns). pieces: (row, start, stop, at), at being the place in k of what the gradient
    is multiplied by and, after it, of the constants of the step; first and last bound the pieces to do.
    clears: gradients are 0 afterwards. Raises NotInlinable."""
    columns, body = Columns(rule, dtype, layout), Body(rule)
    moved, *new = body.call(rule.update, [XP, K, *map(body.bind, columns.numbers())])
    if len(new) != len(columns.slots):
        raise NotInlinable(f"{type(rule).__name__} gives another number of arrays than it has slots")
    body.lines += columns.stored(moved, new)
    body.lines += [f"g[i] = {columns.g.memory}(0)"] * clears
    scales, codes = columns.closed()
    closed = CODES.format(scales="\n".join(scales), codes=_indented(codes, 1)) if codes else ""
    return _module(f"Update by {type(rule).__name__}", rule, dtype, body, columns, closed)


def source_of_sums(rule: Rule, dtype: torch.dtype, layout: Layout) -> str:
    """The same for a kernel that writes nothing but the addends of `rule.measure`, summed in float64.

    The sums of piece n stand in k from n·len(rule.sums) on."""
    columns, body = Columns(rule, dtype, layout), Body(rule)
    addends = body.call(rule.addends, [XP, K, *map(body.bind, columns.numbers())])
    if len(addends) != len(rule.sums):
        raise NotInlinable(f"{type(rule).__name__} measures another number of sums than it names")
    totals = [f"total{number}" for number in range(len(addends))]
    body.lines += [
        f"{total} = plus({total}, {addend})" for total, addend in zip(totals, addends, strict=True)
    ]
    return _module(f"Sums of {type(rule).__name__}", rule, dtype, body, columns, totals=totals)


def constants_of(rule: Rule) -> tuple[str, ...]:
    """Names of the constants of a step, in order. Those that `measure` may read come first."""
    return rule.constants(HOST, 1, rule.shared, 1, [1.0] * len(rule.sums))[0]._fields


def _module(
    title: str,
    rule: Rule,
    dtype: torch.dtype,
    body: Body,
    columns: Columns,
    closed: str = "",
    totals: Sequence[str] = (),
) -> str:
    names, arguments = constants_of(rule), columns.arguments()
    before = ["scale = T(k[at])"]
    before += [f"k_{name} = T(k[at + {n}])" for n, name in enumerate(names, 1) if name in body.constants]
    before += columns.prepared(1 + len(names))
    before += [f"{total} = 0.0" for total in totals]
    pointers = [
        made.format(f"table[{len(arguments)} * row + {n}]") for n, made in enumerate(arguments.values())
    ]
    loop = _loop(columns, body.lines, closed)
    return TEMPLATE.format(
        title=title,
        weights=str(dtype).removeprefix("torch."),
        dtype=ARITHMETIC[dtype],
        words=imported(loop, *before),
        arrays=", ".join(arguments),
        columns=", ".join(pointers),
        before=_indented(before, 1),
        loop=textwrap.indent(loop, "    "),
        after=_indented([f"k[to + {n}] = {total}" for n, total in enumerate(totals)], 1),
        sums=len(totals),
    )


def _loop(columns: Columns, lines: Sequence[str], closed: str) -> str:
    if not columns.blocks:
        return LOOP.format(body=_indented(lines, 1))
    opened = _indented(columns.opened(), 1)
    return BLOCKS.format(opened=opened, body=_indented(lines, 2), closed=textwrap.indent(closed, "    "))


def _indented(lines: Sequence[str], depth: int) -> str:
    return textwrap.indent("\n".join(lines), depth * "    ")
