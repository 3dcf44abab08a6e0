"""`Preprocessing`: what the training part taught about inputs and target; a network that begins with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from steepest import tasks
from steepest.data import kinds
from steepest.data.batches import Held
from steepest.data.fields import Field
from steepest.data.kinds import table
from steepest.data.kinds.encoder import Encoder, Impute, Scale, Settings
from steepest.data.source import Source
from steepest.data.tree import Tree, apply, count, leaves, pair, tensor, tensors
from steepest.models.presets import suited
from steepest.models.probe import apply as called
from steepest.optim.errors import UserError, did_you_mean
from steepest.tasks import Target
from steepest.train import format_1

FORMAT = 2

AHEAD = 1 << 24
"""Bytes of features up to which inputs are encoded once, ahead of training, though they take more room so."""

ALONE = "inputs"
"""Name of a field that has none: the inputs are one array."""


class Encoded(nn.Module):
    """A network that begins with its encoders: it takes what `Preprocessing.read` gives.

    network  as it was handed over or made;   inputs: the encoders"""

    def __init__(self, encoders: Tree, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inputs = nn.ModuleList(one for one in leaves(encoders) if isinstance(one, nn.Module))
        numbers = iter(range(len(self.inputs)))
        self._form = apply(lambda one: None if one is None else next(numbers), encoders)

    def forward(self, *fields: Any, **named: Any) -> Any:
        """The outputs of the network. Several inputs come by place or by name, as the network takes them."""
        one = not isinstance(self._form, dict | tuple)
        given = named or (fields[0] if one and len(fields) == 1 else fields)
        return called(self.network, pair(self._features, self._form, given))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The network's own, by its own names: encoders have nothing to save."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load what `state_dict` of this, or of the network, gave."""
        return self.network.load_state_dict(state_dict, *args, **kwargs)

    def _features(self, number: int | None, field: Any) -> Any:
        return field if number is None else called(self.inputs[number], field)


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """From a person's data to a network's numbers, and back.

    inputs       the encoder of every input, or None for data that stay as they are
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocessing) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def read(self, inputs: Any) -> Tree:
        """Inputs (a frame, an array or a tree of them) as the encoders take them: tensors of narrow types, as
        `Run.model` is called with."""
        return pair(lambda one, leaf: tensors(leaf) if one is None else one.read(leaf), self.inputs, inputs)

    def encode(self, fields: Tree) -> Tree:
        """What was read as the network takes it: features, or numbers to look up."""
        with torch.no_grad():
            return pair(lambda one, field: field if one is None else called(one, field), self.inputs, fields)

    def apply(self, inputs: Any) -> Tree:
        """Inputs read and encoded, as float32 arrays; whole numbers to look up as whole numbers."""
        return apply(lambda features: features.numpy(), Held((self.read(inputs),), self.encode).whole()[0])

    @property
    def suits(self) -> str:
        """Name of the model that "auto" stands for."""
        if isinstance(self.inputs, Encoder):
            return self.inputs.suits
        return suited(self.input_shape)

    def network(self, model: nn.Module) -> nn.Module:
        """The network that takes what `read` gives; the model itself where nothing is read."""
        return model if self.inputs is None else Encoded(self.inputs, model)

    def examples(self, source: Source, rows: np.ndarray, inputs: Any = None) -> Any:
        """(inputs, target) or (inputs, target, weight) of these rows, for `batches`: tensors of features, or
        `Held` where features would take much more room than what was read. Of a user's Dataset the Subset,
        of a stream the stream itself.   inputs: those rows, where they were taken already"""
        if not source.view.held:
            return source.view.part(rows)
        fields = self.read(take(source.inputs, rows) if inputs is None else inputs)
        parts = [fields, self._targets(source, rows, fields)]
        counted = None if isinstance(parts[1], Field) else self.target.terms(parts[1])
        weight = None if source.weight is None else source.weight[rows]
        if counted is not None:  # an example counts by the terms that it brings to the loss
            weight = counted.numpy() * (1.0 if weight is None else weight)
        if weight is not None:
            with np.errstate(over="ignore"):  # the mean of the weights is checked when it is divided by
                parts.append(tensor(weight.astype(np.float32)))
        held = Held(tensors(tuple(parts)), self.encode)
        if any(isinstance(leaf, Field) for leaf in leaves(held.data)):
            return held
        wide = 4 * count(fields) * sum(int(np.prod(shape)) for shape in shapes(self.input_shape))
        narrow = sum(leaf.nbytes for leaf in leaves(fields))
        return held.whole() if wide <= max(AHEAD, narrow) else held

    def _targets(self, source: Source, rows: np.ndarray, fields: Tree) -> Any:
        if source.target is not None:
            return tensor(self.target.encode(source.target[rows]))
        if source.targets:
            raise UserError(
                f"{source.name} has no target to compare with. Give data with the column or array."
            )
        return self.target.derive(fields)

    def decode(self, outputs: np.ndarray | torch.Tensor) -> np.ndarray:
        """Answers in the target's own words or units: labels as text, or numbers."""
        return self.target.decode(outputs)

    def sentences(self) -> list[str]:
        """Lines for people: what is predicted, and what is done to target and inputs."""
        done = (line for one in leaves(self.inputs) if one is not None for line in one.sentences())
        return [*self.target.sentences(), *done]

    def to_json(self) -> str:
        """All of it as text; `from_json` gives the equal object."""
        content = {
            "format": FORMAT,
            "inputs": _plain(self.inputs),
            "target": {"task": self.target.task, **self.target.config()},
            "input_shape": _plain(self.input_shape),
        }
        return json.dumps(content, indent=1)

    @staticmethod
    def from_json(text: str) -> Preprocessing:
        """The object that `to_json` wrote, in this version or an earlier one."""
        try:
            content = json.loads(text)
            written = content["format"]
            if written in (1, FORMAT):
                content = format_1.converted(content) if written == 1 else content
                encoders, shape = (_restored(content[name]) for name in ("inputs", "input_shape"))
                return Preprocessing(encoders, tasks.restore(content["target"]), shape)
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
    kind_args: Mapping[str, Mapping[str, Any]] | None = None,
    embeds: bool = False,
    inputs: Any = None,
) -> Preprocessing:
    """What the training rows of a source teach; no other row is looked at but to refuse what cannot be read.

    scale   "standard": mean 0 and deviation 1; "minmax": from 0 to 1; None
    impute  "median" or "mean" in the place of missing numbers; None refuses them
    scale_target  whether numbers to predict are standardised: not under a loss of the user's own, which
                  does not know of it
    kind_args  the recipe's;   embeds: whether the network has an embedding to look whole numbers up in
    inputs  of the training rows, where they were taken already
    """
    if not source.view.held:
        return Preprocessing(None, target.fitted(None), source.view.example_shape())
    if isinstance(source.inputs, pl.DataFrame):
        table.check_text(source.inputs)
    taught = take(source.inputs, train) if inputs is None else inputs
    settings = Settings(scale, impute, kind_args or {}, isinstance(taught, dict | tuple), embeds)
    _check_args(settings, taught)
    encoders = _fitted(taught, ALONE, settings)
    column = None if source.target is None else source.target[train]
    fitted = target.fitted(column, scale_target, encoders)
    return Preprocessing(encoders, fitted, apply(lambda one: tuple(one.shape), encoders))


def take(inputs: Tree, rows: np.ndarray) -> Tree:
    """These rows of a frame, an array or a tree of arrays."""
    return inputs[rows] if isinstance(inputs, pl.DataFrame) else apply(lambda leaf: leaf[rows], inputs)


def shapes(tree: Tree) -> list[tuple[int, ...]]:
    """The shapes in a tree of them."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if all(isinstance(size, int | None) for size in tree):
        return [tree]
    return [shape for branch in tree for shape in shapes(branch)]


def _fitted(taught: Tree, name: str, settings: Settings) -> Tree:
    if isinstance(taught, dict):
        return {key: _fitted(branch, key, settings) for key, branch in taught.items()}
    if isinstance(taught, tuple):
        return tuple(_fitted(branch, str(place), settings) for place, branch in enumerate(taught))
    return kinds.fit(taught, name, settings)


def _check_args(settings: Settings, taught: Tree) -> None:
    """UserError where kind_args names what is neither a field nor a kind."""
    fields = list(taught) if isinstance(taught, dict) else [ALONE]
    if isinstance(taught, tuple):
        fields = [str(place) for place in range(len(taught))]
    fields += taught.columns if isinstance(taught, pl.DataFrame) else []
    for name, own in settings.args.items():
        if name not in (known := [*fields, *kinds.KINDS.names()]):
            raise UserError(f"kind_args names {name!r}, no field or kind of data.{did_you_mean(name, known)}")
        if not isinstance(own, Mapping):
            raise UserError(f"kind_args[{name!r}] must hold settings by name, {{'kind': …}}, got {own!r}.")


def _plain(tree: Tree) -> Any:
    """A tree of encoders or shapes as JSON's own types."""
    if isinstance(tree, dict):
        return {"dict": {name: _plain(branch) for name, branch in tree.items()}}
    if isinstance(tree, tuple) and not all(isinstance(part, int | None) for part in tree):
        return {"tuple": [_plain(branch) for branch in tree]}
    if isinstance(tree, Encoder):
        return {"kind": tree.kind, **tree.config()}
    return {"shape": list(tree)} if isinstance(tree, tuple) else {"kept": None}


def _restored(plain: Any) -> Tree:
    """The tree that `_plain` took apart."""
    if "kind" in plain:
        return kinds.restore(plain)
    ((form, content),) = plain.items()
    if form == "dict":
        return {name: _restored(part) for name, part in content.items()}
    if form == "tuple":
        return tuple(_restored(part) for part in content)
    return {"shape": tuple, "kept": lambda _: None}[form](content)
