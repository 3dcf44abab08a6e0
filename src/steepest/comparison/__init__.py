"""Strategies under equal conditions: the question, the runs that answer it, and what these allow to say."""

from __future__ import annotations

import os
from pathlib import Path

from steepest.files import Folder


class Place(Folder):
    """The folder of a comparison; a run folder for each strategy and seed lies in it.

    plan     compare.toml, what was asked;   evidence   the measured rates, one a line
    results  one run a line;   verdict   what they allow to be said"""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.plan = self.path / "compare.toml"
        self.results = self.path / "results.jsonl"
        self.verdict = self.path / "verdict.json"

    def run(self, strategy: str, seed: int) -> Path:
        """The folder of one run."""
        return self.path / f"{strategy}-seed-{seed}"

    def trial(self, strategy: str, lr: float) -> Path:
        """The folder of a short run that a rate was tried in."""
        return self.path / "rates" / f"{strategy}-{lr:.6g}"


def is_comparison(path: str | os.PathLike[str]) -> bool:
    """Whether a comparison lies in this folder."""
    return Place(path).plan.exists()
