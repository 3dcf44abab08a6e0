"""`Facts`: what a program must know of a run; `Piece`: a part of a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from steepest.recipe import Recipe


@dataclass(frozen=True)
class Facts:
    """A run, as its folder tells it.

    name       of the folder;   place  its path
    recipe     its settings, the chosen ones in the place of "auto"
    course     {"warmup", "begin", "total"}, steps of the course of the rate that a search has laid out; or {}
    shape      of one example's inputs;   outputs  of the network
    model      the network, where it was an object and is at hand
    class_weight  how much an example of each class counts, where a person has said; or None
    steps      updates that the course of the rate counts on
    per_epoch  updates an epoch
    notes      what the folder does not tell, one clause each"""

    name: str
    place: str
    recipe: Recipe
    course: Mapping[str, int]
    shape: Any
    outputs: int
    model: nn.Module | None
    class_weight: list[float] | None
    steps: int
    per_epoch: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Some definitions with what they need.

    imports    whole lines
    constants  NAME → (value as code, what it is)
    notes      what of the run the program does not do, or does otherwise, one clause each"""

    code: str
    imports: tuple[str, ...] = ()
    constants: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def fill_in(function: str, what: str) -> str:
    """The line at which a program ends where something of the run was an object of Python."""
    return f"raise SystemExit({f'{function}: fill in {what}'!r})"


def in_docstring(text: str) -> str:
    """A text as it can stand between three quotes, whatever names of a folder or an object it holds."""
    return text.replace("\\", "\\\\").replace('"', "'")
