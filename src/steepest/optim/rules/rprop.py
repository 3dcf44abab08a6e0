"""Rprop: each coordinate has a step length of its own, which grows until the gradient turns round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.optim.rule import Number, Rule, depart


@dataclass(frozen=True)
class Rprop(Rule):
    """Steps that grow while the sign stays, and shrink where it turns; there, one step is left out.

    s ← s·grow where g·p > 0, s·shrink where g·p < 0, at least `shortest`, at most `longest`
    g ← 0 where g·p < 0   u = s·sign(g)   p ← g
    w ← w - u

    For gradients without noise.   lr: length of a coordinate's first step, in units of w; later ones go by s.
    State: p (the last gradient), s (2 floats per weight).
    Riedmiller & Braun 1993, doi:10.1109/ICNN.1993.298623, in the form Rprop⁻ of Igel & Hüsken 2000;
    equals torch.optim.Rprop, except where g·p is too small for a float: here its sign counts still."""

    lr: Number = 1e-2
    shrink: Number = 0.5
    grow: Number = 1.2
    shortest: Number = 1e-6
    longest: Number = 50.0

    slots = ("p", "s")
    follow = staticmethod(depart)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"first": xp.where(t == 1, self.lr, 0.0)}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, p: Any, s: Any) -> tuple[Any, ...]:
        agreement = xp.sign(g) * p
        s = k.first + s
        s = xp.where(agreement > 0, k.grow * s, xp.where(agreement < 0, k.shrink * s, s))
        s = xp.minimum(xp.maximum(s, k.shortest), k.longest)
        g = xp.where(agreement < 0, 0.0, g)
        return s * xp.sign(g), g, s
