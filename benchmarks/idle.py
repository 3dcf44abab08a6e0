"""The limit of an update: a rule that reads and writes the same arrays and computes nothing.

It goes through the same engine: the same kernels, pieces and threads."""

from __future__ import annotations

import re
from typing import Any

import torch

from steepest.engine.kernel_source import source
from steepest.engine.memory import Memory, layout
from steepest.rule import Rule


def arrive(xp: Any, k: Any, w: Any, u: Any) -> Any:
    """w ← u"""
    return u


def alone(xp: Any, k: Any, w: Any, g: Any) -> Any:
    """Without slots."""
    return (w + g,)


def round_about(xp: Any, k: Any, w: Any, g: Any, *slots: Any) -> Any:
    """Every array into the next one; one addition, that all of them are read."""
    *first, last = slots
    return (g + last, w, *first)


def round_about_and_read(xp: Any, k: Any, w: Any, g: Any, r: Any, *slots: Any) -> Any:
    """The same with an array that is only read."""
    *first, last = slots
    return (g + last + r, w, *first)


def idle(rule: Rule) -> Rule:
    """What moves the same bytes as this rule, and nothing else."""
    written = _written(rule)
    read = len(rule.slots) - written + len(rule.reads)
    body = round_about_and_read if read else round_about
    entries = {
        "slots": tuple(f"s{number}" for number in range(written)),
        "reads": ("r",) * read,
        "direction": staticmethod(body if written else alone),
        "follow": staticmethod(arrive),
    }
    return type(f"Idle{written}{read}", (Rule,), entries)(lr=1.0)


def _written(rule: Rule) -> int:
    """How many of the slots are written with anything but what was read from them."""
    text = source(rule, torch.float32, layout(type(rule), Memory(), torch.float32))
    loaded = dict(re.findall(r"(\w+) = (s\d+\[i\])\n", text))
    stored = re.findall(r"(s\d+\[i\]) = (\w+)\n", text)
    return sum(loaded.get(name) != place for place, name in stored)
