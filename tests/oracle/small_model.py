"""A few weights and fixed gradients, and where the reference engine takes them: for tests of the faces."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from steepest import rules
from steepest.optim.engines import on_numpy
from steepest.optim.engines.on_numpy import NUMPY
from steepest.optim.rule import Rule

STEPS = 20
SHAPES = {"a": (3, 4), "b": (5,), "c": (0,)}
NAMES = sorted(rules.registry())
KNOBS = {
    "weight_decay": 0.1,
    "eps": 1e-3,
    "damping": 1e-3,
    "lr": 0.01,
    "initial": 0.01,
    "reps": 0.1,
    "trust": 0.1,
}
"""Every number that is large enough to be seen, and no denominator that is a rounding error."""


def rule_of(name: str) -> Rule:
    known = [field.name for field in fields(rules.registry()[name])]
    return rules.named(name, **{knob: value for knob, value in KNOBS.items() if knob in known})


def shapes_of(rule: Rule) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in SHAPES.items() if rule.takes(shape)}


def start(rule: Rule) -> dict[str, np.ndarray]:
    """Weights that float32 holds exactly."""
    draw = np.random.default_rng(0)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes_of(rule).items()}


def gradients(rule: Rule, t: int) -> dict[str, np.ndarray]:
    """Numbers that float32 holds exactly, and away from zero, where a sign would be a rounding error."""
    draw = np.random.default_rng([7, t])
    return {
        name: (draw.uniform(0.5, 2, shape) * draw.choice([-1, 1], shape)).astype(np.float32)
        for name, shape in shapes_of(rule).items()
    }


def reads(rule: Rule, t: int) -> dict[str, dict[str, np.ndarray]]:
    """What the rule reads besides: the sizes of the gradients."""
    return {word: {name: np.abs(g) for name, g in gradients(rule, t).items()} for word in rule.extra_inputs}


@cache
def reference(rule: Rule, turned: bool = False, nudge: float = 0.0) -> dict[str, np.ndarray]:
    """The weights after all steps; turned: kernels lie as (in, out); nudge: relative error of gradients."""
    see = np.transpose if turned and rule.whole else np.asarray
    rows = {name: (see(w), *rule.init(NUMPY, see(w.astype(float)))) for name, w in start(rule).items()}
    shared = [dict(rule.shared) for _ in rows]
    for t in range(1, STEPS + 1):
        draw, own = np.random.default_rng(t), gradients(rule, t)
        grads = {name: see(g * (1 + draw.choice([-nudge, nudge], g.shape))) for name, g in own.items()}
        more = {name: [see(x[name]) for x in reads(rule, t).values()] for name in rows}
        arrays = [(w, grads[name], *more[name], *slots) for name, (w, *slots) in rows.items()]
        moved, shared = on_numpy.step_all(rule, t, t, arrays, shared)
        rows = dict(zip(rows, moved, strict=True))
    return {name: see(w) for name, (w, *_) in rows.items()}


def in_single(rule: Rule) -> Rule:
    """The rule as a framework has it whose numbers are float32: 1 - 0.9999 is then off by up to 3e-4."""
    return replace(rule, **{name: float(np.float32(getattr(rule, name))) for name in rule.numbers()})


def tolerance(rule: Rule, eps: float, turned: bool = False) -> float:
    """A few roundings a step of the largest weight, what the rule makes of roundings of its gradients, and
    what comes of rounding its numbers."""
    exact = reference(rule, turned)
    largest = max(np.abs(w).max(initial=1) for w in exact.values())
    nudged, rounded = reference(rule, turned, eps), reference(in_single(rule), turned)
    off, at_once = (
        max(np.abs(w - other[name]).max(initial=0) for name, w in exact.items())
        for other in (nudged, rounded)
    )
    return 8 * STEPS * (eps * largest + off) + 2 * at_once


def assert_near(found: dict[str, Any], rule: Rule, eps: float, turned: bool = False) -> None:
    """The weights are those of the reference, which moved far enough for this to mean something."""
    exact, atol = reference(rule, turned), tolerance(rule, eps, turned)
    moved = max(np.abs(exact[name] - w).max(initial=0) for name, w in start(rule).items())
    assert moved > 10 * atol, f"moved {moved}, and {atol} are allowed: the test sees nothing"
    for name, w in exact.items():
        np.testing.assert_allclose(np.asarray(found[name], np.float64), w, rtol=0, atol=atol, err_msg=name)


def noise(cos: Callable[[Any], Any], array: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A stand-in for xp.normal that is the same in every framework, t traced or not."""

    def normal(shape: tuple[int, ...], seed: int, t: Any, like: Any) -> Any:
        places = 1.7 * (np.arange(np.prod(shape)).reshape(shape) ** 2 % 97)
        return cos(array(places, like.dtype) + seed + t)

    return normal


def with_common_noise(monkeypatch: Any, xp: SimpleNamespace, array: Callable[[Any, Any], Any]) -> None:
    """Let the reference engine and another draw the same numbers; array(numbers, dtype): the other's."""
    monkeypatch.setattr(NUMPY, "normal", noise(np.cos, np.asarray))
    monkeypatch.setattr(xp, "normal", noise(xp.cos, array))
