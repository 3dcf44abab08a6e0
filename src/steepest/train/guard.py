"""The guard: a loss or gradient that is not finite never reaches the weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steepest.optim.errors import UserError


class Verdict(Enum):
    """What becomes of an update; the value is the word in the column `event`."""

    GO = ""
    SKIP = "guard"
    REWIND = "rewind"
    GIVE_UP = "failed"


class Diverged(UserError):
    """Training met non-finite numbers again and again; the sentence says where the batch lies."""

    exit_code = 1


@dataclass(frozen=True)
class Strikes:
    """Updates withheld in a row, and rewinds so far."""

    in_a_row: int = 0
    rewinds: int = 0


@dataclass(frozen=True)
class Guard:
    """Withholds an update that is not finite; after `strikes` of them in a row the run goes back to its last
    good state with `factor` on the rate; after `rewinds` of those it gives up."""

    strikes: int = 5
    rewinds: int = 3
    factor: float = 0.5

    def observe(self, state: Strikes, finite: bool) -> tuple[Strikes, Verdict]:
        """The state after one more update, and what becomes of it."""
        if finite:
            return (state if not state.in_a_row else replace(state, in_a_row=0)), Verdict.GO
        if state.in_a_row + 1 < self.strikes:
            return replace(state, in_a_row=state.in_a_row + 1), Verdict.SKIP
        if state.rewinds >= self.rewinds:
            return state, Verdict.GIVE_UP
        return Strikes(0, state.rewinds + 1), Verdict.REWIND


def save_batches(path: Path, batches: list[Any]) -> None:
    """The microbatches of one update as arrays named batch<i>/<place in the tree>, without pickles."""
    arrays: dict[str, Any] = {
        f"batch{i}{name}": array for i, batch in enumerate(batches) for name, array in _leaves(batch)
    }
    np.savez(path, allow_pickle=False, **arrays)


def _leaves(tree: Any, name: str = "") -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        parts = list(tree.items())
    elif isinstance(tree, tuple | list):
        parts = list(enumerate(tree))
    else:
        array = tree.detach().cpu() if isinstance(tree, torch.Tensor) else tree
        return [(name, _plain(array))]
    return [leaf for key, branch in parts for leaf in _leaves(branch, f"{name}/{key}")]


def _plain(array: Any) -> np.ndarray:
    """As NumPy knows it: bfloat16 becomes float32."""
    if isinstance(array, torch.Tensor) and array.dtype == torch.bfloat16:
        array = array.float()
    return np.asarray(array)
