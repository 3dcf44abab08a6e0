"""Real data sets that come with scikit-learn: no download."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

TARGETS = {
    "digits": "digit",
    "iris": "species",
    "wine": "cultivar",
    "breast_cancer": "diagnosis",
    "diabetes": "progression",
}
"""Name of each data set, and of its target."""


def load(name: str) -> Any:
    """The pictures and labels of "digits" (values 0…1, shape (1797, 1, 8, 8)); the frame of any other."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    if name == "digits":
        return (bunch.images[:, None] / 16).astype(np.float32), bunch.target
    values = bunch.target
    if "target_names" in bunch:
        values = np.asarray(bunch.target_names)[values]
    columns = dict(zip(bunch.feature_names, bunch.data.T, strict=True))
    return pl.DataFrame({**columns, TARGETS[name]: values})
