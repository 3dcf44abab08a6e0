"""`Task` and `Target`: what is to be learnt, and all that follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from steepest.data.source import Source
from steepest.data.tree import Tree
from steepest.optim.errors import UserError


class Measures(Protocol):
    """What a task is measured by: sums on the device that add over batches.

    names  of the numbers, without the part of the data in front"""

    @property
    def names(self) -> tuple[str, ...]: ...

    def update(self, outputs: Tensor, target: Tensor, w: Tensor) -> None:
        """Count a batch in.   w: (n,), the weight of each example in the device's widest float."""
        ...

    def compute(self) -> dict[str, Tensor]:
        """The measures as scalars on the device; {} where nothing was counted."""
        ...

    def reset(self) -> None:
        """Forget what was counted."""
        ...


@dataclass(frozen=True)
class Expressions:
    """How programs (`Run.code`) measure a task: Python of `outputs` and `target`, as the loss takes them.

    metric  name of the measure;   each: its terms, of which the mean over examples is taken
    whole   the measure of that `mean`;   terms: how many terms of the loss each example brings, where that
            is not one or as many each;   constants: name → (value, what it is), of names in capitals"""

    metric: str
    each: str
    whole: str = "mean"
    terms: str = ""
    constants: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


class Target(ABC):
    """What is to be learnt from a source's target, and how outputs of a network answer it.

    task     name of the task in the registry;   kind: the same, or what it is more closely, for people
    noun     what one target is, in a sentence: "the target is a number"
    names    of the columns that are predicted;   why: why it was taken for this task
    loss     name of the loss that suits;   layouts: kinds of targets that losses may take it as: "classes"
             (whole numbers 0 … K-1), "flags" (0 or 1), "numbers"
    losses   losses of its own by name: (formula of (outputs, target), layout), offered beside the usual ones
    draws    whether labels can be drawn from the outputs of one example: its classes exclude each other"""

    task: ClassVar[str]
    noun: ClassVar[str]
    loss: ClassVar[str]
    layouts: tuple[str, ...]
    losses: ClassVar[Mapping[str, tuple[Any, str]]] = {}
    draws: ClassVar[bool] = False
    classes: tuple[str, ...] | None = None
    names: tuple[str, ...]
    why: str

    @property
    def targets(self) -> tuple[str, ...]:
        """The names, as `run.preprocessing.answers` called them at first."""
        return self.names

    @property
    def kind(self) -> str:
        """The task, told more closely where that helps people."""
        return self.task

    @abstractmethod
    def shape(self, layout: str) -> tuple[int | None, ...]:
        """Shape of the outputs for one example under a loss of this layout; None for a free length."""

    def fitted(self, target: np.ndarray | None, scale: bool = True, encoders: Tree = None) -> Target:
        """The same with what training targets teach; None where they cannot be looked at.

        scale     whether numbers may be given another unit, which a loss of the user's own would not know of
        encoders  those of the inputs, for a target that is made of them"""
        return self

    @abstractmethod
    def encode(self, target: np.ndarray) -> np.ndarray:
        """Targets as read → targets as the loss takes them. Raises UserError for what was never seen."""

    def derive(self, fields: Tree) -> Any:
        """Targets out of what was read of the inputs, where a source has none: the next token, the future of
        a series, the input itself. A tensor or a field, one entry an example."""
        raise UserError("There is no target to learn from. Give target=, or (X, y).")

    def terms(self, target: Tensor) -> Tensor | None:
        """(n,) how many terms of the loss each example brings; None: one each, as the loss is a mean over
        examples. `target` is encoded."""
        return None

    @abstractmethod
    def decode(self, outputs: np.ndarray | Tensor) -> np.ndarray:
        """Outputs as answers in the words or units of the target."""

    def predictions(self, outputs: Tensor) -> np.ndarray:
        """What `Run.predict` gives: answers of the type that the target had."""
        return self.decode(outputs)

    def probabilities(self, outputs: Tensor) -> np.ndarray:
        """What `Run.probabilities` gives. Raises UserError where answers have none."""
        raise UserError("This run predicts numbers, which have no probabilities. Use predict.")

    @abstractmethod
    def metrics(self) -> Measures:
        """Fresh measures."""

    def constant(self, target: Tensor) -> Tensor | None:
        """The outputs of one example that are best where inputs are not looked at, given encoded training
        targets: the yardstick to beat; None where there is none."""
        return None

    def strata(self, column: np.ndarray) -> np.ndarray | None:
        """A label for every example that each part of the data should hold by its share, or None."""
        return None

    def class_weights(self, how: Any, encoded: np.ndarray) -> tuple[float, ...] | None:
        """Weights of classes in the loss. Raises UserError for a task without classes."""
        if how is not None:
            raise UserError(f"class_weight is for classes, and the target is {self.noun}. Use sample_weight.")
        return None

    def check_outputs(self, outputs: Tensor, layout: str) -> None:  # noqa: B027
        """Raise UserError where outputs of a network cannot answer this target."""

    def examples(self, outputs: Tensor, target: Tensor) -> dict[str, np.ndarray]:
        """What examples.npz keeps for the report: truth and guess, and how sure each guess was (score)."""
        return {"truth": self.decode(target), "guess": self.decode(outputs)}

    def expressions(self, layout: str) -> Expressions | None:
        """How a program measures it under a loss of this layout; None: by the loss alone."""
        return None

    @abstractmethod
    def sentences(self) -> list[str]:
        """Lines for people: what is predicted and why that was taken to be so; what is done to it."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All of it as JSON's own types."""

    @classmethod
    @abstractmethod
    def of(cls, config: Mapping[str, Any]) -> Target:
        """The target that `config` describes."""


class Task(Protocol):
    """A kind of thing to learn, found by name.

    recognise  a reason, as a clause, why the source's target is of this task; None where it is not
    pose       the target, checked, with what must be known of all rows: the classes. `args` is the recipe's
               task_args; what the task does not know is refused
    restore    the target that a run folder keeps
    derives    (optional) True where the target is made of the inputs, of a source that has none"""

    def recognise(self, source: Source) -> str | None: ...

    def pose(self, source: Source, why: str, args: Mapping[str, Any]) -> Target: ...

    def restore(self, config: Mapping[str, Any]) -> Target: ...


def refuse_args(task: str, args: Mapping[str, Any], known: tuple[str, ...] = ()) -> None:
    """UserError where task_args holds what a task has no use for."""
    if unknown := sorted(args.keys() - set(known)):
        has = f"takes {', '.join(known)}" if known else "takes none"
        raise UserError(f"task_args has {unknown[0]!r}; the task {task!r} {has}.")


def floats(outputs: np.ndarray | Tensor) -> np.ndarray:
    """Outputs as a NumPy array of float32 or wider."""
    if isinstance(outputs, Tensor):
        return outputs.detach().cpu().float().numpy()
    return np.asarray(outputs)


def missing(values: np.ndarray) -> np.ndarray:
    """True where an entry of a target is None or NaN."""
    if values.dtype == object:
        return np.array([value is None or value != value for value in values.flat]).reshape(values.shape)
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)


def check_finite(name: str, values: np.ndarray) -> None:
    """Raise UserError for NaN and infinity in a target, naming the first row."""
    bad = ~np.isfinite(values)
    if bad.any():
        kind = "infinite" if np.isinf(values[bad][0]) else "NaN"
        raise UserError(
            f"The target {name!r} is {kind} in {bad.sum()} of {len(values)} rows, first in row "
            f"{int(np.argwhere(bad)[0][0])} (from 0). Mend these rows or leave them out."
        )


def one_tensor(outputs: Any) -> Tensor:
    """The outputs, where they are one tensor. Raises UserError else."""
    if not isinstance(outputs, torch.Tensor):
        raise UserError(
            f"Metrics are measured on one tensor; the network gives a {type(outputs).__name__}. Let it give "
            "one tensor, or leave out val and test (0), which need metrics."
        )
    return outputs
