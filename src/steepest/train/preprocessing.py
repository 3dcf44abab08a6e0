"""`Preprocessing`: what the training part taught about inputs and target, as plain numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from steepest import tasks
from steepest.data import columns, forms, scaling
from steepest.data.columns import Columns
from steepest.data.scaling import Impute, Scale, Scaling
from steepest.data.source import Source
from steepest.data.tree import Tree, apply, leaves, pair, tensor, tensors
from steepest.optim.errors import UserError
from steepest.tasks import Target
from steepest.train import format_1

FORMAT = 2


@dataclass(frozen=True)
class Preprocessing:
    """From a person's data to a network's numbers, and back.

    inputs       the form of every input: Scaling, Columns, or None for one that stays as it is
    target       how targets become numbers and outputs become answers
    input_shape  shape of one example as the network sees it, a tree where there are several inputs
    """

    inputs: Tree
    target: Target
    input_shape: Tree

    @property
    def answers(self) -> Target:
        """The target, under its old name."""
        return self.target

    def apply(self, inputs: Any) -> Tree:
        """Inputs (a frame, an array or a tree of them) as float32 arrays.

        Of several inputs, those of integers stay as they are: numbers to look up in an embedding."""
        return pair(_applied, self.inputs, inputs)

    def examples(self, source: Source, rows: np.ndarray) -> Any:
        """(inputs, target) or (inputs, target, weight) of these rows, as tensors for `batches`; of a user's
        Dataset the Subset, of a stream the stream itself."""
        if not source.view.held:
            return source.view.part(rows)
        if source.target is None:
            raise UserError(
                f"{source.name} has no target to compare with. Give data with the column or array."
            )
        parts = [self.apply(take(source.inputs, rows)), self.target.encode(source.target[rows])]
        counted = self.target.terms(tensor(parts[1]))
        weight = None if source.weight is None else source.weight[rows]
        if counted is not None:  # an example counts by the terms that it brings to the loss
            weight = counted.numpy() * (1.0 if weight is None else weight)
        if weight is not None:
            with np.errstate(over="ignore"):  # the mean of the weights is checked when it is divided by
                parts.append(weight.astype(np.float32))
        return tensors(tuple(parts))

    def decode(self, outputs: np.ndarray | torch.Tensor) -> np.ndarray:
        """Answers in the target's own words or units: labels as text, or numbers."""
        return self.target.decode(outputs)

    def sentences(self) -> list[str]:
        """Lines for people: what is predicted, and what is done to target and inputs."""
        return [
            *self.target.sentences(),
            *(line for form in leaves(self.inputs) for line in _sentences(form)),
        ]

    def to_json(self) -> str:
        """All of it as text; `from_json` gives the equal object."""
        content = {
            "format": FORMAT,
            "inputs": forms.to_plain(self.inputs),
            "target": {"task": self.target.task, **self.target.config()},
            "input_shape": forms.to_plain(self.input_shape),
        }
        return json.dumps(content, indent=1)

    @staticmethod
    def from_json(text: str) -> Preprocessing:
        """The object that `to_json` wrote."""
        try:
            content = json.loads(text)
            written = content["format"]
            if written in (1, FORMAT):
                content = format_1.converted(content) if written == 1 else content
                form, shape = (forms.from_plain(content[name]) for name in ("inputs", "input_shape"))
                return Preprocessing(form, tasks.restore(content["target"]), shape)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"preprocessing.json is damaged ({error}). Fit again, or restore the file."
            ) from error
        raise UserError(
            f"preprocessing.json has format {written}; this version reads {FORMAT}. Update steepest."
        )


def fit(
    source: Source,
    target: Target,
    train: np.ndarray,
    scale: Scale = "standard",
    impute: Impute = "median",
    *,
    scale_target: bool = True,
) -> Preprocessing:
    """What the training rows of a source teach; no other row is looked at but to refuse what cannot be read.

    scale   "standard": mean 0 and deviation 1; "minmax": from 0 to 1; None
    impute  "median" or "mean" in the place of missing numbers; None refuses them
    scale_target  whether numbers to predict are standardised: not under a loss of the user's own, which
                  does not know of it
    """
    if not source.view.held:
        return Preprocessing(None, target.fitted(None), source.view.example_shape())
    if isinstance(source.inputs, pl.DataFrame):
        columns.check_text(source.inputs)
    taught = take(source.inputs, train)
    several = isinstance(taught, dict | tuple)
    form = apply(lambda leaf: _fitted(leaf, scale, impute, several), taught)
    assert source.target is not None
    fitted = target.fitted(source.target[train], scale_target)
    shape = pair(lambda one, leaf: tuple(_applied(one, leaf[:1]).shape[1:]), form, taught)
    return Preprocessing(form, fitted, shape)


def take(inputs: Tree, rows: np.ndarray) -> Tree:
    """These rows of a frame, an array or a tree of arrays."""
    return inputs[rows] if isinstance(inputs, pl.DataFrame) else apply(lambda leaf: leaf[rows], inputs)


def _fitted(leaf: Any, scale: Scale, impute: Impute, several: bool) -> Scaling | Columns | None:
    if isinstance(leaf, pl.DataFrame):
        return columns.fit(leaf, scale, impute)
    if several and leaf.dtype.kind in "iu":
        return None
    return scaling.fit(leaf, scale, impute)


def _applied(form: Scaling | Columns | None, leaf: Any) -> np.ndarray:
    if form is None:
        return leaf
    if isinstance(form, Columns):
        if (
            isinstance(leaf, np.ndarray)
            and leaf.ndim == 2
            and leaf.shape[1] == len(form.numbers)
            and not form.categories
        ):
            leaf = pl.DataFrame(leaf, schema=list(form.numbers), orient="row")
        if not isinstance(leaf, pl.DataFrame):
            raise UserError(
                f"These inputs must come as a table with named columns, got {type(leaf).__name__}."
            )
        return form.apply(leaf)
    return form.apply(leaf)


def _sentences(form: Scaling | Columns | None) -> list[str]:
    if not isinstance(form, Columns):
        return []
    parts = [f"{len(form.numbers)} columns of numbers"] if form.numbers else []
    parts += [f"{name} in {len(values)} categories" for name, values in form.categories.items() if values]
    lines = [f"Learns from {', '.join(parts)}."]
    if form.left_out:
        lines.append(f"Left out, as nearly every row has another text there: {', '.join(form.left_out)}.")
    return lines
