"""Orthogonalising a matrix: all its singular values brought near 1, its singular vectors kept."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Any, cast

from steepest.optim.maths import lerp
from steepest.optim.quantity import choice
from steepest.optim.rules.shapes import norm, ratio, transposed

Polynomial = tuple[float, float, float]
GUARD = 1e-7
"""What keeps the norm of a zero matrix from dividing, where a rule has no number for it."""

_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
SAFETY = 1.01
"""By how much Polar Express keeps away from the end of the interval that its polynomials are made for."""

COEFFICIENTS: dict[str, tuple[Polynomial, ...]] = {
    "jordan": ((3.4445, -4.7750, 2.0315),),
    "quintic": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": (
        *((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in _EXPRESS),
        (1.875, -1.25, 0.375),
    ),
}
"""Name → (a, b, c) of each step of x ← ax + bx³ + cx⁵; the last is repeated.

jordan: Jordan 2024, singular values from 0.7 to 1.2; quintic: those of modded-nanogpt, one a step;
polar_express: Amsel et al. 2025, arXiv:2505.16932, algorithm 1, which goes on to 1."""


def check(rule: Any) -> None:
    """UserError where a rule's coefficients are neither a name that is known nor three numbers (a, b, c)."""
    given: Any = rule.coefficients
    if not (isinstance(given, tuple) and list(map(type, cast(tuple[Any, ...], given))) == [float] * 3):
        choice(f"{type(rule).__name__}'s coefficients", given, COEFFICIENTS)


def orthogonal(xp: Any, x: Any, steps: int, coefficients: Any, eps: Any = GUARD) -> Any:
    """Matrices (…, rows, cols) with singular values near 1.
    x ← x/(‖x‖+eps), then in each step x ← a·x + (b·xxᵀ + c·(xxᵀ)²)·x"""
    tall = x.shape[-2] > x.shape[-1]
    x = transposed(xp, x) if tall else x
    length = norm(xp, x, axis=(-2, -1), keepdims=True)
    x = x / (SAFETY * length + eps) if coefficients == "polar_express" else x / (length + eps)
    for a, b, c in _polynomials(steps, coefficients):
        square = x @ transposed(xp, x)
        x = xp.addmm(x, xp.addmm(square, square, square, b, c), x, a, 1.0)
    return transposed(xp, x) if tall else x


def looked_ahead(k: Any, g: Any, m: Any, nesterov: bool) -> Any:
    """Momentum, or where it will be: Nesterov's.   g + momentum·(m - g)"""
    return lerp(g, m, k.momentum) if nesterov else m


def evened(xp: Any, x: Any) -> Any:
    """Matrices of root mean square 0.2, that of a typical step of AdamW.   0.2·√(rows·cols)·x/‖x‖"""
    wanted = 0.2 * sqrt(x.shape[-2] * x.shape[-1])
    return ratio(xp, wanted * x, norm(xp, x, axis=(-2, -1), keepdims=True))


def _polynomials(steps: int, coefficients: str | Polynomial) -> Iterator[Polynomial]:
    known = COEFFICIENTS[coefficients] if isinstance(coefficients, str) else (coefficients,)
    return (known[min(step, len(known) - 1)] for step in range(steps))
