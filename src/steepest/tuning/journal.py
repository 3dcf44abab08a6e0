"""What a search has found out so far: `Journal` on the disk, `Search` in memory.

    <run>/search/{<name>.json, arm-0/step-000045/…, start.safetensors}

A search is one function of what it measures. Every measurement goes through `once`: it is made, written down
and only then used. Run again, the function meets the same numbers and takes the same way, to the bit.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from steepest.evidence import Evidence
from steepest.files import write_atomic
from steepest.optim.errors import UserError
from steepest.train import budget, growth
from steepest.train.job import Job
from steepest.tuning import constants, timing

LENGTH = "horizon-"
"""How the names of measurements begin that are of the run which follows, and not of the search."""


class Journal:
    """Measurements by name.   took: seconds of each that this process has asked for, whoever made it"""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.took: dict[str, float] = {}
        try:
            place.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{str(place)!r} is a file where a folder belongs. Remove it.") from None

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What `measure` gave as JSON knows it; it is called once in the life of the folder."""
        path = self.place / f"{name}.json"
        if not path.exists():
            began = time.perf_counter()
            value = measure()
            held = {"value": value, "seconds": time.perf_counter() - began}
            write_atomic(path, json.dumps(held).encode())
        held = read(path, _measurement)
        self.took[name] = held["seconds"]
        return held["value"]

    @property
    def seconds(self) -> float:
        """What all measurements took."""
        return sum(self.took.values())


def read(path: Path, understood: Callable[[bytes], Any]) -> Any:
    """What a file of a search holds. Raises UserError where it is damaged."""
    try:
        return understood(path.read_bytes())
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{str(path)!r} is damaged ({error}). Remove the folder {path.parent.name!r} to search anew, "
            "which gives the same run."
        ) from error


def _measurement(content: bytes) -> dict[str, Any]:
    held = json.loads(content)
    return {"value": held["value"], "seconds": float(held["seconds"])}


def spent(place: Path) -> float:
    """Seconds that all measurements of a search took."""
    files = (path for path in place.glob("*.json") if not path.name.startswith(LENGTH))
    return sum(read(path, json.loads).get("seconds", 0.0) for path in files)


Tell = Callable[[Evidence], object]


@dataclass
class Search:
    """One search: what it stands on, and what it has found so far."""

    job: Job
    journal: Journal
    told: Tell
    asked: Callable[[], object]
    most: float
    trains: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    gradients: float = 0.0

    @cached_property
    def open(self) -> frozenset[str]:
        """What is to be chosen."""
        return frozenset(self.job.asked.open)

    @property
    def allowed(self) -> budget.Budget:
        """The budget as it was asked for."""
        return budget.parse(self.job.recipe.budget)

    def tell(self, evidence: Evidence) -> None:
        """Print and record a decision; a setting of the recipe takes its value."""
        self.told(evidence)
        if evidence.choice in self.open and evidence.choice not in ("schedule", "stop", "rule"):
            self.settings[evidence.choice] = evidence.decided

    def charge(self, gradients: float) -> None:
        """Count what was spent."""
        self.gradients += gradients

    def updates(self) -> int | None:
        """What the whole budget holds under the settings so far; None where nobody can know."""
        seconds = self.allowed.seconds
        if seconds is None:
            return growth.updates(self.allowed, self.job.source)
        if seconds < constants.INSTANT:
            return None
        size = self.job.recipe.batch_size
        return self.journal.once(f"length-{size}", lambda: timing.updates_left(self.job, seconds).decided)

    def late(self) -> bool:
        """Whether the clock says that a search must end. A budget in steps knows no clock."""
        seconds = self.allowed.seconds
        return seconds is not None and self.journal.seconds > self.most / 2 * seconds


def unmeasured(choice: str, decided: Any, why: str) -> Evidence:
    """A choice that fell back on its default, and why."""
    return Evidence(choice, decided, f"not measured: {why}")


def plain(number: float) -> float | None:
    """None for what is not finite, which JSON has no word for."""
    return number if math.isfinite(number) else None
