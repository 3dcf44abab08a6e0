"""Distance over gradients: a rate that follows from how far the weights have come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from steepest.optim.maths import unless_zero
from steepest.optim.quantity import Quantity
from steepest.optim.rule import Number, Rule, coupled


@dataclass(frozen=True)
class DoG(Rule):
    """Distance over gradients, of all weights together.   g ← g + weight_decay·w
    r ← max(r, ‖w - w₀‖), at first reps·(1+‖w₀‖)   G ← G + ‖g‖²   u = r/√(G+ε)·g   w ← w - lr·u

    Ship averaged weights: averaged(DoG()).
    lr: a factor without unit; leave it at 1.   State: w0 (1 float per weight); r and G for all together.
    Ivgi, Hinder & Carmon 2023, arXiv:2302.12022; equals optax.contrib.dog."""

    lr: Number = 1.0
    reps: float = 1e-6
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    slots = ("w0",)
    shared: ClassVar[Mapping[str, float]] = {"distance": 0.0, "squares": 0.0}
    sums = ("start", "way", "gradients")
    couple = staticmethod(coupled)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return (1.0 * w,)

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, w0: Any) -> tuple[Any, ...]:
        return w0 * w0, (w - w0) * (w - w0), g * g

    def finalize(
        self,
        xp: Any,
        t: Any,
        n: Any,
        start: Any,
        way: Any,
        gradients: Any,
        distance: Any,
        squares: Any,
    ) -> dict[str, Any]:
        squares = squares + gradients
        least = self.reps * (1 + xp.sqrt(start))
        distance = xp.maximum(xp.maximum(distance, xp.sqrt(way)), least)
        rate = self.lr * distance / unless_zero(xp, xp.sqrt(squares + self.eps))
        return {"lr": rate, "distance": distance, "squares": squares}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, w0: Any) -> tuple[Any, ...]:
        return g, w0


@dataclass(frozen=True)
class LDoG(DoG):
    """Distance over gradients, of each weight tensor on its own.   r, G and u as in DoG   w ← w - lr·u

    Ship averaged weights: averaged(LDoG()).
    lr: a factor without unit; leave it at 1.   State: w0 (1 float per weight); r and G for each tensor.
    Ivgi, Hinder & Carmon 2023, arXiv:2302.12022, section 4.1; equals LDoG of the authors' code."""

    scope = "weight"


@dataclass(frozen=True)
class DoWG(Rule):
    """Distance over weighted gradients, of all weights together.   g ← g + weight_decay·w
    R ← max(R, ‖w - w₀‖²), at first reps   G ← G + R·‖g‖²   u = R/(√G + ε)·g   w ← w - lr·u

    lr: a factor without unit; leave it at 1.   State: w0 (1 float per weight); R and G for all together.
    Khaled, Mishchenko & Jin 2023, arXiv:2305.16284, algorithm 1; equals optax.contrib.dowg."""

    lr: Number = 1.0
    reps: float = 1e-4
    eps: Number = 1e-4
    weight_decay: Number = 0.0

    slots = ("w0",)
    shared: ClassVar[Mapping[str, float]] = {"distance": 0.0, "squares": 0.0}
    sums = ("way", "gradients")
    quantities: ClassVar[Mapping[str, Quantity]] = {
        "reps": Quantity("the square of the distance from the start, before the first step", "units of w²")
    }
    couple = staticmethod(coupled)

    def init(self, xp: Any, w: Any) -> tuple[Any, ...]:
        return (1.0 * w,)

    @staticmethod
    def measure(xp: Any, k: Any, w: Any, g: Any, w0: Any) -> tuple[Any, ...]:
        return (w - w0) * (w - w0), g * g

    def finalize(
        self, xp: Any, t: Any, n: Any, way: Any, gradients: Any, distance: Any, squares: Any
    ) -> dict[str, Any]:
        distance = xp.maximum(xp.maximum(distance, way), self.reps)
        squares = squares + distance * gradients
        rate = self.lr * distance / unless_zero(xp, xp.sqrt(squares) + self.eps)
        return {"lr": rate, "distance": distance, "squares": squares}

    @staticmethod
    def direction(xp: Any, k: Any, w: Any, g: Any, w0: Any) -> tuple[Any, ...]:
        return g, w0
