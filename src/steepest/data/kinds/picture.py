"""Pictures: an array (n, channels, height, width), scaled channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from steepest.data.kinds import scaled
from steepest.data.kinds.encoder import Settings, refuse_args
from steepest.data.kinds.scaled import Scaled, Scaling


class Picture(Scaled):
    """Pictures of one size."""

    @property
    def suits(self) -> str:
        """Convolutions, but for pictures that are too small to be halved."""
        return "cnn" if all(side is not None and side >= 4 for side in self.shape[1:]) else "mlp"


def recognise(field: Any, settings: Settings) -> str | None:
    """Arrays of four axes."""
    return "four axes" if isinstance(field, np.ndarray) and field.ndim == 4 else None


def fit(field: np.ndarray, name: str, settings: Settings) -> Picture:
    """Mean and spread of every channel over the training pictures."""
    refuse_args("picture", settings.of(name, "picture"))
    return Picture("picture", scaled.fit(field, settings.scale, settings.impute), field.shape[1:])


def restore(config: Mapping[str, Any]) -> Picture:
    """The encoder that a run folder keeps."""
    return Picture("picture", Scaling.of(config["scaling"]), tuple(config["shape"]))
