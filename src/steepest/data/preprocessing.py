"""`Preprocessing`: what the training part taught about inputs and target, as plain numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.data import Subset

from steepest.data import columns, forms, scaling
from steepest.data.columns import Columns
from steepest.data.infer import Task
from steepest.data.objects import example_shape
from steepest.data.scaling import Impute, Scale, Scaling
from steepest.data.source import Source
from steepest.data.target import Answers
from steepest.data.target import fit as fit_answers
from steepest.data.tree import Tree, apply, leaves, pair, tensors
from steepest.optim.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class Preprocessing:
    """From a person's data to a network's numbers, and back.

    inputs       the form of every input: Scaling, Columns, or None for one that stays as it is
    answers      how targets become numbers and outputs become answers
    input_shape  shape of one example as the network sees it, a tree where there are several inputs
    """

    inputs: Tree
    answers: Answers
    input_shape: Tree

    def apply(self, inputs: Any) -> Tree:
        """Inputs (a frame, an array or a tree of them) as float32 arrays.

        Of several inputs, those of integers stay as they are: numbers to look up in an embedding."""
        return pair(_applied, self.inputs, inputs)

    def examples(self, source: Source, rows: np.ndarray) -> Any:
        """(inputs, target) or (inputs, target, weight) of these rows, as tensors for `batches`; of a user's
        Dataset the Subset, of a stream the stream itself."""
        if source.kind == "stream":
            return source.inputs
        if source.kind == "dataset":
            return Subset(source.inputs, rows.tolist())
        if source.target is None:
            raise UserError(
                f"{source.name} has no target to compare with. Give data with the column or array."
            )
        parts = [self.apply(take(source.inputs, rows)), self.answers.encode(source.target[rows])]
        if source.weight is not None:
            with np.errstate(over="ignore"):  # the mean of the weights is checked when it is divided by
                parts.append(source.weight[rows].astype(np.float32))
        return tensors(tuple(parts))

    def decode(self, outputs: np.ndarray | torch.Tensor) -> np.ndarray:
        """Answers in the target's own words or units: labels as text, or numbers."""
        return self.answers.decode(outputs)

    def sentences(self) -> list[str]:
        """Lines for people: what is done to the inputs, fitted on the training part."""
        return [line for form in leaves(self.inputs) for line in _sentences(form)] + self.answers.sentences()

    def to_json(self) -> str:
        """All of it as text; `from_json` gives the equal object."""
        content = {
            "format": FORMAT,
            "inputs": forms.to_plain(self.inputs),
            "answers": asdict(self.answers),
            "input_shape": forms.to_plain(self.input_shape),
        }
        return json.dumps(content, indent=1)

    @staticmethod
    def from_json(text: str) -> Preprocessing:
        """The object that `to_json` wrote."""
        try:
            content = json.loads(text)
            written = content["format"]
            if written == FORMAT:
                form, shape = (forms.from_plain(content[name]) for name in ("inputs", "input_shape"))
                return Preprocessing(form, Answers.of(content["answers"]), shape)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"preprocessing.json is damaged ({error}). Fit again, or restore the file."
            ) from error
        raise UserError(
            f"preprocessing.json has format {written}; this version reads {FORMAT}. Update steepest."
        )


def fit(
    source: Source, task: Task, train: np.ndarray, scale: Scale = "standard", impute: Impute = "median"
) -> Preprocessing:
    """What the training rows of a source teach; no other row is looked at but to refuse what cannot be read.

    scale   "standard": mean 0 and deviation 1; "minmax": from 0 to 1; None
    impute  "median" or "mean" in the place of missing numbers; None refuses them
    """
    if source.kind in ("dataset", "stream"):
        return Preprocessing(None, fit_answers(None, task), example_shape(source))
    if isinstance(source.inputs, pl.DataFrame):
        columns.check_text(source.inputs)
    taught = take(source.inputs, train)
    several = isinstance(taught, dict | tuple)
    form = apply(lambda leaf: _fitted(leaf, scale, impute, several), taught)
    answers = fit_answers(source.target[train], task)  # type: ignore[index]
    shape = pair(lambda one, leaf: tuple(_applied(one, leaf[:1]).shape[1:]), form, taught)
    return Preprocessing(form, answers, shape)


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
