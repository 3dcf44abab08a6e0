"""Loss scaling for 16-bit floats, whose smallest numbers would swallow small gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LossScale:
    """Factor on the loss before the backward pass, taken back before the update.

    Halved at every gradient that is not finite, doubled after `patience` finite ones in a row.
    Micikevicius et al. 2018, arXiv:1710.03740, section 3.2."""

    value: float = 65536.0
    good: int = 0
    patience: int = 2000

    def after(self, finite: bool) -> LossScale:
        """The scale for the next update."""
        if not finite:
            return replace(self, value=self.value / 2, good=0)
        if self.good + 1 < self.patience:
            return replace(self, good=self.good + 1)
        return replace(self, value=self.value * 2, good=0)
