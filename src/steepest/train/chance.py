"""The state of the global random generators as tensors and numbers, to be saved without pickles."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from steepest.data import rng
from steepest.data.order import key


def begin(seed: int) -> None:
    """Start Python's, NumPy's and torch's global generators for the training stream of this seed."""
    rng.seed_all(key(seed, "training"))


def take() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, numbers) of the generators as they stand."""
    python, numpy, state = rng.state()
    tensors = {
        "torch": state.clone(),
        "numpy": torch.from_numpy(numpy[1].astype(np.int64)),
        "python": torch.tensor(python[1], dtype=torch.int64),
    }
    # Written for CUDA, not run there.
    if torch.cuda.is_initialized():
        tensors |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors, {"numpy": list(numpy[2:]), "python": python[2]}


def put(tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
    """Set the generators to what `take` gave."""
    version = random.getstate()[0]
    words = tuple(tensors["python"].tolist())
    keys = tensors["numpy"].numpy().astype(np.uint32)
    rng.restore(
        ((version, words, numbers["python"]), ("MT19937", keys, *numbers["numpy"]), tensors["torch"])
    )
    devices = [tensors[f"cuda{i}"] for i in range(len(tensors)) if f"cuda{i}" in tensors]
    if devices:
        torch.cuda.set_rng_state_all(devices)
