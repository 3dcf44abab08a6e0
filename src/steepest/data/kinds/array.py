"""Raw arrays: (n, columns), or (n, steps, channels), scaled column by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from steepest.data.kinds import scaled
from steepest.data.kinds.encoder import Settings, refuse_args
from steepest.data.kinds.scaled import Scaled, Scaling


def recognise(field: Any, settings: Settings) -> str | None:
    """Any array of numbers."""
    return "numbers" if isinstance(field, np.ndarray) and field.dtype.kind in "biuf" else None


def fit(field: np.ndarray, name: str, settings: Settings) -> Scaled:
    """Mean and spread of every column over the training examples."""
    refuse_args("array", settings.of(name, "array"))
    return Scaled("array", scaled.fit(field, settings.scale, settings.impute), field.shape[1:])


def restore(config: Mapping[str, Any]) -> Scaled:
    """The encoder that a run folder keeps."""
    return Scaled("array", Scaling.of(config["scaling"]), tuple(config["shape"]))
