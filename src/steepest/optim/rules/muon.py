"""Muon: momentum made orthogonal, in the three scales that libraries use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.orthogonal import check, looked_ahead, orthogonal
from steepest.optim.rules.shapes import is_matrix, matrix, refuse


@dataclass(frozen=True)
class _Muon(Rule):
    """What the three have in common: all but the length of a step."""

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
    whole, shardable = True, True
    follow = staticmethod(descend_and_decay)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self)

    def takes(self, shape: Sequence[int]) -> bool:
        return is_matrix(shape, self.batch_axes)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        return (xp.zeros_like(w),)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.momentum}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        shape = matrix(w.shape, self.batch_axes)
        m = lerp(m, g, k.c1)
        d = xp.reshape(looked_ahead(k, g, m, self.nesterov), shape)
        near = xp.reshape(orthogonal(xp, d, self.steps, self.coefficients, k.eps), w.shape)
        return self._scale(*shape[-2:]) * near, m

    def _scale(self, rows: int, cols: int) -> float:
        """How long a step of such matrices is at lr = 1: their spectral norm."""
        raise NotImplementedError


@dataclass(frozen=True)
class Muon(_Muon):
    """Momentum made orthogonal, in Jordan's scale.   m ← momentum·m + (1-momentum)·g   d = g + momentum·(m-g)
    u = √max(1, rows/cols)·d with its singular values brought near 1   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    Most singular values come to lie in 0.7…1.2 in 5 steps of "jordan", near 1 in more of "polar_express".
    lr: spectral norm of a step, in units of w.   State: m (1 float per weight).
    Jordan et al. 2024, kellerjordan.github.io/posts/muon;
    equals torch.optim.Muon, which computes in bfloat16."""

    fallback_lr_ratio = 0.015

    def _scale(self, rows: int, cols: int) -> float:
        return sqrt(max(1.0, rows / cols))


@dataclass(frozen=True)
class MuonMatched(_Muon):
    """Muon with steps as long as AdamW's, so that one rate and one decay serve a whole model.
    m ← momentum·m + (1-momentum)·g   d = g + momentum·(m-g)
    u = 0.2·√max(rows, cols)·d with its singular values brought near 1   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    lr: five times the root mean square of a step, in units of w; AdamW's.   State: m (1 float per weight).
    Liu et al. 2025, arXiv:2502.16982, section 2.2;
    equals torch.optim.Muon(adjust_lr_fn="match_rms_adamw"), which computes in bfloat16."""

    lr: Number = 1e-3
    weight_decay: Number = 0.1

    def _scale(self, rows: int, cols: int) -> float:
        return 0.2 * sqrt(max(rows, cols))


@dataclass(frozen=True)
class MuonSpectral(_Muon):
    """Muon in the scale that carries over from narrow models to wide ones.
    m ← momentum·m + (1-momentum)·g   d = g + momentum·(m-g)
    u = √(rows/cols)·d with its singular values brought near 1   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    lr: largest change of an output's root mean square for an input's of 1.   State: m (1 float per weight).
    Bernstein 2025, jeremybernste.in/writing/deriving-muon; equals microsoft/dion's
    Muon(adjust_lr="spectral_norm") and timm's Muon(adjust_lr_fn="rms_to_rms")."""

    fallback_lr_ratio = 0.015

    def _scale(self, rows: int, cols: int) -> float:
        return sqrt(rows / cols)
