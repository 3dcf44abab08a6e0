"""The kernels, the compiled engine and the plain engine under the torch face."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from papers.problem import Problem

from peers import engines
from steepest.optim.engines import on_numba
from steepest.optim.engines.torch.optimizer import RuleOptimizer
from steepest.optim.rule import Rule

LAYOUTS = {
    "dense": lambda x: x,
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second": lambda x: torch.stack([x, torch.zeros_like(x)], -1)[..., 0],
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x,
}
"""Ways to lay the same numbers out."""


def runner(
    name: str,
    dtype: torch.dtype,
    layout: str = "dense",
    of_gradient: str = "dense",
    engine: str | None = None,
) -> engines.Run:
    """Weights of that type and layout, and gradients of one of their own."""

    def run(rule: Rule, start: list[np.ndarray], problem: Problem, steps: int) -> list[list[np.ndarray]]:
        weights = [LAYOUTS[layout](torch.tensor(w, dtype=dtype)).requires_grad_() for w in start]
        optimizer, path = RuleOptimizer(weights, rule, engine=engine), []
        for t in range(1, steps + 1):
            gs = problem.gradients([w.detach().double().numpy() for w in weights], t)
            for w, g in zip(weights, gs, strict=True):
                w.grad = LAYOUTS[of_gradient](torch.tensor(g, dtype=dtype))
            besides = engines.readings(rule, name, problem, t)
            reads = [[torch.tensor(x, dtype=dtype) for x in row] for row in besides]
            optimizer.step(reads=dict(zip(rule.extra_inputs, reads, strict=True)) or None)
            path.append([w.detach().double().numpy().copy() for w in weights])
        return path

    return run


def results() -> Iterator[dict[str, Any]]:
    """Every rule in kernels of two types, without kernels, and in the worst pair of layouts."""
    for name, setting, rule in engines.cases():
        own = {"setting": setting}
        for dtype in (torch.float32, torch.float64):
            engine = f"{'torch' if rule.whole else 'kernels'} {str(dtype)[6:]}"
            yield engines.result(engine, "sizes", name, rule, runner(name, dtype)) | own
        if not rule.whole:
            with mock.patch.object(on_numba, "table", return_value=None):
                yield engines.result("torch float64", "sizes", name, rule, runner(name, torch.float64)) | own
        if not (rule.whole or rule.sums):
            run = runner(name, torch.float32, engine="compiled")
            yield engines.result("torch compiled float32", "sizes", name, rule, run) | own
        found = [
            engines.result(
                "layouts", f"{one}, gradient {other}", name, rule, runner(name, torch.float64, one, other)
            )
            for one in LAYOUTS
            for other in ("dense", "transposed")
        ]
        yield max(found, key=lambda row: row["share"]) | own
