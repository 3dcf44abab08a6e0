"""A class at every position: of a sequence (tagging) or of a picture (segmentation)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from steepest.data.source import Source
from steepest.data.tree import leaves
from steepest.optim.errors import UserError
from steepest.tasks.classification import Classes, label, numbered
from steepest.tasks.measures import ClassificationMetrics
from steepest.tasks.target import Expressions, Target, floats, refuse_args

IGNORED = -100
"""Label of positions that do not count, such as padding; torch's own."""

MOST = 1000
"""Different whole numbers up to which they are taken for classes without being told."""


@dataclass(frozen=True)
class Positions(Target):
    """One class at every position.   classes: labels in the order of the outputs, as text
    axes: of one target;   ignored: the label, as read, of positions that do not count"""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    axes: int = 1
    why: str = ""
    ignored: int = IGNORED
    task: ClassVar[str] = "positions"
    noun: ClassVar[str] = "several labels an example"
    loss: ClassVar[str] = "cross_entropy"
    layouts: ClassVar[tuple[str, ...]] = ("classes",)
    draws: ClassVar[bool] = True

    def shape(self, layout: str) -> tuple[int | None, ...]:
        """(classes, length) or (classes, height, width): classes on the first axis, as torch has it."""
        return (len(self.classes), *(None,) * self.axes)

    def encode(self, target: np.ndarray) -> np.ndarray:
        """int64 of the same shape: numbers of the classes, -100 where a position does not count."""
        if target.ndim != self.axes + 1 or target.dtype.kind not in "iub":
            raise UserError(
                f"These data have targets of shape {target.shape} and type {target.dtype}; the training data "
                f"had whole numbers at every position, {self.axes + 1} axes. They must agree."
            )
        counts = target != self.ignored
        known = np.array([int(name) for name in self.classes])
        place = np.searchsorted(known, target).clip(max=len(known) - 1)
        if (wrong := counts & (known[place] != target)).any():
            raise UserError(
                f"Label {target[wrong][0]} of {self.names[0]!r} does not occur in the training data. Mend "
                f"it, or mark positions that do not count with {self.ignored}."
            )
        return np.where(counts, place, IGNORED).astype(np.int64)

    def terms(self, target: Tensor) -> Tensor | None:
        """(n,) positions that count."""
        return (target.flatten(1) != IGNORED).sum(1)

    def decode(self, outputs: np.ndarray | Tensor) -> np.ndarray:
        """Whole numbers (n, length) or (n, height, width): the labels of the largest outputs."""
        return np.array([int(name) for name in self.classes])[floats(outputs).argmax(axis=1)]

    def probabilities(self, outputs: Tensor) -> np.ndarray:
        """(n, classes, length …)."""
        return outputs.softmax(1).numpy()

    def metrics(self) -> ClassificationMetrics:
        """As of classes, every position that counts being an example."""
        return ClassificationMetrics(len(self.classes))

    def constant(self, target: Tensor) -> Tensor:
        """The logarithm of how frequent each class is, at every position."""
        flat = Classes(self.names, self.classes).constant(target[target != IGNORED])
        return flat.reshape(-1, *(1,) * self.axes).expand(-1, *target.shape[1:])

    def class_weights(self, how: Any, encoded: np.ndarray) -> tuple[float, ...] | None:
        """As of classes, over the positions that count."""
        return Classes(self.names, self.classes).class_weights(how, encoded[encoded != IGNORED])

    def check_outputs(self, outputs: Tensor, layout: str) -> None:
        """One output a class at every position."""
        if outputs.ndim != self.axes + 2 or outputs.shape[1] < len(self.classes):
            wanted = "×".join(["examples", str(len(self.classes)), *["positions"] * self.axes])
            raise UserError(
                f"The network gives outputs of shape {tuple(outputs.shape)}; {len(self.classes)} classes at "
                f"every position need {wanted}, classes on the second axis."
            )

    def examples(self, outputs: Tensor, target: Tensor) -> dict[str, np.ndarray]:
        """Labels of the positions that count, one after the other, and how sure each guess was."""
        counts = (target != IGNORED).cpu()
        names, shares = np.array(self.classes), outputs.cpu().softmax(1)
        truth, guess = target.cpu()[counts].numpy(), shares.argmax(1)[counts].numpy()
        return {"truth": names[truth], "guess": names[guess], "score": shares.amax(1)[counts].numpy()}

    def expressions(self, layout: str) -> Expressions:
        """Accuracy over the positions that count."""
        terms = "(target >= 0).flatten(1).sum(1).clamp_min(1)"
        hits = "(outputs.argmax(1) == target).flatten(1).sum(1)"
        return Expressions("accuracy", hits, terms=terms)

    def sentences(self) -> list[str]:
        """What is predicted, and why it is taken for that."""
        what, many = " and ".join(self.names[:1]), len(self.classes)
        return [f"Predicts {what}, one of {many} classes at every position: {self.why}."]

    def config(self) -> dict[str, Any]:
        """All of it as JSON's own types."""
        named = {"names": list(self.names), "classes": list(self.classes)}
        return {**named, "axes": self.axes, "why": self.why, "ignored": self.ignored}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Positions:
        """The target that `config` describes."""
        named = tuple(config["names"]), tuple(config["classes"])
        return cls(*named, config["axes"], config["why"], config["ignored"])


def recognise(source: Source) -> str | None:
    """Whole numbers at every place of a picture, or at every step of inputs that have as many steps."""
    target = source.target
    assert target is not None
    if target.ndim < 2 or target.dtype.kind not in "iub" or not source.view.held:
        return None
    if target.ndim == 2 and not _steps(source, target.shape[1]):
        return None
    distinct = np.unique(target[target != IGNORED])
    if not len(distinct) or distinct[0] < 0 or len(distinct) > MOST:
        return None
    return f"{len(distinct)} different whole numbers at {'×'.join(map(str, target.shape[1:]))} positions"


def pose(source: Source, why: str, args: Mapping[str, Any]) -> Positions:
    """The classes at every position. task_args: ignore_index, the label that does not count (-100)."""
    refuse_args("positions", args, ("ignore_index",))
    ignored = args.get("ignore_index", IGNORED)
    target = source.target
    assert target is not None
    if not isinstance(ignored, int) or target.ndim < 2 or target.dtype.kind not in "iub":
        raise UserError(
            f"task='positions' takes whole numbers of shape (n, length) or (n, height, width) as targets, "
            f"and one of them as ignore_index; got {target.dtype} of shape {target.shape} and {ignored!r}."
        )
    classes = np.unique(target[target != ignored]).astype(np.int64).tolist()
    if len(classes) < 2:
        raise UserError(
            f"The target {source.targets[0]!r} has {len(classes)} classes over all positions that count, so "
            "there is nothing to tell apart. Is it the right one?"
        )
    if not source.view.held:
        classes = numbered(classes, target.size)
    return Positions(source.targets[:1], tuple(map(label, classes)), target.ndim - 1, why, ignored)


def restore(config: Mapping[str, Any]) -> Positions:
    """The target that a run folder keeps."""
    return Positions.of(config)


def _steps(source: Source, length: int) -> bool:
    """Whether an input has `length` steps: whole numbers (n, length), or (n, length, …) of three axes."""
    return any(
        (leaf.ndim == 2 and leaf.dtype.kind in "iu" and leaf.shape[1] == length)
        or (leaf.ndim == 3 and length in leaf.shape[1:])
        for leaf in leaves(source.inputs)
        if isinstance(leaf, np.ndarray)
    )
