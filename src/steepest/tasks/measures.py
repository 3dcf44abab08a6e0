"""Sums on the device from which accuracy, precision, recall, F1, RMSE, MAE and R² are made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.optim.engines.precision.formats import widened

NAMED = 20
"""Labels up to which each has a measure of its own."""


class ClassificationMetrics:
    """What classification is measured by: weights of examples by class.   State: 3·K floats."""

    names = ("accuracy", "precision", "recall", "f1")

    def __init__(self, classes: int):
        self.classes = classes
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self._counts: dict[str, Tensor] = {}

    def update(self, outputs: Tensor, target: Tensor, w: Tensor) -> None:
        """Count a batch in.   w: (n,), the weight of each example in the device's widest float."""
        guess = guessed(outputs, target).flatten()
        truth = target.long().flatten()
        if len(truth) != len(w):  # at every position: examples weigh by how many of theirs count
            counts = (target.flatten(1) >= 0).to(w.dtype)
            w = (w[:, None] * counts / counts.mean(1, keepdim=True).clamp_min(1e-12)).flatten()
            truth = truth.clamp_min(0)
        self._add("truth", truth, w, self.classes)
        self._add("guess", guess, w, self.classes)
        self._add("hit", truth, w * (truth == guess), self.classes)

    def compute(self) -> dict[str, Tensor]:
        """The measures as scalars on the device; none where nothing was counted."""
        if not self._counts:
            return {}
        hit, truth, guess = (self._counts[name] for name in ("hit", "truth", "guess"))
        occurs = (truth + guess) > 0
        by_class = {
            "precision": _share(hit, guess),
            "recall": _share(hit, truth),
            "f1": _share(2 * hit, truth + guess),
        }
        macro = {name: value.sum() / occurs.sum() for name, value in by_class.items()}
        return {"accuracy": hit.sum() / truth.sum(), **macro}

    def _add(self, name: str, place: Tensor, w: Tensor, size: int) -> None:
        if name not in self._counts:
            self._counts[name] = torch.zeros(size, dtype=w.dtype, device=place.device)
        self._counts[name].scatter_add_(0, place, w)


class LabelMetrics:
    """What several labels at once are measured by, label by label.   State: 4·K + 2 floats"""

    def __init__(self, labels: Sequence[str]):
        self._labels = tuple(labels)
        self._own = tuple(f"f1_{label}" for label in self._labels) if len(self._labels) <= NAMED else ()
        self.names = ("accuracy", "exact", "precision", "recall", "f1", *self._own)
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self._sums: tuple[Tensor, ...] | None = None

    def update(self, outputs: Tensor, target: Tensor, w: Tensor) -> None:
        """Count a batch in.   w: (n,), the weight of each example in the device's widest float."""
        guess, truth, v = outputs > 0, target > 0.5, w[:, None]
        right = guess == truth
        batch = (
            w.sum(),
            (w * right.all(1)).sum(),
            (v * right).sum(0),
            *((v * part).sum(0) for part in (truth & guess, truth, guess)),
        )
        sums = batch if self._sums is None else tuple(a + b for a, b in zip(self._sums, batch, strict=True))
        self._sums = sums

    def compute(self) -> dict[str, Tensor]:
        """The measures as scalars on the device; none where nothing was counted. precision, recall and f1 are
        means over the labels that occur."""
        if self._sums is None:
            return {}
        weight, whole, right, hit, truth, guess = self._sums
        occurs = ((truth + guess) > 0).sum().clamp_min(1)
        f1 = _share(2 * hit, truth + guess)
        means = {"precision": _share(hit, guess), "recall": _share(hit, truth), "f1": f1}
        return {
            "accuracy": (right / weight).mean(),
            "exact": whole / weight,
            **{name: by_label.sum() / occurs for name, by_label in means.items()},
            **dict(zip(self._own, f1, strict=False)),
        }


class RegressionMetrics:
    """What regression is measured by: moments of the error and of the target.   State: 5 floats a target."""

    names = ("rmse", "mae", "r2")

    def __init__(self, scale: float | Sequence[float]):
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self._sums: tuple[Tensor, ...] | None = None

    def update(self, outputs: Tensor, target: Tensor, w: Tensor) -> None:
        """Count a batch in.   w: (n,), the weight of each example in the device's widest float."""
        y = widened(target).reshape(len(w), -1)
        error = widened(outputs).reshape(y.shape) - y
        w = w[:, None]
        mean = _share((w * y).sum(0), w.sum())
        batch = (
            w.sum(),
            (w * error**2).sum(0),
            (w * error.abs()).sum(0),
            mean,
            (w * (y - mean) ** 2).sum(0),
        )
        self._sums = batch if self._sums is None else _merged(self._sums, batch)

    def compute(self) -> dict[str, Tensor]:
        """The measures as scalars on the device; none where nothing was counted."""
        if self._sums is None:
            return {}
        weight, squares, sizes, _, spread = self._sums
        scale = self.scale.to(squares.dtype).to(squares.device)
        exact = (squares == 0).to(squares.dtype)
        r2 = torch.where(spread > 0, 1 - squares / spread, exact)
        return {
            "rmse": (scale**2 * squares / weight).mean().sqrt(),
            "mae": (scale * sizes / weight).mean(),
            "r2": r2.mean(),
        }


def guessed(outputs: Tensor, target: Tensor) -> Tensor:
    """Classes that the outputs point to, shaped like the target: largest of K, or sign of one logit."""
    if outputs.ndim > 1 and outputs.shape[1] > 1:
        return outputs.argmax(1)
    return (outputs.reshape(target.shape) > 0).long()


def _merged(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Sums of two samples, with mean and spread about it joined stably.   Chan, Golub & LeVeque 1979."""
    weight = a[0] + b[0]
    gap = b[3] - a[3]
    share = _share(b[0], weight)
    mean = a[3] + gap * share
    spread = a[4] + b[4] + gap**2 * a[0] * share
    return weight, a[1] + b[1], a[2] + b[2], mean, spread


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return part / whole.where(whole > 0, torch.ones_like(whole))
