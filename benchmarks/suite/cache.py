"""Prepared data, read from the raw folder once and kept under the user's cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from benchmarks.suite.sources import Arrays
from steepest.optim.errors import UserError

VERSION = 1
"""Of the prepared form; another one is prepared anew."""

Pair: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Parts:
    """Inputs and targets by part.   unit: of the metric, in those of the target;  words: of a vocabulary."""

    train: Pair
    validation: Pair
    test: Pair
    unit: float = 1.0
    words: int = 0


def place(name: str) -> Path:
    """Where a prepared data set lies."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "steepest" / "suite" / f"{name}-{VERSION}.npz"


def prepare(folder: Path, readers: Mapping[str, Callable[[Path], Arrays]]) -> None:
    """Read what is not prepared yet. A file appears whole or not at all."""
    for name, read in readers.items():
        path = place(name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_suffix(f".{os.getpid()}.npz")
            np.savez(half, **read(folder))  # pyright: ignore[reportArgumentType]
            half.replace(path)
            print(f"prepared {name}: {path.stat().st_size / 1e6:.0f} MB", flush=True)


@lru_cache(maxsize=2)
def parts(name: str) -> Parts:
    """The tensors of a prepared data set."""
    path = place(name)
    if not path.exists():
        raise UserError(
            f"The data set {name!r} is not prepared: there is no {path}. Run "
            f"`python -m benchmarks.suite prepare --data FOLDER` with the folder of the raw data."
        )
    with np.load(path) as held:
        return tensors({key: held[key] for key in held.files})


def tensors(arrays: Arrays) -> Parts:
    """Inputs scaled where the arrays say how, as tensors."""

    def pair(part: str) -> Pair:
        x, y = arrays[f"{part}_x"], arrays[f"{part}_y"]
        if "scale" in arrays:
            x = (x.astype(np.float32) - arrays["shift"]) / arrays["scale"]
        return torch.from_numpy(x), torch.from_numpy(y)

    unit, words = float(arrays.get("unit", 1.0)), int(arrays.get("words", 0))
    return Parts(pair("train"), pair("validation"), pair("test"), unit, words)
