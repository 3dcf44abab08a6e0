"""The Keras face on the backend that KERAS_BACKEND names, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from papers.problem import Problem

from peers import engines
from steepest.keras import optimizer
from steepest.optim.engines.named_state import outputs_first, outputs_last
from steepest.optim.rule import Rule

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")


def run(rule: Rule, start: list[np.ndarray], problem: Problem, steps: int) -> list[list[np.ndarray]]:
    """Kernels have their outputs last in Keras."""
    variables = [keras.Variable(turned(rule, w), dtype="float64", name=f"w{i}") for i, w in enumerate(start)]
    groups = {} if rule.takes((2,)) else {"*": rule}
    made, path = optimizer(rule, groups, decay_all=True), []
    made.build(variables)
    for t in range(1, steps + 1):
        ws = [turned(rule, keras.ops.convert_to_numpy(w), back=True) for w in variables]
        gs = [keras.ops.convert_to_tensor(turned(rule, g)) for g in problem.gradients(ws, t)]
        made.apply(gs, variables)
        path.append([turned(rule, np.array(keras.ops.convert_to_numpy(w)), back=True) for w in variables])
    return path


def turned(rule: Rule, x: Any, back: bool = False) -> np.ndarray:
    """As Keras keeps a kernel; or as torch does."""
    x = np.asarray(x)
    if not rule.whole:
        return x
    return np.ascontiguousarray(x.transpose((outputs_first if back else outputs_last)(x.ndim)))


def results() -> Iterator[dict[str, Any]]:
    """Every rule that reads nothing besides the gradient."""
    for name, setting, rule in engines.cases():
        if not rule.extra_inputs:
            yield engines.result(f"keras {BACKEND}", "sizes", name, rule, run) | {"setting": setting}
