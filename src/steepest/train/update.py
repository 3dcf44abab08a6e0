"""From a loss to moved weights: backward, finite check, clipping, step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from steepest.optim.clipping import ClipAdaptive, ClipNorm, ClipValue
from steepest.optim.errors import UserError
from steepest.train.descent import Descent
from steepest.train.guard import Guard, Strikes, Verdict
from steepest.train.scaler import LossScale
from steepest.train.torch_descent import total_norm


class Update:
    """One update of the weights from the microbatches of a window.

    norm     of the last update's gradient, before clipping; None where it was not measured
    guard    its settings, or None
    strikes  of the guard
    scale    of the loss in 16-bit floats; None otherwise"""

    def __init__(
        self,
        descent: Descent,
        *,
        guard: Guard | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        clip_adaptive: float | None = None,
        scale: LossScale | None = None,
    ) -> None:
        self.norm: float | None = None
        self.strikes = Strikes()
        self.scale = scale
        self.guard = guard
        self._descent = descent
        self._clip = None if clip_norm is None else ClipNorm(clip_norm)
        self._changes = [
            kind(limit)
            for kind, limit in ((ClipValue, clip_value), (ClipAdaptive, clip_adaptive))
            if limit is not None
        ]
        if scale is not None and descent.several:
            raise UserError(
                f"{descent.several} takes more than one pass over a batch, and the loss scale of "
                'precision="16" fits one. Take "bf16" or "32".'
            )
        self._checks = guard is not None or scale is not None
        self.measures = self._checks or clip_norm is not None

    def backward(self, loss: Tensor | Callable[[], Any], share: float) -> Tensor:
        """Add the gradient of a microbatch that holds this share of the window's examples; its loss."""
        if self._descent.several:
            return self._look(loss, share)
        value = loss if isinstance(loss, Tensor) else loss()
        if self.scale is not None:
            share *= self.scale.value
        if share == 1.0:
            value.backward()
        else:
            value.backward(torch.full_like(value, share))
        return value

    def _look(self, compute: Tensor | Callable[[], Any], share: float) -> Tensor:
        name = self._descent.several
        if isinstance(compute, Tensor):
            raise UserError(
                f"{name} takes more than one pass over a batch: give steps.step a function that computes the "
                "loss, as in steps.step(lambda: loss_of(net(x), y))."
            )
        if share != 1.0:
            raise UserError(
                f"{name} takes more than one pass over a batch, which must be whole: accumulate=1."
            )
        return self._descent.look(compute)

    def apply(self, loss: Tensor, measure: bool) -> Verdict:
        """Move the weights, or not; the verdict says. loss: the window's; measure: is the norm wanted?"""
        unscale = 1.0 if self.scale is None else 1.0 / self.scale.value
        self.norm = self._descent.norm() * unscale if self.measures or measure else None
        verdict = self._judge(float(loss)) if self._checks else Verdict.GO
        if verdict is Verdict.GO:
            self._step(unscale)
        self.clear()
        return verdict

    @property
    def unit(self) -> float:
        """What gradients are multiplied by before `apply`."""
        return 1.0 if self.scale is None else self.scale.value

    def numbers(self) -> dict[str, Any]:
        """What is to be saved."""
        scale = None if self.scale is None else asdict(self.scale)
        return {"norm": self.norm, "strikes": asdict(self.strikes), "scale": scale}

    def load(self, numbers: Mapping[str, Any]) -> None:
        """Take over what `numbers` gave."""
        self.norm, self.strikes = numbers["norm"], Strikes(**numbers["strikes"])
        self.scale = LossScale(**numbers["scale"]) if numbers["scale"] else None

    def clear(self) -> None:
        """Forget all gradients."""
        for weight in self._descent.weights:
            weight.grad = None

    def _judge(self, loss: float) -> Verdict:
        assert self.norm is not None
        finite = isfinite(self.norm)
        if self.scale is not None:
            overflowed = isfinite(loss) and not finite and self.scale.value > 1.0
            self.scale = self.scale.after(finite)
            if overflowed or self.guard is None:
                return Verdict.GO if finite else Verdict.SKIP
        assert self.guard is not None
        self.strikes, verdict = self.guard.observe(self.strikes, finite and isfinite(loss))
        return verdict

    def _step(self, unscale: float) -> None:
        gradients, norm, scale = None, self.norm, unscale
        if self._changes:
            gradients = self._changed(unscale)
            scale = 1.0
            norm = total_norm(gradients) if self._clip else None
        if self._clip is not None and norm is not None:
            scale *= self._clip.scale(norm)
        self._descent.step(scale, gradients)

    def _changed(self, unscale: float) -> list[Tensor | None]:
        """Gradients in natural units after the transforms; p.grad stays as it is."""
        gradients: list[Tensor | None] = [weight.grad for weight in self._descent.weights]
        with torch.no_grad():
            for i, (weight, gradient) in enumerate(zip(self._descent.weights, gradients, strict=True)):
                if gradient is not None:
                    changed = gradient if unscale == 1.0 else gradient * unscale
                    for change in self._changes:
                        changed = change.apply(torch, weight, changed)
                    gradients[i] = changed
        return gradients
