"""The JAX engine under the optax face, jitted, in 64 bits and 32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from papers.problem import Problem

from peers import engines
from steepest.optax import transformation
from steepest.optim.engines import on_jax
from steepest.optim.engines.on_numpy import normal
from steepest.optim.rule import Rule

jax.config.update("jax_enable_x64", True)
DRAWING = ("kron", "apollo")
"""Rules that draw at every step: run without jit, where the step is a number, to draw as the oracle."""


def runner(name: str, dtype: Any) -> engines.Run:
    """Weights of that type."""

    def run(rule: Rule, start: list[np.ndarray], problem: Problem, steps: int) -> list[list[np.ndarray]]:
        made = transformation(rule, kernels="out_in")
        ws: Any = [jnp.asarray(w, dtype) for w in start]
        state, path = made.init(ws), []
        update = made.update if name in DRAWING else jax.jit(made.update)
        for t in range(1, steps + 1):
            gs = [jnp.asarray(g, dtype) for g in problem.gradients([np.float64(w) for w in ws], t)]
            reads = engines.readings(rule, name, problem, t)
            named = {
                key: [jnp.asarray(x, dtype) for x in row]
                for key, row in zip(rule.extra_inputs, reads, strict=True)
            }
            updates, state = update(gs, state, ws, **named)
            ws = optax.apply_updates(ws, updates)
            path.append([np.float64(w) for w in ws])
        return path

    return run


def drawn(shape: Any, seed: int, t: Any, like: Any) -> jax.Array:
    return jnp.asarray(normal(tuple(shape), seed, int(t)), like.dtype)


def results() -> Iterator[dict[str, Any]]:
    """Every rule in both types."""
    with mock.patch.object(on_jax.JAX, "normal", drawn):
        for name, setting, rule in engines.cases():
            for dtype in (jnp.float32, jnp.float64):
                engine = f"jax {dtype.__name__}"
                yield engines.result(engine, "sizes", name, rule, runner(name, dtype)) | {"setting": setting}
