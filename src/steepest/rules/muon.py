"""Muon: momentum made orthogonal, in the three scales that libraries use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from steepest.maths import lerp
from steepest.rule import Number, Rule, descend_and_decay
from steepest.rules.orthogonal import check, longest_side, looked_ahead, orthogonal
from steepest.rules.shapes import is_matrix, matrix, refuse


def _made(self: Any) -> None:
    Rule.__post_init__(self)
    check(self)


def _takes(self: Any, shape: Sequence[int]) -> bool:
    return is_matrix(shape, self.batch_axes)


def _init(self: Any, xp: Any, w: Any) -> tuple[Any, ...]:
    refuse(self, w.shape)
    return (xp.zeros_like(w),)


def _scalars(self: Any, xp: Any, t: Any) -> dict[str, Any]:
    return {"c1": 1 - self.momentum}


def _direction(self: Any, xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, Any]:
    """(the orthogonal form of the momentum, in the shape of w; the momentum)."""
    m = lerp(m, g, k.c1)
    ahead = xp.reshape(looked_ahead(k, g, m, self.nesterov), matrix(w.shape, self.batch_axes))
    return xp.reshape(orthogonal(xp, ahead, self.steps, self.coefficients, k.eps), w.shape), m


@dataclass(frozen=True)
class Muon(Rule):
    """Momentum made orthogonal, in Jordan's scale.   m ← momentum·m + (1-momentum)·g   d = g + momentum·(m-g)
    u = √max(1, rows/cols)·d with its singular values brought near 1   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    Most singular values come to lie in 0.7…1.2 in 5 steps of "jordan", near 1 in more of "polar_express".
    lr: spectral norm of a step, in units of w.   State: m (1 float per weight).
    Jordan et al. 2024, kellerjordan.github.io/posts/muon;
    equals torch.optim.Muon, which computes in bfloat16."""

    lr: Number = 0.02
    momentum: Number = 0.95
    eps: Number = 1e-7
    weight_decay: Number = 0.0
    steps: int = 5
    nesterov: bool = True
    coefficients: str | tuple[float, float, float] = "jordan"
    batch_axes: int = 0

    slots = ("m",)
    signed = ("m",)
    whole = True
    beside = 0.015
    __post_init__, takes, init, scalars = _made, _takes, _init, _scalars
    follow = staticmethod(descend_and_decay)

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        rows, cols = matrix(w.shape, self.batch_axes)[-2:]
        u, m = _direction(self, xp, k, w, g, m)
        return sqrt(max(1.0, rows / cols)) * u, m


@dataclass(frozen=True)
class MuonMatched(Rule):
    """Muon with steps as long as AdamW's, so that one rate and one decay serve a whole model.
    m ← momentum·m + (1-momentum)·g   d = g + momentum·(m-g)
    u = 0.2·√max(rows, cols)·d with its singular values brought near 1   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    lr: five times the root mean square of a step, in units of w; AdamW's.   State: m (1 float per weight).
    Liu et al. 2025, arXiv:2502.16982, section 2.2;
    equals torch.optim.Muon(adjust_lr_fn="match_rms_adamw"), which computes in bfloat16."""

    lr: Number = 1e-3
    momentum: Number = 0.95
    eps: Number = 1e-7
    weight_decay: Number = 0.1
    steps: int = 5
    nesterov: bool = True
    coefficients: str | tuple[float, float, float] = "jordan"
    batch_axes: int = 0

    slots = ("m",)
    signed = ("m",)
    whole = True
    __post_init__, takes, init, scalars = _made, _takes, _init, _scalars
    follow = staticmethod(descend_and_decay)

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        u, m = _direction(self, xp, k, w, g, m)
        return 0.2 * longest_side(w.shape, self.batch_axes) * u, m


@dataclass(frozen=True)
class MuonSpectral(Rule):
    """Muon in the scale that carries over from narrow models to wide ones.
    m ← momentum·m + (1-momentum)·g   d = g + momentum·(m-g)
    u = √(rows/cols)·d with its singular values brought near 1   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    lr: largest change of an output's root mean square for an input's of 1.   State: m (1 float per weight).
    Bernstein 2025, jeremybernste.in/writing/deriving-muon; equals microsoft/dion's
    Muon(adjust_lr="spectral_norm") and timm's Muon(adjust_lr_fn="rms_to_rms")."""

    lr: Number = 0.02
    momentum: Number = 0.95
    eps: Number = 1e-7
    weight_decay: Number = 0.0
    steps: int = 5
    nesterov: bool = True
    coefficients: str | tuple[float, float, float] = "jordan"
    batch_axes: int = 0

    slots = ("m",)
    signed = ("m",)
    whole = True
    beside = 0.015
    __post_init__, takes, init, scalars = _made, _takes, _init, _scalars
    follow = staticmethod(descend_and_decay)

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        rows, cols = matrix(w.shape, self.batch_axes)[-2:]
        u, m = _direction(self, xp, k, w, g, m)
        return sqrt(rows / cols) * u, m
