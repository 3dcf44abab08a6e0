"""From a rule to the source of its compiled kernels: one loop over elements, the rule's body inlined, and how
each array of a kernel's table is read and written in it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from steepest.optim.engines.kernels.compiled import SIGNATURE
from steepest.optim.engines.kernels.inline import XP, Body, K, NotInlinable
from steepest.optim.engines.kernels.intrinsics import NAMES
from steepest.optim.engines.precision.formats import BLOCK, FULL, NEAREST, Format
from steepest.optim.engines.precision.memory import Layout
from steepest.optim.maths import HOST
from steepest.optim.rule import Rule

ARITHMETIC = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "float32",
    torch.float16: "float32",
}
"""The dtypes of the weights that kernels move, and what kernels compute in."""

NUMBERS = 3
"""How many numbers stand in k after the constants of a step, where the layout is not plain: those of
`Memory.numbers`."""


def imported(*texts: str) -> str:
    """The line by which a kernel imports what these parts of its source use of `words`; empty for nothing."""
    found = set(re.findall(r"(\w+)\(", "\n".join(texts)))
    used = [name for name in ("scratch", *NAMES) if name in found]
    return f"from steepest.optim.engines.kernels.intrinsics import {', '.join(used)}\n" if used else ""


@dataclass(frozen=True)
class Column:
    """One array of a row: its name in the source, its format, and which random bits it takes."""

    name: str
    format: Format = FULL
    draw: int = 0

    @property
    def memory(self) -> str:
        """Numba's name of the type in memory."""
        return "T" if self.format is FULL else f"types.{self.format.memory}"

    def loaded(self) -> str:
        """The text of one element's number."""
        if self.format is FULL:
            return f"{self.name}[i]"
        floor = f", {self.name}_floor" if self.format.foot else ""
        return f"T({self.format.load}({self.name}[i]{floor}))"

    def stored(self, value: str) -> str:
        """The line that writes one element."""
        if self.format is FULL:
            return f"{self.name}[i] = {value}"
        arguments = [f"types.float32({value})"]
        if self.format.draws:
            word, second = divmod(self.draw, 2)
            arguments.append(f"{'high' if second else 'low'}(chance(i, a{word}, b{word}))")
        if self.format.foot:
            arguments.append(f"{self.name}_floor")
        return f"{self.name}[i] = {self.format.store}({', '.join(arguments)})"


class Columns:
    """Those of a rule, in order: w, g, what it reads (r0, …), slots (s0, …), scales of blocks, the others.

    After them, where the layout is not plain, comes the number of the weight, for its random bits."""

    def __init__(self, rule: Rule, dtype: torch.dtype, layout: Layout) -> None:
        near, formats = NEAREST.get(dtype, FULL), (*layout.slots, layout.weight)
        draws = [sum(one.draws for one in formats[:number]) for number in range(len(formats))]
        self.layout, self.words = layout, (sum(one.draws for one in formats) + 1) // 2
        self.w, self.g = Column("w", layout.weight, draws[-1]), Column("g", near)
        self.reads = [Column(f"r{number}", near) for number in range(len(rule.extra_inputs))]
        pairs = zip(layout.slots, draws, strict=False)
        self.slots = [Column(f"s{number}", *pair) for number, pair in enumerate(pairs)]
        self.blocks = [one for one in self.slots if one.format.foot]
        self.lost, self.average = Column("lost", near), Column("average")

    def arguments(self) -> dict[str, str]:
        """What makes each argument of the loop from its entry of the table, by name."""
        every = [self.w, self.g, *self.reads, *self.slots]
        made = {one.name: f"pointer({{}}, {one.memory})" for one in every}
        made |= {f"{one.name}_scale": "pointer({}, types.float32)" for one in self.blocks}
        extras = {one.name: f"pointer({{}}, {one.memory})" for one in (self.lost, self.average)}
        made |= {name: extras[name] for name in self.layout.extras}
        return made if self.layout.plain else made | {"place": "{}"}

    def numbers(self) -> list[str]:
        """The texts of one element's numbers: w, g, what the rule reads, the slots."""
        lost = f" + {self.lost.loaded()}" if "lost" in self.layout.extras else ""
        rest = [one.loaded() for one in (*self.reads, *self.slots)]
        return [f"{self.w.loaded()}{lost}", f"scale * {self.g.loaded()}", *rest]

    def stored(self, moved: str, new: list[str]) -> list[str]:
        """The lines that write what an update made of an element; of a slot in blocks, its number aside."""
        lines = []
        for one, value in zip(self.slots, new, strict=True):
            if one.format.foot:
                lines.append(f"{one.name}_room[i - first] = types.float32({value})")
                lines.append(f"{one.name}_top = larger({one.name}_top, top(types.float32({value})))")
            else:
                lines.append(one.stored(value))
        lines.append(self.w.stored(moved))
        if "lost" in self.layout.extras:
            lines.append(self.lost.stored(f"{moved} - {self.w.loaded()}"))
        if "average" in self.layout.extras:
            lines.append(f"average[i] = average[i] + share * ({moved} - average[i])")
        return lines

    def prepared(self, at: int) -> list[str]:
        """The lines before the loop that read the numbers from k[at + at…] on, and make room for a block."""
        lines = [f"share = T(k[at + {at}])"] * ("average" in self.layout.extras)
        step = f"types.uint32(k[at + {at + 1}]), types.uint32(k[at + {at + 2}]), place"
        for word in range(self.words):
            lines += [f"a{word} = first_key({step}, {word})", f"b{word} = second_key({step}, {word})"]
        return lines + [f"{one.name}_room = scratch()" for one in self.blocks]

    def opened(self) -> list[str]:
        """The lines at the start of a block."""
        return [line for one in self.blocks for line in (_floor(one), f"{one.name}_top = types.int32(0)")]

    def closed(self) -> tuple[list[str], list[str]]:
        """Those at the end of a block, and those of the loop over its elements that comes after them."""
        scales = [
            line
            for one in self.blocks
            for line in (f"{one.name}_scale[block] = scale_of({one.name}_top)", _floor(one))
        ]
        return scales, [one.stored(f"{one.name}_room[i - first]") for one in self.blocks]


def _floor(one: Column) -> str:
    return f"{one.name}_floor = {one.name}_scale[block] * types.float32({one.format.foot!r})"


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
