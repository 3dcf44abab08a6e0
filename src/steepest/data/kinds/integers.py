"""Whole numbers that stay as they are: to be looked up in an embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.data.kinds.encoder import Encoder, Settings, refuse_args
from steepest.data.kinds.scaled import narrowest
from steepest.data.tree import tensor
from steepest.optim.errors import UserError


class Integers(Encoder):
    """Whole numbers, held in the narrowest type.   dtype: of what the network gets"""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        super().__init__()
        self.kind, self.shape, self.dtype = "integers", shape, getattr(torch, dtype)

    def read(self, raw: Any) -> Tensor:
        """The same numbers. Raises UserError for others than whole ones."""
        values = np.asarray(raw)
        if values.dtype.kind not in "biu":
            raise UserError(
                f"An input holds {values.dtype} where the training data held whole numbers to look up. Give "
                "whole numbers."
            )
        return tensor(narrowest(values))

    def forward(self, *fields: Tensor) -> Tensor:
        """The numbers in their type."""
        return fields[0].to(self.dtype)

    def config(self) -> dict[str, Any]:
        """Type and shape."""
        return {"shape": list(self.shape), "dtype": str(self.dtype).removeprefix("torch.")}


def recognise(field: Any, settings: Settings) -> str | None:
    """Whole numbers beside other inputs, or for a network that has an embedding."""
    if not isinstance(field, np.ndarray) or field.dtype.kind not in "iu":
        return None
    if settings.several:
        return "whole numbers among several inputs"
    return "whole numbers, and the network has an embedding" if settings.embeds else None


def fit(field: np.ndarray, name: str, settings: Settings) -> Integers:
    """Nothing is learnt. Alone they come as int64; among several inputs in the type that they have."""
    refuse_args("integers", settings.of(name, "integers"))
    same = settings.several and not settings.embeds and hasattr(torch, field.dtype.name)
    return Integers(field.shape[1:], field.dtype.name if same else "int64")


def restore(config: Mapping[str, Any]) -> Integers:
    """The encoder that a run folder keeps."""
    return Integers(tuple(config["shape"]), config["dtype"])
