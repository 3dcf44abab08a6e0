"""A line of six features with a rate to be searched for: what tests of the search run."""

from typing import Any

import numpy as np

import steepest as st
from steepest.evidence import Evidence

draw = np.random.default_rng(0)
N = 1200
X = (0.3 * draw.normal(size=(N, 6))).astype(np.float32)
z = (X @ np.arange(1.0, 7.0) + 0.01 * draw.normal(size=N)).astype(np.float32)
LINE: dict[str, Any] = {"model": "linear", "rule": "sgd", "schedule": "constant", "patience": 10_000}
SLOW: dict[str, Any] = {"batch_size": 16, "scale": None, "num_threads": 1}
"""Updates so cheap, and so many, that a search has something to tell apart."""


def fit(data: Any = (X, z), budget: str = "600 steps", **settings: Any) -> st.Run:
    return st.fit(data, budget=budget, **{"lr": None} | SLOW | settings)


def told(run: st.Run, choice: str) -> Evidence:
    """The first evidence of a choice."""
    return next(one for one in run.evidence if one.choice == choice)
