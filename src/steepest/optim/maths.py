"""The closed vocabulary of update rules.

A rule is written in + - * / **, comparisons, the names of VOCABULARY (called on `xp`) and the functions of
this file. Each name has the same meaning in NumPy, torch, JAX, on scalars inside a compiled kernel, and in
HOST, plain floats; so that one body runs in all of them.
"""

import math
from types import SimpleNamespace
from typing import Any

VOCABULARY = ("abs", "exp", "expm1", "log", "maximum", "minimum", "sign", "sqrt", "where")


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _maximum(a: float, b: float) -> float:
    return a if a >= b or a != a else b


def _minimum(a: float, b: float) -> float:
    return a if a <= b or a != a else b


def _sign(x: float) -> float:
    return math.copysign(1.0, x) if abs(x) > 0 else x


def _where(condition: bool, a: float, b: float) -> float:
    return a if condition else b


HOST = SimpleNamespace(
    abs=abs,
    cos=math.cos,
    exp=math.exp,
    expm1=math.expm1,
    log=_log,
    maximum=_maximum,
    minimum=_minimum,
    sign=_sign,
    sqrt=math.sqrt,
    where=_where,
)
"""`xp` for once-a-step arithmetic: Python floats, hence float64. cos is there for schedules alone."""


WHOLE_VOCABULARY = (
    "sum", "mean", "max", "reshape", "swapaxes", "stack", "triu", "tril", "argsort", "take", "addmm",
    "zeros", "eye", "eigh", "qr", "svd", "solve_triangular", "normal", "cond",
)  # fmt: skip
"""What rules that see whole arrays may call on `xp` besides, as the array API means it:

sum, mean, max(x, axis=None | int | tuple, keepdims=False); reshape(x, shape); swapaxes(x, a, b);
stack(arrays, axis=0); triu(x); tril(x); argsort(x) along the last axis; take(x, indices, axis);
addmm(c, a, b, beta=1, alpha=1) → beta·c + alpha·a@b; zeros(shape, like=x); eye(n, like=x); eigh(x) → (values,
vectors); qr(x) → (q, r), reduced; svd(x) → (u, s, vh), reduced; solve_triangular(a, b, lower=False) → a⁻¹b;
normal(shape, seed, t, like=x) → standard normal numbers, of (seed, t) alone where t is no traced number;
cond(condition, f, g, *arrays) → f(*arrays) or g(*arrays). `like` gives dtype and device."""


def lerp(a: Any, b: Any, c: Any) -> Any:
    """The point a share c of the way from a to b.   a + c(b - a)"""
    return a + c * (b - a)


def debias(xp: Any, beta: Any, t: Any) -> Any:
    """Weight that a moving average of decay β has gathered after t steps.   1 - βᵗ

    Written -expm1(t·log β): 1 - β**t loses half its digits in float32, where a framework traces t."""
    return -xp.expm1(t * xp.log(beta))


def unless_zero(xp: Any, x: Any) -> Any:
    """A number to divide by: 1 in place of 0. NaN stays."""
    return xp.where(x == 0, 1.0, x)
