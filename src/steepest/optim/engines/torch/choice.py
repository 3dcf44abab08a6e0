"""Which engine moves a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from steepest.optim.engines import on_compiled, on_numba
from steepest.optim.engines.precision.memory import Layout
from steepest.optim.errors import UserError
from steepest.optim.rule import Rule

NUMBA, TORCH, COMPILED = ENGINES = ("numba", "torch", "compiled")


def known(engine: str | None) -> str | None:
    """The engine as asked for; UserError where there is none of that name."""
    if engine is not None and engine not in ENGINES:
        raise UserError(
            f"engine must be one of {', '.join(map(repr, ENGINES))}, or None, which chooses by the device; "
            f"got {engine!r}."
        )
    return engine


def of_device(engine: str | None, device: str) -> str:
    """The engine for weights on a type of device: as asked for, else by what the device is."""
    return engine or (NUMBA if device == "cpu" else COMPILED)


def by_engine(
    engine: str | None,
    rule: Rule,
    rows: Sequence[int],
    weights: Mapping[int, torch.Tensor],
    slots: Mapping[int, Any],
    layouts: Mapping[int, Layout],
) -> dict[tuple[Layout, torch.dtype | None, bool], list[int]]:
    """The rows by layout, by the dtype of the kernels for them (None: no kernel may touch them), and whether
    compiled torch is to move them. Rows of neither go through plain torch."""
    found: dict[tuple[Layout, torch.dtype | None, bool], list[int]] = {}
    for (own, dtype), some in on_numba.by_layout(rows, weights, slots, layouts).items():
        for row in some:
            w = weights[row]
            way = of_device(engine, w.device.type)
            compiled = way == COMPILED and on_compiled.suits(rule, w, slots[row], own)
            found.setdefault((own, dtype if way == NUMBA else None, compiled), []).append(row)
    return found
