"""Weights of classes: how much an example of each counts in the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steepest.data.infer import Task, label
from steepest.optim.errors import UserError, did_you_mean


def class_weights(how: Any, numbers: np.ndarray, task: Task) -> tuple[float, ...] | None:
    """A weight for every class, in the order of the outputs.

    how      None; "balanced": n / (classes · count), so that every class counts the same; a list in the order
             of `task.classes`; a dict label → weight, others 1
    numbers  (n,) numbers of the training examples' classes
    """
    if how is None:
        return None
    if task.classes is None:
        raise UserError("class_weight is for classes, and the target is a number. Use sample_weight.")
    if how == "balanced":
        return _balanced(numbers, task.classes)
    weights = _by_label(how, task.classes) if isinstance(how, Mapping) else _in_order(how, task.classes)
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise UserError(f"Class weights must be finite, at least 0 and not all 0; got {list(weights)}.")
    return weights


def _balanced(numbers: np.ndarray, classes: tuple[str, ...]) -> tuple[float, ...]:
    counts = np.bincount(numbers, minlength=len(classes))
    if not counts.all():
        missing = classes[int(counts.argmin())]
        raise UserError(
            f"Class {missing!r} does not occur in the training part, so it cannot be balanced. Use "
            "split='stratified', or give the weights as a dict."
        )
    return tuple((len(numbers) / (len(classes) * counts)).tolist())


def _by_label(how: Mapping[Any, float], classes: tuple[str, ...]) -> tuple[float, ...]:
    named = {label(name): float(weight) for name, weight in how.items()}
    for name in named:
        if name not in classes:
            raise UserError(f"class_weight names {name!r}, which is no class.{did_you_mean(name, classes)}")
    return tuple(named.get(name, 1.0) for name in classes)


def _in_order(how: Sequence[float], classes: tuple[str, ...]) -> tuple[float, ...]:
    if isinstance(how, str) or len(how) != len(classes):
        got = repr(how) if isinstance(how, str) else f"{len(how)} numbers"
        raise UserError(
            f"class_weight must be 'balanced', a dict by label, or one number for each of the {len(classes)} "
            f"classes; got {got}."
        )
    return tuple(float(weight) for weight in how)
