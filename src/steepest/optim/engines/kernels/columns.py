"""The columns of a kernel's table: how each array is read and written in the source of a kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from steepest.optim.engines.kernels.words import NAMES
from steepest.optim.engines.precision.formats import FULL, NEAREST, Format
from steepest.optim.engines.precision.memory import Layout
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
    return f"from steepest.optim.engines.kernels.words import {', '.join(used)}\n" if used else ""


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
        self.reads = [Column(f"r{number}", near) for number in range(len(rule.reads))]
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
