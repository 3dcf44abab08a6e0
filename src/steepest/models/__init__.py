"""Networks by name, a way to bring one's own, and how their weights start.

Another package brings a network under the entry point group "steepest.models": a module or object with the
functions of `Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from steepest.models.import_path import imported, load, made
from steepest.models.presets import PRESETS, Model, check, shape_of, suited
from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.registry import Registry

__all__ = ["MODELS", "PRESETS", "Model", "build", "imported", "load", "made", "offered"]

MODELS: Registry[Model] = Registry(
    "model", "steepest.models", {name: f"steepest.models.presets:{name.upper()}" for name in PRESETS}
)


def offered(input_shape: Any, outputs: int | tuple[int | None, ...]) -> list[str]:
    """Names of the models that take such inputs and give such outputs."""
    return [name for name, model in MODELS.items() if model.fits(input_shape, shape_of(outputs))]


def build(
    name: str,
    input_shape: Any,
    outputs: int | tuple[int | None, ...],
    *,
    hidden: Sequence[int] = (256, 128),
    dropout: float = 0.0,
    args: Mapping[str, Any] | None = None,
    suits: str | None = None,
) -> nn.Module:
    """The model of that name; "auto" takes the one that suits the kind of data.

    input_shape: sizes of one example, without the batch; None for a free length.
    outputs: numbers given for each example, ≥ 1, or the shape of its outputs.
    hidden: widths of the dense layers between input (or convolutions) and output; "linear" has none.
    dropout: share of hidden units switched off in training, in [0, 1).
    args: the recipe's model_args, settings of the model by name.   suits: what "auto" stands for"""
    if name == "auto":
        name = suits or suited(input_shape)
    if name not in MODELS:
        raise UserError(f"There is no model named {name!r}.{did_you_mean(name, ['auto', *MODELS.names()])}")
    wanted, model, own = shape_of(outputs), MODELS[name], dict(args or {})
    if name in PRESETS:
        check(name, input_shape, wanted, hidden, dropout)
        own = {"hidden": hidden, "dropout": dropout, **own}
    elif not model.fits(input_shape, wanted):
        others = ", ".join(map(repr, offered(input_shape, wanted))) or "a network of your own, model=net"
        raise UserError(
            f"The model {name!r} does not take inputs of {input_shape} and give outputs of {wanted}. Take "
            f"{others}."
        )
    try:
        return model.make(input_shape, wanted, **own)
    except TypeError as problem:
        raise UserError(
            f"The model {name!r} does not go with model_args={dict(args or {})}: {problem}."
        ) from problem
