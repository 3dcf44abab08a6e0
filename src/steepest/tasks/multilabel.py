"""Several labels at once: each is there or not, whatever the others are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from steepest.data.source import Source
from steepest.optim.errors import UserError
from steepest.tasks.measures import LabelMetrics
from steepest.tasks.target import Expressions, Target, check_finite, floats, missing, refuse_args


@dataclass(frozen=True)
class Labels(Target):
    """0 or 1 for every label; a sigmoid of one output each."""

    names: tuple[str, ...]
    why: str = ""
    task: ClassVar[str] = "multilabel"
    noun: ClassVar[str] = "several labels of 0 or 1"
    loss: ClassVar[str] = "binary"
    layouts: ClassVar[tuple[str, ...]] = ("flags",)

    def shape(self, layout: str) -> tuple[int]:
        """One logit a label."""
        return (len(self.names),)

    def encode(self, target: np.ndarray) -> np.ndarray:
        """float32 (n, labels), 0 or 1."""
        if target.shape[1:] != (len(self.names),):
            raise UserError(
                f"These data have targets of shape {target.shape}, and the training data {len(self.names)} "
                f"labels an example ({', '.join(self.names)}). They must agree."
            )
        return _zeros_and_ones(self.names, target).astype(np.float32)

    def decode(self, outputs: np.ndarray | Tensor) -> np.ndarray:
        """int64 (n, labels): 1 where a label is more likely than not."""
        return (floats(outputs) > 0).astype(np.int64)

    def probabilities(self, outputs: Tensor) -> np.ndarray:
        """(n, labels): how likely each label is, apart from the others."""
        return outputs.sigmoid().numpy()

    def metrics(self) -> LabelMetrics:
        """Shares of right labels and of wholly right examples, means over labels, and F1 of each label."""
        return LabelMetrics(self.names)

    def constant(self, target: Tensor) -> Tensor:
        """The logarithm of the odds of each label."""
        share = target.double().mean(0).clamp(1e-12, 1 - 1e-12)
        return torch.logit(share).float()

    def check_outputs(self, outputs: Tensor, layout: str) -> None:
        """One output a label."""
        if outputs.shape[1:] != (len(self.names),):
            raise UserError(
                f"The network gives outputs of shape {tuple(outputs.shape)} and there are {len(self.names)} "
                f"labels ({', '.join(self.names[:12])}). Give it one output a label, without a sigmoid."
            )

    def examples(self, outputs: Tensor, target: Tensor) -> dict[str, np.ndarray]:
        """0 and 1 by label."""
        return {"truth": target.cpu().numpy().astype(np.int64), "guess": self.decode(outputs)}

    def expressions(self, layout: str) -> Expressions:
        """Accuracy: the share of right labels."""
        return Expressions("accuracy", "((outputs > 0) == target).float()")

    def sentences(self) -> list[str]:
        """What is predicted, and why it is taken for that."""
        shown = ", ".join(self.names[:10]) + (", …" if len(self.names) > 10 else "")
        return [f"Predicts {len(self.names)} labels, each of which is there or not ({shown}): {self.why}."]

    def config(self) -> dict[str, Any]:
        """All of it as JSON's own types."""
        return {"names": list(self.names), "why": self.why}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Labels:
        """The target that `config` describes."""
        return cls(tuple(config["names"]), config["why"])


def recognise(source: Source) -> str | None:
    """Two columns or more of 0 and 1, or of yes and no."""
    target = source.target
    assert target is not None
    if target.ndim != 2 or target.shape[1] < 2 or target.dtype.kind not in "biuf":
        return None
    if not np.isin(target, (0, 1)).all():
        return None
    hint = ""
    if (target.sum(axis=1) == 1).all():
        hint = "; every row has just one of them: where they exclude each other give y.argmax(axis=1)"
    return f"{target.shape[1]} columns of 0 and 1{hint}"


def pose(source: Source, why: str, args: Mapping[str, Any]) -> Labels:
    """The labels of a source. Raises UserError where values are others than 0 and 1."""
    refuse_args("multilabel", args)
    assert source.target is not None
    if source.target.ndim != 2:
        raise UserError(
            f"task='multilabel' takes targets of shape (n, labels), got {source.target.shape}. Give one "
            "column of 0 and 1 for every label."
        )
    values = _zeros_and_ones(source.targets, source.target)
    if (values == values[0]).all():
        raise UserError(
            "Every row has the same labels, so there is nothing to learn. Are they the right columns?"
        )
    return Labels(source.targets, why)


def restore(config: Mapping[str, Any]) -> Labels:
    """The target that a run folder keeps."""
    return Labels.of(config)


def _zeros_and_ones(names: tuple[str, ...], target: np.ndarray) -> np.ndarray:
    for name, column in zip(names, target.T, strict=True):
        gaps = missing(column)
        if gaps.any():
            check_finite(name, np.where(gaps, np.nan, 0.0))
        if not (wrong := ~np.isin(column.astype(str) if column.dtype.kind in "US" else column, (0, 1))).any():
            continue
        raise UserError(
            f"The label {name!r} must be 0 or 1 (or False or True) in every row; row {int(wrong.argmax())} "
            f"(from 0) has {column[wrong.argmax()]!r}. Mend it, or choose another task."
        )
    return target.astype(np.float64)
