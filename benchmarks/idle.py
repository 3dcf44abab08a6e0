"""The limit of an update: a rule that reads and writes the same arrays and computes next to nothing.

It goes through the same engine: the same kernels, pieces and threads."""

from __future__ import annotations

import re
from typing import Any

import torch

from steepest.optim.engines.kernels.source import source
from steepest.optim.engines.precision.memory import Memory, layout
from steepest.optim.rule import Rule


def arrive(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """w ← u"""
    return u


def no_slot(xp: Any, k: Any, w: Any, g: Any) -> Any:
    """x ← x + g for the weight and every slot; what is only read goes the same way."""
    return (w + g,)


def one_slot(xp: Any, k: Any, w: Any, g: Any, a: Any) -> Any:
    """The same."""
    return w + g, a + g


def two_slots(xp: Any, k: Any, w: Any, g: Any, a: Any, b: Any) -> Any:
    """The same."""
    return w + g, a + g, b + g


def two_slots_and_one_read(xp: Any, k: Any, w: Any, g: Any, r: Any, a: Any, b: Any) -> Any:
    """The same."""
    return w + r, a + g, b + g


def three_slots(xp: Any, k: Any, w: Any, g: Any, a: Any, b: Any, c: Any) -> Any:
    """The same."""
    return w + g, a + g, b + g, c + g


def four_slots(xp: Any, k: Any, w: Any, g: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The same."""
    return w + g, a + g, b + g, c + g, d + g


BODIES = {
    (0, 0): no_slot,
    (1, 0): one_slot,
    (2, 0): two_slots,
    (2, 1): two_slots_and_one_read,
    (3, 0): three_slots,
    (4, 0): four_slots,
}
"""By the number of slots that are written and of arrays that are only read."""


def idle(rule: Rule) -> Rule:
    """What moves the same bytes as this rule, and nothing else."""
    written = _written(rule)
    read = len(rule.slots) - written + len(rule.extra_inputs)
    entries = {
        "slots": tuple(f"s{number}" for number in range(written)),
        "reads": ("r",) * read,
        "direction": staticmethod(BODIES[written, read]),
        "follow": staticmethod(arrive),
    }
    return type(f"Idle{written}{read}", (Rule,), entries)(lr=1.0)


def _written(rule: Rule) -> int:
    """How many of the slots are written with anything but what was read from them."""
    text = source(rule, torch.float32, layout(type(rule), Memory(), torch.float32))
    loaded = dict(re.findall(r"(\w+) = (s\d+\[i\])\n", text))
    stored = re.findall(r"(s\d+\[i\]) = (\w+)\n", text)
    return sum(loaded.get(name) != place for place, name in stored)
