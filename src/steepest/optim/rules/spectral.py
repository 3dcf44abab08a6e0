"""Steepest descent in the spectral norm: the polar factor of the momentum, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steepest.optim.maths import lerp
from steepest.optim.rule import Number, Rule, descend_and_decay
from steepest.optim.rules.shapes import is_matrix, matrix, refuse

_RANK = 2.0**-20
"""Singular values below this share of the largest are rounding errors: in float32, and so everywhere."""


@dataclass(frozen=True)
class SpectralDescent(Rule):
    """All singular values of the momentum set to 1: what Muon comes near.
    m ← momentum·m + (1-momentum)·g   m = UΣVᵀ   u = UVᵀ   w ← w - lr·(u + weight_decay·w)

    For hidden matrices (out, in); a convolution is (out, in·height·width); batch_axes in front count them.
    Singular values that are 0 stay 0.
    lr: spectral norm of a step, in units of w.   State: m (1 float per weight).
    Carlson et al. 2015, NIPS, equation 8, without its nuclear norm;
    as facebookresearch/optimizers' SpectralDescentPreconditionerConfig with an SVD."""

    lr: Number = 0.02
    momentum: Number = 0.9
    weight_decay: Number = 0.0
    batch_axes: int = 0

    slots = ("m",)
    signed = ("m",)
    whole = True
    fallback_lr_ratio = 0.015
    follow = staticmethod(descend_and_decay)

    def takes(self, shape: Sequence[int]) -> bool:
        return is_matrix(shape, self.batch_axes)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        refuse(self, w.shape)
        return (xp.zeros_like(w),)

    def scalars(self, xp: Any, t: Any) -> dict[str, Any]:
        return {"c1": 1 - self.momentum}

    def direction(self, xp: Any, k: Any, w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        m = lerp(m, g, k.c1)
        left, values, right = xp.svd(xp.reshape(m, matrix(w.shape, self.batch_axes)))
        least = _RANK * xp.max(values, axis=-1, keepdims=True)
        kept = xp.where(values > least, xp.ones_like(values), xp.zeros_like(values))
        kept = xp.reshape(kept, (*values.shape[:-1], 1, values.shape[-1]))
        return xp.reshape((left * kept) @ right, w.shape), m
