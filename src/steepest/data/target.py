"""`Answers`: targets as a network's numbers, and its outputs as answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from steepest.data.infer import Task, finite_numbers, labels_of
from steepest.optim.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Answers:
    """Classes by number, or numbers standardised by the training part.

    classes       labels in the order of the outputs; None for numbers
    shift, scale  for every target: y = (target - shift) / scale
    targets       names of what is predicted
    whole         whether labels were whole numbers, which predictions then are too
    """

    targets: tuple[str, ...]
    classes: tuple[str, ...] | None
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    whole: bool = False

    @property
    def kind(self) -> Literal["classification", "binary", "regression"]:
        """The kind of task that these are answers to."""
        if self.classes is None:
            return "regression"
        return "binary" if len(self.classes) == 2 else "classification"

    @staticmethod
    def of(content: dict[str, Any]) -> Answers:
        """From the plain dict of `dataclasses.asdict`, through JSON or not."""
        classes = content["classes"]
        named = tuple(content["targets"]), None if classes is None else tuple(classes)
        scaled = tuple(content["shift"]), tuple(content["scale"])
        return Answers(*named, *scaled, content.get("whole", False))

    def encode(self, target: np.ndarray) -> np.ndarray:
        """int64 numbers of classes, or float32 standardised numbers, (n,) or (n, targets)."""
        if self.classes is None:
            values = self._numbers(target)
            return ((values - self.shift) / self.scale).astype(np.float32).reshape(target.shape)
        number = {label: i for i, label in enumerate(self.classes)}
        labels = labels_of(target)
        if unknown := sorted(set(labels) - set(number)):
            raise UserError(
                f"Label {unknown[0]!r} of {self.targets[0]!r} does not occur in the training data."
                f"{did_you_mean(unknown[0], self.classes)} Mend it or leave its rows out."
            )
        return np.array([number[label] for label in labels], dtype=np.int64)

    def _numbers(self, target: np.ndarray) -> np.ndarray:
        """(n, targets) float64, checked as the training part's targets were."""
        columns = target.reshape(len(target), -1).T
        if len(columns) != len(self.targets):
            raise UserError(
                f"These data have {len(columns)} targets and the training data {len(self.targets)} "
                f"({', '.join(self.targets)}). They must agree."
            )
        return np.stack(
            [finite_numbers(name, column) for name, column in zip(self.targets, columns, strict=True)], 1
        )

    def decode(self, outputs: np.ndarray | torch.Tensor) -> np.ndarray:
        """Labels as text (by the largest output, of a single one by its sign), or numbers in units."""
        values = (
            outputs.detach().cpu().float().numpy()
            if isinstance(outputs, torch.Tensor)
            else np.asarray(outputs)
        )
        if self.classes is not None:
            flags = values.ndim == 1 or values.shape[1] == 1
            number = (values.reshape(-1) > 0).astype(np.int64) if flags else values.argmax(axis=1)
            return np.array(self.classes)[number]
        rows = values.reshape(len(values), -1).astype(np.float64) * self.scale + self.shift
        return rows[:, 0] if len(self.targets) == 1 else rows

    def sentences(self) -> list[str]:
        """A line for people where targets are standardised."""
        if self.classes is not None or set(self.scale) == {1.0}:
            return []
        units = (
            f"{n} by {s:.4g} around {m:.4g}"
            for n, m, s in zip(self.targets, self.shift, self.scale, strict=True)
        )
        return [f"Numbers to predict are standardised for training: {'; '.join(units)}."]


def fit(target: np.ndarray | None, task: Task) -> Answers:
    """Classes as the task names them, or the mean and deviation of training targets; None: numbers stay."""
    if task.classes is not None:
        whole = target is not None and target.dtype.kind in "iu"
        return Answers(task.targets, task.classes, whole=whole)
    if target is None:
        return Answers(task.targets, None, (0.0,) * task.outputs, (1.0,) * task.outputs)
    from sklearn.preprocessing import StandardScaler

    with np.errstate(over="ignore", invalid="ignore"):
        scaler: Any = StandardScaler().fit(target.astype(np.float64).reshape(len(target), -1))
    if not np.isfinite([scaler.mean_, scaler.scale_]).all():
        raise UserError(
            f"The target {' or '.join(task.targets)} is too large to be standardised (its squares overflow). "
            "Give it in another unit."
        )
    return Answers(task.targets, None, tuple(scaler.mean_.tolist()), tuple(scaler.scale_.tolist()))
