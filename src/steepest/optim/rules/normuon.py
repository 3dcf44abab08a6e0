"""Muon with a second moment behind it: by row (NorMuon) or by element (AdaMuon)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.orthogonal import check, evened, looked_ahead, orthogonal
from steepest.optim.rules.shapes import is_matrix, matrix, refuse


@dataclass(frozen=True)
class _Evened(Rule):
    """What both have in common: all but what v is the second moment of."""

    lr: Number = 1e-3
    momentum: Number = 0.95
    beta2: Number = 0.95
    eps: Number = 1e-8
    weight_decay: Number = 0.1
    steps: int = 5
    nesterov: bool = False
    coefficients: str = "jordan"
    batch_axes: int = 0

    slots = ("m", "v")
    signed = ("m",)
    whole = True
    follow = staticmethod(descend_and_decay)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self)

    def takes(self, shape: Sequence[int]) -> bool:
        return is_matrix(shape, self.batch_axes)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.momentum, "c2": 1 - self.beta2}


@dataclass(frozen=True)
class NorMuon(_Evened):
    """Muon whose rows, the neurons, are brought to one size.   m ← momentum·m + (1-momentum)·g
    o = m with its singular values brought near 1   v ← β₂v+(1-β₂)·mean of o² over the row   d = o/(√v+ε)
    u = 0.2·√(rows·cols)·d/‖d‖   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    lr: five times the root mean square of a step, in units of w; AdamW's.
    State: m (1 float per weight), v (1 float a row).
    Li et al. 2025, arXiv:2510.05491, algorithm 1; the authors' code has nesterov=True."""

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        return xp.zeros_like(w), xp.zeros((*matrix(w.shape, self.batch_axes)[:-1], 1), w)

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        ahead = xp.reshape(looked_ahead(k, g, m, self.nesterov), matrix(w.shape, self.batch_axes))
        o = orthogonal(xp, ahead, self.steps, self.coefficients)
        v = lerp(v, xp.mean(o * o, axis=-1, keepdims=True), k.c2)
        return xp.reshape(evened(xp, o / (xp.sqrt(v) + k.eps)), w.shape), m, v


@dataclass(frozen=True)
class AdaMuon(_Evened):
    """Muon of the momentum's signs, with Adam's second moment behind it.   m ← momentum·m + (1-momentum)·g
    o = sign(m) with its singular values brought near 1   v ← β₂v+(1-β₂)·o²   d = o/(√v+ε)
    u = 0.2·√(rows·cols)·d/‖d‖   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    lr: five times the root mean square of a step, in units of w; AdamW's.
    State: m, v (2 floats per weight).
    Si, Zhang & Shen 2025, arXiv:2507.11005, algorithm 1."""

    positive = ("v",)
    shardable = True

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        return xp.zeros_like(w), xp.zeros_like(w)

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        shape = matrix(w.shape, self.batch_axes)
        m = lerp(m, g, k.c1)
        signs = xp.reshape(xp.sign(looked_ahead(k, g, m, self.nesterov)), shape)
        o = xp.reshape(orthogonal(xp, signs, self.steps, self.coefficients), w.shape)
        v = lerp(v, o * o, k.c2)
        return xp.reshape(evened(xp, xp.reshape(o / (xp.sqrt(v) + k.eps), shape)), w.shape), m, v
