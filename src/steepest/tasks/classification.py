"""Classes that exclude each other, two or more: one of them for every example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from steepest.data.source import Source
from steepest.optim.errors import UserError, did_you_mean
from steepest.tasks.measures import ClassificationMetrics
from steepest.tasks.target import Expressions, Target, check_finite, floats, missing, refuse_args

FEW = 20
"""Whole numbers of at most so many different values are labels; a quality from 3 to 9 is, an age is not."""


@dataclass(frozen=True)
class Classes(Target):
    """One class an example.   classes: labels in the order of the outputs, as text
    whole: whether labels were whole numbers, which predictions then are too"""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    why: str = ""
    whole: bool = False
    task: ClassVar[str] = "classification"
    noun: ClassVar[str] = "a class"
    loss: ClassVar[str] = "cross_entropy"
    draws: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        """ "binary" where there are two classes."""
        return "binary" if len(self.classes) == 2 else "classification"

    @property
    def layouts(self) -> tuple[str, ...]:  # type: ignore[override]
        """Two classes can be told apart by one logit too."""
        return ("classes", "flags") if len(self.classes) == 2 else ("classes",)

    def shape(self, layout: str) -> tuple[int]:
        """One output a class; one logit where a loss takes 0 or 1."""
        return (1 if layout == "flags" else len(self.classes),)

    def encode(self, target: np.ndarray) -> np.ndarray:
        """int64 numbers of the classes."""
        number = {label: i for i, label in enumerate(self.classes)}
        labels = [label(value) for value in target.tolist()]
        if unknown := sorted(set(labels) - set(number)):
            raise UserError(
                f"Label {unknown[0]!r} of {self.names[0]!r} does not occur in the training data."
                f"{did_you_mean(unknown[0], self.classes)} Mend it or leave its rows out."
            )
        return np.array([number[label] for label in labels], dtype=np.int64)

    def decode(self, outputs: np.ndarray | Tensor) -> np.ndarray:
        """Labels as text, by the largest output, of a single one by its sign."""
        values = floats(outputs)
        one = values.ndim == 1 or values.shape[1] == 1
        return np.array(self.classes)[(values.reshape(-1) > 0).astype(int) if one else values.argmax(axis=1)]

    def predictions(self, outputs: Tensor) -> np.ndarray:
        """Labels as text, or as whole numbers where the target's were."""
        found = self.decode(outputs)
        return found.astype(np.int64) if self.whole else found

    def probabilities(self, outputs: Tensor) -> np.ndarray:
        """(n, classes), in the order of `classes`."""
        if outputs.shape[1:] in ((), (1,)):
            one = outputs.reshape(-1).sigmoid()
            return torch.stack([1 - one, one], 1).numpy()
        return outputs.softmax(1).numpy()

    def metrics(self) -> ClassificationMetrics:
        """Accuracy; precision, recall and F1 as means over the classes that occur."""
        return ClassificationMetrics(len(self.classes))

    def constant(self, target: Tensor) -> Tensor:
        """The logarithm of how frequent each class is: the guess is the most frequent one."""
        counts = torch.bincount(target.reshape(-1), minlength=len(self.classes)).double()
        return (counts / counts.sum()).clamp_min(1e-12).log().float()

    def strata(self, column: np.ndarray) -> np.ndarray | None:
        """The classes themselves."""
        return column

    def class_weights(self, how: Any, encoded: np.ndarray) -> tuple[float, ...] | None:
        """A weight for every class, in the order of the outputs.

        how      None; "balanced": n / (classes · count), so that every class counts the same; a list in the
                 order of `classes`; a dict label → weight, others 1
        encoded  numbers of the training examples' classes"""
        if how is None:
            return None
        if how == "balanced":
            return _balanced(encoded, self.classes)
        weights = _by_label(how, self.classes) if isinstance(how, Mapping) else _in_order(how, self.classes)
        if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise UserError(f"Class weights must be finite, at least 0 and not all 0; got {list(weights)}.")
        return weights

    def check_outputs(self, outputs: Tensor, layout: str) -> None:
        """Too few outputs show in the loss of the batch that holds the last class, which may be any."""
        if outputs.ndim < 2:
            return
        given, wanted = outputs.shape[1], len(self.classes)
        if given > wanted:
            raise UserError(
                f"The network gives {given} outputs and there are {wanted} classes. Give it one output a "
                "class."
            )
        if layout == "classes" and given < wanted:
            shown = ", ".join(self.classes[:12]) + (", …" if wanted > 12 else "")
            raise UserError(
                f"The network gives {given} outputs and there are {wanted} classes: {shown}. Give it one "
                "output a class; or look for a label that is none."
            )

    def examples(self, outputs: Tensor, target: Tensor) -> dict[str, np.ndarray]:
        """Labels as text, and the probability of the class that was guessed."""
        truth = np.array(self.classes)[target.long().cpu().numpy().reshape(-1)]
        score = self.probabilities(outputs.cpu()).max(axis=1)
        return {"truth": truth, "guess": self.decode(outputs).reshape(-1), "score": score.reshape(-1)}

    def expressions(self, layout: str) -> Expressions:
        """Accuracy: the largest output is the class; of a single one the sign tells."""
        one = layout == "flags"
        guess = "(outputs.reshape(target.shape) > 0)" if one else "outputs.argmax(1)"
        return Expressions("accuracy", f"({guess} == target).float()")

    def sentences(self) -> list[str]:
        """What is predicted, and why it is taken for that."""
        what, many = " and ".join(self.names), len(self.classes)
        shown = ", ".join(self.classes[:10]) + (", …" if many > 10 else "")
        return [f"Predicts {what}, one of {many} classes ({shown}): {self.why}."]

    def config(self) -> dict[str, Any]:
        """All of it as JSON's own types."""
        return {
            "names": list(self.names),
            "classes": list(self.classes),
            "why": self.why,
            "whole": self.whole,
        }

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Classes:
        """The target that `config` describes."""
        return cls(tuple(config["names"]), tuple(config["classes"]), config["why"], config["whole"])


def recognise(source: Source) -> str | None:
    """Text, yes or no, and few different whole numbers are classes."""
    target = source.target
    assert target is not None
    if target.ndim > 1:
        return None
    if target.dtype.kind not in "iufmM":
        return "its values are yes or no" if target.dtype.kind == "b" else "its values are text"
    if target.dtype.kind in "mM":
        raise UserError(
            f"The target {source.targets[0]!r} holds dates or times. Give numbers, such as days from a start."
        )
    if not source.view.held:
        return "whole numbers" if target.dtype.kind in "iu" else None
    distinct = np.unique(target[np.isfinite(target)])
    if not np.equal(np.mod(distinct, 1), 0).all():
        return None
    few = len(distinct) <= min(FEW, max(2, len(target) // 5))
    return f"{len(distinct)} different whole numbers" if few or source.labelled else None


def pose(source: Source, why: str, args: Mapping[str, Any]) -> Target:
    """The classes of a target, in order; there must be two at least, and rows enough for each."""
    target, name = source.target, " and ".join(source.targets)
    assert target is not None
    refuse_args("classification", args)
    if target.ndim > 1:
        raise UserError(
            f"Several targets ({name}) can be predicted together as numbers, or as labels of 0 and 1. Give "
            "one target; for one-hot labels give y.argmax(axis=1)."
        )
    if source.view.own_order and source.examples is None:
        raise UserError(
            "The number of classes of a stream without a length cannot be known. Give a DataLoader with a "
            "length, or bring your own loop: steepest.torch.loop."
        )
    if target.dtype == object or target.dtype.kind == "f":
        check_finite(name, np.where(missing(target), np.nan, 0.0) if target.dtype == object else target)
    classes = sorted(set(target.ravel().tolist()), key=lambda value: (isinstance(value, str), value))
    if len(classes) < 2:
        raise UserError(
            f"The target {name!r} has one class only, {label(classes[0])!r}, so there is nothing to tell "
            "apart. Is it the right column?"
        )
    if 2 * len(classes) > target.size:
        raise UserError(
            f"The target {name!r} has {len(classes)} classes on {len(target)} rows, fewer than two rows a "
            "class. Is it a name or a number of each row? Choose another target, or task='regression'."
        )
    if not source.view.held:
        classes = numbered(classes, target.size)
    # A user's own Dataset hands out numbers of classes, whatever these stand for: they come back as text.
    whole = source.view.held and target.dtype.kind in "iu"
    return Classes(source.targets, tuple(map(label, classes)), why, whole)


def restore(config: Mapping[str, Any]) -> Classes:
    """The target that a run folder keeps."""
    return Classes.of(config)


def label(value: Any) -> str:
    """One class as text: 3 and 3.0 are "3", True is "true"."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


def numbered(classes: list[Any], size: int) -> list[int]:
    """0 … the largest label: a Dataset or stream hands out labels as they are."""
    if not all(isinstance(value, int) and value >= 0 for value in classes):
        raise UserError(
            f"Labels of a Dataset must be whole numbers from 0 on, got {label(classes[0])!r} among them."
        )
    if classes[-1] >= size:
        raise UserError(
            f"Label {classes[-1]} is out of range: {len(classes)} different labels should be numbered 0 … "
            f"{len(classes) - 1}. Number them so in the Dataset."
        )
    return list(range(classes[-1] + 1))


def _balanced(numbers: np.ndarray, classes: tuple[str, ...]) -> tuple[float, ...]:
    counts = np.bincount(numbers.reshape(-1), minlength=len(classes))
    if not counts.all():
        missing = classes[int(counts.argmin())]
        raise UserError(
            f"Class {missing!r} does not occur in the training part, so it cannot be balanced. Use "
            "split='stratified', or give the weights as a dict."
        )
    return tuple((numbers.size / (len(classes) * counts)).tolist())


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
